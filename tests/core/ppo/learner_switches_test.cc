#include <cmath>
#include <limits>
#include <string>

#include "ATen/TensorOperators.h"
#include "core/error.h"
#include "core/ppo/learner.h"
#include "core/ppo/pass.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/core/ppo/learner_fixture.h"
#include "tests/testing/status_matchers.h"

// The switches between the product's way and the reference implementation's,
// each under the number of its row in docs/training.md.
namespace esper::ppo {
namespace {

using ::esper::testing::Refused;
constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr auto kPrecondition = absl::StatusCode::kFailedPrecondition;

// One whole update; the caller checks what came of it.
ForwardBackwardReport Update(Learner& learner,
                             const std::vector<Trajectory>& episodes,
                             PpoOptions options = FirstPass()) {
  options.update_statistics = true;
  auto report = learner.ForwardBackward(episodes, options);
  EXPECT_TRUE(report.ok()) << report.status();
  if (report->accumulated) {
    EXPECT_TRUE(learner.OptimStep({}).ok());
  }
  learner.Publish();
  return *std::move(report);
}

nlohmann::json StateOf(const Learner& learner) {
  return nlohmann::json::parse(learner.Save().json);
}

TEST(LearnerSwitchesTest, T4EveryPublishedVersionCarriesItsFloorScale) {
  LearnerConfig config = TestConfig();
  config.floor_anneal_updates = 4;
  config.final_floor_scale = 0.2;
  const auto learner = MakeLearner(config);
  EXPECT_EQ(learner->published()->floors, learner->spec().Floors());
  const double expected[] = {1.0, 0.8, 0.6, 0.4, 0.2, 0.2};
  for (const double scale : expected) {
    const auto snapshot = learner->published();
    EXPECT_NEAR(snapshot->floor_scale, scale, 1e-12);
    const policy::FloorSettings whole = learner->spec().Floors();
    for (size_t k = 0; k < whole.floors.size(); ++k) {
      EXPECT_NEAR(snapshot->floors.floors[k], whole.floors[k] * scale, 1e-12);
    }
    // Acting and training agree at every scale.
    const auto report = Update(*learner, Episodes(*learner));
    ASSERT_TRUE(report.ratio_check_max.has_value());
    EXPECT_LT(*report.ratio_check_max, 1e-4);
    EXPECT_NEAR(report.metrics.at("floor_scale"), scale, 1e-12);
  }
}

// A learner whose op is nearly certain, so that floors matter, and which
// anneals them away in one update that hardly moves the weights.
std::unique_ptr<Learner> SharpLearner() {
  LearnerConfig config = TestConfig();
  config.floor_anneal_updates = 1;
  config.learning_rate = 1e-12;
  config.normalize_observations = false;
  auto learner = MakeLearner(config);
  LearnerState state = learner->Save();
  for (auto& [name, tensor] : state.tensors) {
    if (name == "weights.op_head.2.bias") tensor[0].fill_(8.0f);
  }
  EXPECT_TRUE(learner->Restore(state).ok());
  return learner;
}

TEST(LearnerSwitchesTest, T4ActingUnderOtherFloorsIsNoticed) {
  const auto learner = SharpLearner();
  Update(*learner, Episodes(*learner, {30, 30}));
  PolicySnapshot wrong = *learner->published();
  EXPECT_EQ(wrong.floor_scale, 0);
  wrong.floors = learner->spec().Floors();
  RolloutOptions options;
  options.lengths = {40, 40};
  EXPECT_THAT(learner->ForwardBackward(Rollout(learner->spec(), wrong, options),
                                       FirstPass()),
              Refused(kPrecondition, "BEHAVIOUR_MISMATCH"));
}

TEST(LearnerSwitchesTest, T4OlderStepsAreScoredUnderTheFloorsInForceNow) {
  const auto learner = SharpLearner();
  const auto episodes = Episodes(*learner, {40, 40});
  Update(*learner, episodes);
  PpoOptions options;
  options.totals_only = true;
  options.target_kl.reset();
  const auto report = learner->ForwardBackward(episodes, options);
  ASSERT_OK(report);
  EXPECT_EQ(report->metrics.at("version_lag"), 1.0);
  EXPECT_FALSE(report->ratio_check_max.has_value());
  // The weights are the same; the floors that acted are the denominator.
  EXPECT_GT(report->approx_kl, 1e-6);
  options.denominator = RatioDenominator::kAnchor;
  const auto anchor = learner->ForwardBackward(episodes, options);
  ASSERT_OK(anchor);
  EXPECT_NEAR(anchor->approx_kl, 0, 1e-9);
  // A restored learner has the same floors in force.
  auto copy =
      Learner::CreateFromState(SmallSpec(), learner->config(), learner->Save());
  ASSERT_OK(copy);
  EXPECT_EQ((*copy)->published()->floors, learner->published()->floors);
  EXPECT_EQ((*copy)->published()->floor_scale, 0);
}

TEST(LearnerSwitchesTest, T5RatiosAreTakenAgainstWhatActedOrAgainstTheAnchor) {
  // Episodes of version 1 in the hands of version 2: only recorded log-probs
  // know what acted.
  const auto learner = MakeLearner();
  const auto episodes = Episodes(*learner);
  ASSERT_OK(learner->ForwardBackward(episodes, FirstPass()));
  OptimStepOptions step;
  step.learning_rate = 0.01;
  ASSERT_OK(learner->OptimStep(step));
  learner->Publish();
  PpoOptions options;
  options.totals_only = true;
  options.target_kl.reset();
  const auto behaviour = learner->ForwardBackward(episodes, options);
  ASSERT_OK(behaviour);
  options.denominator = RatioDenominator::kAnchor;
  const auto anchor = learner->ForwardBackward(episodes, options);
  ASSERT_OK(anchor);
  EXPECT_GT(behaviour->approx_kl, 1e-4);
  EXPECT_NEAR(anchor->approx_kl, 0, 1e-7);
}

TEST(LearnerSwitchesTest, T5DivergenceIsReportedForEveryPass) {
  const auto learner = MakeLearner();
  const auto episodes = Episodes(*learner);
  PpoOptions options = FirstPass();
  options.target_kl.reset();
  double before = -1;
  for (int pass = 0; pass < 3; ++pass) {
    const auto report = learner->ForwardBackward(episodes, options);
    ASSERT_OK(report);
    EXPECT_EQ(report->metrics.at("approx_kl"), report->approx_kl);
    if (pass == 0) {
      EXPECT_NEAR(report->approx_kl, 0, 1e-7);
    } else {
      EXPECT_GT(report->approx_kl, before);
    }
    before = report->approx_kl;
    ASSERT_OK(learner->OptimStep({}));
    options.update_statistics = false;
  }
}

TEST(LearnerSwitchesTest, T5AMinibatchHasItsOwnMeansAndTheBatchsAdvantages) {
  const auto learner = MakeLearner();
  const auto episodes = Episodes(*learner, {12, 20, 7, 15});
  PpoOptions totals_only;
  totals_only.totals_only = true;
  const auto whole = learner->ForwardBackward(episodes, totals_only);
  ASSERT_OK(whole);
  const absl::Span<const Trajectory> half(episodes.data(), 2);

  PpoOptions options;
  options.totals = whole->totals;
  options.minibatch = true;
  const auto minibatch = learner->ForwardBackward(half, options);
  ASSERT_OK(minibatch);
  const NamedTensors gradient = learner->Gradients();
  learner->ClearGradients();
  // The same by hand: the half's own totals with the whole's advantages.
  BatchTotals mixed = minibatch->totals;
  mixed.advantage_count = whole->totals.advantage_count;
  mixed.advantage_mean = whole->totals.advantage_mean;
  mixed.advantage_std = whole->totals.advantage_std;
  options.minibatch = false;
  options.totals = mixed;
  ASSERT_OK(learner->ForwardBackward(half, options));
  EXPECT_LE(RelativeDifference(learner->Gradients(), gradient), 1e-6);
  learner->ClearGradients();
  // As a part of the whole it would weigh less.
  options.totals = whole->totals;
  ASSERT_OK(learner->ForwardBackward(half, options));
  EXPECT_GT(RelativeDifference(learner->Gradients(), gradient), 0.1);
}

TEST(LearnerSwitchesTest, T5AMinibatchStopsAtTheDivergenceLimit) {
  const auto learner = MakeLearner();
  const auto episodes = Episodes(*learner);
  ASSERT_OK(learner->ForwardBackward(episodes, FirstPass()));
  OptimStepOptions step;
  step.learning_rate = 0.05;
  ASSERT_OK(learner->OptimStep(step));
  PpoOptions options;
  const auto whole = learner->ForwardBackward(episodes, options);
  ASSERT_OK(whole);
  ASSERT_TRUE(whole->kl_stop);
  options.totals = whole->totals;
  const auto part = learner->ForwardBackward({&episodes[1], 1}, options);
  ASSERT_OK(part);
  EXPECT_FALSE(part->kl_stop);
  learner->ClearGradients();
  options.minibatch = true;
  const auto minibatch = learner->ForwardBackward({&episodes[1], 1}, options);
  ASSERT_OK(minibatch);
  EXPECT_TRUE(minibatch->kl_stop);
  EXPECT_FALSE(learner->has_gradient());
}

TEST(LearnerSwitchesTest, T8ReturnStatisticsDoNotDependOnTheOrderOfRows) {
  const auto forwards = MakeLearner();
  const auto backwards = MakeLearner();
  auto episodes = Episodes(*forwards, {30, 20, 10});
  Update(*forwards, episodes);
  std::reverse(episodes.begin(), episodes.end());
  Update(*backwards, episodes);
  const double deviation = StateOf(*forwards)["reward_deviation"];
  EXPECT_NEAR(StateOf(*backwards)["reward_deviation"], deviation, 1e-9);
  EXPECT_NE(deviation, 1.0);
}

TEST(LearnerSwitchesTest, T8UpstreamScalesStepByStepAndEveryPassAlike) {
  LearnerConfig config = TestConfig();
  config.reward_scaling = RewardScaling::kUpstream;
  const auto learner = MakeLearner(config);
  const auto episodes = Episodes(*learner, {5, 3});
  RewardNormalizer normalizer(10.0, 1e-8);
  const auto scaled = NormalizeRewards(episodes, &normalizer);
  ASSERT_EQ(scaled[0].size(), 5u);
  ASSERT_EQ(scaled[1].size(), 3u);
  RewardNormalizer by_hand(10.0, 1e-8);
  EXPECT_EQ(scaled[0][0],
            *by_hand.Normalize(episodes[0].rewards[0].item<float>()));
  EXPECT_EQ(scaled[1][0],
            *by_hand.Normalize(episodes[1].rewards[0].item<float>()));
  EXPECT_EQ(scaled[0][1],
            *by_hand.Normalize(episodes[0].rewards[1].item<float>()));

  PpoOptions options = PpoOptions::Upstream();
  options.update_statistics = true;
  const auto first = learner->ForwardBackward(episodes, options);
  ASSERT_OK(first);
  options.update_statistics = false;
  const auto second = learner->ForwardBackward(episodes, options);
  ASSERT_OK(second);
  EXPECT_EQ(first->totals.advantage_mean, second->totals.advantage_mean);
  learner->ClearGradients();
  learner->Publish();
  EXPECT_EQ(StateOf(*learner)["statistics"]["rewards"]["count"], 8);
  // Parts have no order among each other.
  options.minibatch = true;
  EXPECT_THAT(learner->ForwardBackward(Episodes(*learner), options),
              Refused(kInvalid, "MALFORMED_REQUEST"));
}

TEST(LearnerSwitchesTest, T9StatisticsAreExactUnlessUpstreamIsAskedFor) {
  for (const bool upstream : {false, true}) {
    LearnerConfig config = TestConfig();
    if (upstream) {
      config.observation_averaging = ObservationAveraging::kUpstream;
    }
    const auto learner = MakeLearner(config);
    // Upstream's initial guess is in force from the start.
    EXPECT_EQ(learner->published()->scaler.identity(), !upstream);
    const auto episodes = Episodes(*learner, {30, 30});
    Update(*learner, episodes);
    double mean = 0;
    for (const Trajectory& row : episodes) {
      mean += row.observations.select(1, 0).mean().item<double>() / 2;
    }
    const double found =
        StateOf(*learner)["statistics"]["observations"]["mean"][0];
    EXPECT_NEAR(found, upstream ? 0.01 * mean : mean, 1e-5);
  }
}

TEST(LearnerSwitchesTest, T20AFailedUpdateIsTakenBackWhole) {
  for (const bool upstream : {false, true}) {
    LearnerConfig config = TestConfig();
    config.rollback_failed_updates = !upstream;
    const auto learner = MakeLearner(config);
    Update(*learner, Episodes(*learner, {40, 30}));
    const LearnerState published = learner->Save();
    // A good first pass, then a gradient that overflows Adam's moments.
    const auto episodes = Episodes(*learner, {20, 40}, 5);
    ASSERT_OK(learner->ForwardBackward(episodes, FirstPass()));
    ASSERT_OK(learner->OptimStep({}));
    ASSERT_OK(learner->ForwardBackward(episodes, {}));
    LearnerState poisoned = learner->Save();
    for (auto& [name, tensor] : poisoned.tensors) {
      if (name == "gradient.op_head.0.bias") tensor[0].fill_(3e38f);
    }
    // Through a checkpoint, which must know what the update began with.
    ASSERT_OK(learner->Restore(poisoned));
    const auto step = learner->OptimStep({1e38, 0.5});
    ASSERT_OK(step);
    EXPECT_FALSE(step->stepped);
    EXPECT_EQ(step->rolled_back, !upstream);
    if (upstream) {
      EXPECT_EQ(learner->unpublished_steps(), 1);
      EXPECT_NE(StateOf(*learner)["statistics"],
                nlohmann::json::parse(published.json)["statistics"]);
      continue;
    }
    const LearnerState after = learner->Save();
    ExpectSame(after.tensors, published.tensors);
    auto expected = nlohmann::json::parse(published.json);
    auto found = nlohmann::json::parse(after.json);
    EXPECT_EQ(found["counters"]["nonfinite_in_a_row"], 1);
    for (const char* key : {"statistics", "learning_rate", "adam_steps",
                            "moved_since_publish", "reward_deviation"}) {
      EXPECT_EQ(found[key], expected[key]) << key;
    }
    expected["counters"]["nonfinite_in_a_row"] = 1;
    EXPECT_EQ(found["counters"], expected["counters"]);
    // And training goes on.
    Update(*learner, Episodes(*learner, {20, 40}, 6));
    EXPECT_EQ(learner->updates(), 2);
  }
}

TEST(LearnerSwitchesTest, T20TheThirdFailureEndsTrainingInOrder) {
  const auto learner = MakeLearner();
  Update(*learner, Episodes(*learner));
  const auto published = learner->published();
  const auto episodes = Episodes(*learner, {20, 20}, 5);
  const auto fail = [&] {
    EXPECT_TRUE(learner->ForwardBackward(episodes, FirstPass()).ok());
    LearnerState state = learner->Save();
    for (auto& [name, tensor] : state.tensors) {
      if (name == "gradient.op_head.0.bias") tensor[0].fill_(3e38f);
    }
    EXPECT_TRUE(learner->Restore(state).ok());
    return learner->OptimStep({1e38, std::nullopt}).status();
  };
  EXPECT_OK(fail());
  EXPECT_OK(fail());
  EXPECT_THAT(fail(), Refused(kPrecondition, "TRAINING_DIVERGED"));
  // The last good version is there, in training too, and can be saved.
  EXPECT_EQ(learner->policy_version(), 2);
  ExpectSame(learner->published()->weights, published->weights);
  ExpectSame(learner->Weights(), published->weights);
  EXPECT_FALSE(learner->has_gradient());
  auto copy =
      Learner::CreateFromState(SmallSpec(), TestConfig(), learner->Save());
  ASSERT_OK(copy);
  ExpectSame((*copy)->Weights(), published->weights);
}

TEST(LearnerSwitchesTest, T26ACheckpointSaysEverySetting) {
  LearnerConfig config = TestConfig();
  config.floor_anneal_updates = 7;
  const auto learner = MakeLearner(config);
  PpoOptions options = FirstPass();
  options.target_kl = 0.02;
  options.contribution.warmup_updates = 3;
  options.entropy_floors["op"] = 0.4;
  ASSERT_OK(learner->ForwardBackward(Episodes(*learner), options));
  OptimStepOptions step;
  step.max_grad_norm = 2.5;
  step.learning_rate = 2e-3;
  ASSERT_OK(learner->OptimStep(step));
  const auto copy =
      Learner::CreateFromState(SmallSpec(), config, learner->Save());
  ASSERT_OK(copy);
  const nlohmann::json state = StateOf(**copy);
  EXPECT_EQ(state["config"]["floor_anneal_updates"], 7);
  EXPECT_EQ(state["config"]["learning_rate"], 1e-3);
  EXPECT_EQ(state["config"]["reward_scaling"], "returns");
  EXPECT_EQ(state["pass_options"]["target_kl"], 0.02);
  EXPECT_EQ(state["pass_options"]["contribution"]["warmup_updates"], 3);
  EXPECT_EQ(state["pass_options"]["entropy_floors"]["op"], 0.4);
  EXPECT_EQ(state["pass_options"]["denominator"], "behaviour");
  EXPECT_EQ(state["step_options"]["max_grad_norm"], 2.5);
  EXPECT_EQ(state["learning_rate"], 2e-3);
}

TEST(LearnerSwitchesTest, ProfilesAreOnTheirSideOfEverySwitch) {
  const LearnerConfig ours, upstream = LearnerConfig::Upstream();
  EXPECT_EQ(ours.observation_averaging, ObservationAveraging::kExactRows);
  EXPECT_EQ(upstream.observation_averaging, ObservationAveraging::kUpstream);
  EXPECT_EQ(ours.reward_scaling, RewardScaling::kReturns);
  EXPECT_EQ(upstream.reward_scaling, RewardScaling::kUpstream);
  EXPECT_TRUE(ours.popart);
  EXPECT_FALSE(upstream.popart);
  EXPECT_TRUE(ours.rollback_failed_updates);
  EXPECT_FALSE(upstream.rollback_failed_updates);
  EXPECT_EQ(upstream.floor_anneal_updates, 0);
  EXPECT_EQ(upstream.value_averaging.momentum, 0.99);
  const PpoOptions options, parity = PpoOptions::Upstream();
  EXPECT_EQ(options.ends, EndHandling::kEveryEnd);
  EXPECT_EQ(parity.ends, EndHandling::kUpstream);
  EXPECT_EQ(options.denominator, RatioDenominator::kBehaviour);
  EXPECT_EQ(parity.denominator, RatioDenominator::kAnchor);
  EXPECT_EQ(options.policy_mean, PolicyMean::kSteps);
  EXPECT_EQ(parity.policy_mean, PolicyMean::kUpstream);
  EXPECT_EQ(options.entropy_over, EntropyOver::kAvailable);
  EXPECT_EQ(parity.entropy_over, EntropyOver::kUpstream);
  EXPECT_EQ(options.statistics_over, StatisticsOver::kUnforced);
  EXPECT_EQ(parity.statistics_over, StatisticsOver::kUpstream);
}

TEST(LearnerSwitchesTest, RefusesSwitchesOutOfRangeNamingThem) {
  const auto field = [](const LearnerConfig& config) {
    const auto learner = Learner::Create(SmallSpec(), config, 1);
    EXPECT_THAT(learner, Refused(kInvalid, "MALFORMED_REQUEST"));
    return DetailOf(learner.status())->field;
  };
  LearnerConfig config;
  config.floor_anneal_updates = -1;
  EXPECT_EQ(field(config), "floor_anneal_updates");
  config = {};
  config.final_floor_scale = 1.5;
  EXPECT_EQ(field(config), "final_floor_scale");
}

}  // namespace
}  // namespace esper::ppo
