#include "core/env/episode_runner.h"

#include <algorithm>
#include <string>
#include <vector>

#include "core/env/control_schedule.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/core/env/play.h"

namespace esper::env {
namespace {

using policy::Op;
using ::testing::HasSubstr;

EpisodeRecord PlayBaseline(const std::string& name, uint64_t seed,
                           int max_epochs) {
  auto policy = MakeBaseline(name).value();
  auto record = PlayEpisode(SmallConfig(seed, max_epochs), *policy);
  EXPECT_TRUE(record.ok()) << record.status();
  return *std::move(record);
}

TEST(BaselineTest, EveryBaselinePlaysWholeEpisodes) {
  for (const std::string& name : BaselineNames()) {
    const EpisodeRecord record = PlayBaseline(name, 3, 12);
    EXPECT_EQ(record.summary.steps, 12) << name;
    EXPECT_TRUE(record.summary.truncated) << name;
    EXPECT_EQ(record.seed, 3u);
    double sum = 0;
    for (const auto& [part, value] : record.part_sums) sum += value;
    EXPECT_NEAR(sum, record.summary.episode_return, 1e-9) << name;
  }
}

TEST(BaselineTest, NeverGrowNeverGerminates) {
  const EpisodeRecord record = PlayBaseline("never_grow", 3, 12);
  EXPECT_EQ(record.summary.seeds_germinated, 0);
  EXPECT_EQ(record.summary.total_params, record.summary.host_params);
}

TEST(BaselineTest, RandomLegalIsNeverRefusedByItsMasksAndTriesEverything) {
  auto policy = MakeBaseline("random_legal").value();
  std::vector<int> ops(policy::kNumOps, 0);
  std::vector<int> slots(3, 0);
  for (uint64_t seed = 0; seed < 4; ++seed) {
    auto episode = Start(SmallConfig(seed, 25));
    policy->Reset(*episode);
    while (!episode->done()) {
      const policy::ActionMask mask = episode->observation().mask;
      const policy::FactoredAction action = policy->Act(*episode);
      // A function of seed, step and masks.
      EXPECT_EQ(policy->Act(*episode).ToIndices(), action.ToIndices());
      EXPECT_TRUE(mask.AllowsSlot(action.op, action.slot));
      for (int h = 1; h < policy::kNumActionHeads; ++h) {
        const auto head = static_cast<policy::ActionHead>(h);
        if (IsRelevantHead(head, action.op)) {
          EXPECT_TRUE(mask.Allows(head, action.ToIndices()[h]));
        }
      }
      ++ops[static_cast<size_t>(action.op)];
      if (action.op == Op::kGerminate) ++slots[action.slot];
      Take(*episode, action);
    }
  }
  for (const Op op : {Op::kWait, Op::kGerminate, Op::kPrune, Op::kAdvance}) {
    EXPECT_GT(ops[static_cast<size_t>(op)], 0) << policy::OpName(op);
  }
  EXPECT_GT(*std::min_element(slots.begin(), slots.end()), 0);
}

TEST(BaselineTest, TheHeuristicPlantsIntoTheFirstSlotOnAPlateau) {
  EpisodeConfig config = SmallConfig(5, 40);
  // A host that stands still is stable and on a plateau.
  config.val_loss_hook = [](int, double) { return 1.0; };
  auto policy = MakeBaseline("heuristic").value();
  auto episode = Start(config);
  policy->Reset(*episode);
  std::vector<StepResult> steps;
  while (!episode->done()) {
    steps.push_back(Take(*episode, policy->Act(*episode)));
  }
  const auto planted =
      std::find_if(steps.begin(), steps.end(), [](const StepResult& step) {
        return step.effective_op == Op::kGerminate;
      });
  ASSERT_NE(planted, steps.end());
  EXPECT_GE(planted->epoch, 5);
  EXPECT_EQ(planted->action.slot, 0);
  EXPECT_EQ(planted->slots[0].blueprint, "conv_light");
  // The next decision is about that seed.
  ASSERT_NE(planted + 1, steps.end());
  EXPECT_EQ((planted + 1)->effective_op, Op::kAdvance);
  EXPECT_EQ((planted + 1)->action.slot, 0);
}

TEST(BaselineTest, RefusesUnknownNamesWithTheNearest) {
  const auto unknown = MakeBaseline("random_ilegal");
  EXPECT_EQ(unknown.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(unknown.status().message()),
              HasSubstr("nearest is \"random_legal\""));
}

std::vector<EpisodeRunner::Arm> TwoArms() {
  const auto random = [] { return MakeBaseline("random_legal").value(); };
  EpisodeConfig other = SmallConfig(0, 10);
  other.trainer.host_lr *= 2;
  return {{SmallConfig(0, 10), random}, {other, random}};
}

std::vector<EpisodeRecord> RunArms(int threads) {
  EpisodeRunner::Options options;
  options.episodes = 3;
  options.root_seed = 9;
  options.threads = threads;
  auto runner = EpisodeRunner::Create(TwoArms(), options);
  EXPECT_TRUE(runner.ok()) << runner.status();
  std::vector<EpisodeRecord> records;
  EXPECT_TRUE(runner
                  ->Run([&records](const EpisodeRecord& record) {
                    records.push_back(record);
                    return absl::OkStatus();
                  })
                  .ok());
  return records;
}

TEST(EpisodeRunnerTest, InterleavesArmsOnTheSameSeedsWhateverTheThreads) {
  const auto one = RunArms(1);
  const auto many = RunArms(3);
  ASSERT_EQ(one.size(), 6u);
  ASSERT_EQ(many.size(), 6u);
  for (int i = 0; i < 6; ++i) {
    EXPECT_EQ(one[i].arm, i % 2);
    EXPECT_EQ(one[i].episode, i / 2);
    EXPECT_EQ(one[i].seed, EvaluationSeed(9, i / 2));
    EXPECT_EQ(many[i].arm, one[i].arm);
    EXPECT_EQ(many[i].seed, one[i].seed);
    EXPECT_EQ(many[i].summary.episode_return, one[i].summary.episode_return);
    EXPECT_EQ(many[i].summary.host_accuracy, one[i].summary.host_accuracy);
  }
  EXPECT_NE(one[0].summary.final_val_accuracy,
            one[1].summary.final_val_accuracy);
}

TEST(EpisodeRunnerTest, StopsAtTheFirstError) {
  EpisodeRunner::Options options;
  options.episodes = 50;
  options.threads = 2;
  auto runner = EpisodeRunner::Create(TwoArms(), options);
  int records = 0;
  const absl::Status status = runner->Run([&records](const EpisodeRecord&) {
    return ++records < 2 ? absl::OkStatus() : absl::CancelledError("enough");
  });
  EXPECT_EQ(status.code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(records, 2);

  options.threads = 0;
  EXPECT_EQ(EpisodeRunner::Create(TwoArms(), options).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(EpisodeRunner::Create({}, {}).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace esper::env
