#include "core/env/vector_env.h"

#include <limits>
#include <map>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/core/env/play.h"

namespace esper::env {
namespace {

using policy::Op;
using ::testing::ElementsAre;

// Plays the seeds side by side in one process, with random legal actions.
std::map<uint64_t, Trace> PlaySideBySide(const std::vector<uint64_t>& seeds,
                                         int max_epochs) {
  VectorEnv envs(seeds.size());
  std::map<uint64_t, Trace> traces;
  for (size_t id = 0; id < seeds.size(); ++id) {
    EXPECT_TRUE(envs.Start(id, SmallConfig(seeds[id], max_epochs)).ok());
  }
  while (!envs.Running().empty()) {
    std::vector<EnvAction> actions;
    for (int id : envs.Running()) {
      const Observation& seen = envs.episode(id)->observation();
      traces[seeds[id]].See(seen);
      actions.push_back({id, RandomLegalAction(seen.mask, seeds[id],
                                               envs.episode(id)->steps())});
    }
    const auto results = envs.Step(actions);
    EXPECT_TRUE(results.ok()) << results.status();
    for (size_t i = 0; i < actions.size(); ++i) {
      traces[seeds[actions[i].env_id]].See((*results)[i]);
    }
  }
  for (size_t id = 0; id < seeds.size(); ++id) {
    traces[seeds[id]].See(envs.episode(id)->observation());
  }
  return traces;
}

TEST(VectorEnvTest, StepsAnEpisodeTheSameAloneAndBesideOthers) {
  constexpr int kEpochs = 25;
  std::map<uint64_t, Trace> beside = PlaySideBySide({7, 8, 9}, kEpochs);
  for (uint64_t seed : {9, 8, 7}) {
    std::map<uint64_t, Trace> alone = PlaySideBySide({seed}, kEpochs);
    EXPECT_TRUE(alone[seed] == beside[seed]) << "seed " << seed;
    EXPECT_EQ(alone[seed].rewards.size(), kEpochs);
    EXPECT_EQ(alone[seed].features.size(), kEpochs + 1);
  }
  EXPECT_FALSE(beside[7] == beside[8]);
}

TEST(VectorEnvTest, ChecksAllActionsBeforeItStepsAny) {
  VectorEnv envs(2);
  EXPECT_EQ(envs.Start(2, SmallConfig(1, 3)).code(),
            absl::StatusCode::kInvalidArgument);
  ASSERT_TRUE(envs.Start(0, SmallConfig(1, 3)).ok());
  const auto code = [&envs](const std::vector<EnvAction>& actions) {
    return envs.Step(actions).status().code();
  };
  const EnvAction good{0, Act(Op::kWait)};
  EXPECT_EQ(code({good, good}), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code({good, {5, Act(Op::kWait)}}),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code({good, {1, Act(Op::kWait)}}),
            absl::StatusCode::kFailedPrecondition);
  ASSERT_TRUE(envs.Start(1, SmallConfig(1, 3)).ok());
  EXPECT_EQ(code({good, {1, Act(Op::kWait, 9)}}),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(envs.episode(0)->steps(), 0);
  EXPECT_THAT(envs.Running(), ElementsAre(0, 1));
  EXPECT_TRUE(envs.Step({good}).ok());
  EXPECT_EQ(envs.episode(0)->steps(), 1);
  EXPECT_EQ(envs.episode(1)->steps(), 0);
  envs.Stop(0);
  EXPECT_EQ(envs.episode(0), nullptr);
  EXPECT_THAT(envs.Running(), ElementsAre(1));
}

TEST(VectorEnvTest, ARollbackInOneLeavesTheOthersAsTheyWouldBeAlone) {
  constexpr int kEpochs = 6;
  auto config = [](int id) {
    EpisodeConfig config = SmallConfig(40 + id, kEpochs);
    if (id == 1) {
      config.val_loss_hook = [](int epoch, double loss) {
        return epoch == kEpochs ? std::numeric_limits<double>::quiet_NaN()
                                : loss;
      };
    }
    return config;
  };
  VectorEnv envs(4);
  for (int id = 0; id < 4; ++id) ASSERT_TRUE(envs.Start(id, config(id)).ok());
  while (!envs.Running().empty()) {
    std::vector<EnvAction> actions;
    for (int id : envs.Running()) {
      actions.push_back({id, envs.episode(id)->steps() == 0
                                 ? Plant(id % 3, "norm")
                                 : Act(Op::kWait)});
    }
    ASSERT_TRUE(envs.Step(actions).ok());
  }
  EXPECT_TRUE(envs.episode(1)->Summary().terminated);
  for (int id : {0, 2, 3}) {
    auto alone = Start(config(id));
    while (!alone->done()) {
      Take(*alone,
           alone->steps() == 0 ? Plant(id % 3, "norm") : Act(Op::kWait));
    }
    EXPECT_EQ(envs.episode(id)->observation().features,
              alone->observation().features);
    EXPECT_EQ(envs.episode(id)->Summary().episode_return,
              alone->Summary().episode_return);
  }
}

}  // namespace
}  // namespace esper::env
