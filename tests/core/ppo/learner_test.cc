#include "core/ppo/learner.h"

#include <algorithm>
#include <utility>

#include "ATen/TensorOperators.h"
#include "ATen/ops/full.h"
#include "ATen/ops/full_like.h"
#include "ATen/ops/randn.h"
#include "core/error.h"
#include "core/tensor/safetensors.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/core/ppo/learner_fixture.h"
#include "tests/core/ppo/rollout.h"
#include "tests/testing/status_matchers.h"

namespace esper::ppo {
namespace {

using ::esper::testing::Refused;
constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr auto kPrecondition = absl::StatusCode::kFailedPrecondition;

TEST(LearnerTest, AFreshLearnerHasPublishedVersionOne) {
  const auto learner = MakeLearner();
  EXPECT_EQ(learner->policy_version(), 1);
  EXPECT_EQ(learner->published()->version, 1);
  EXPECT_TRUE(learner->published()->scaler.identity());
  EXPECT_EQ(learner->published()->value_unit, 1.0);
  ExpectSame(learner->published()->weights, learner->Weights());
  for (const auto& [name, weight] : learner->published()->weights) {
    EXPECT_FALSE(weight.requires_grad()) << name;
  }
}

TEST(LearnerTest, WhatWasActedIsWhatIsEvaluated) {
  const auto learner = MakeLearner();
  for (int update = 0; update < 3; ++update) {
    // After the first update observation statistics and PopArt are in force.
    const auto report = learner->ForwardBackward(
        Episodes(*learner, {6, 9, 4, 40}, update + 1), FirstPass());
    ASSERT_OK(report);
    ASSERT_TRUE(report->ratio_check_max.has_value());
    EXPECT_LT(*report->ratio_check_max, 1e-4);
    EXPECT_LE(*report->ratio_check_mean, *report->ratio_check_max);
    EXPECT_FALSE(report->ratio_alarm);
    EXPECT_TRUE(report->accumulated);
    EXPECT_NEAR(report->metrics.at("ratio_max"), 1.0, 1e-3);
    ASSERT_OK(learner->OptimStep({}));
    learner->Publish();
  }
  EXPECT_FALSE(learner->published()->scaler.identity());
  EXPECT_NE(learner->published()->value_unit, 1.0);
}

TEST(LearnerTest, StepsMoveTheWeightsAndPublishMakesAVersion) {
  const auto learner = MakeLearner();
  const auto before = learner->published();
  const auto episodes = Episodes(*learner);
  const auto report = learner->ForwardBackward(episodes, FirstPass());
  ASSERT_OK(report);
  EXPECT_EQ(report->transitions, 28);
  EXPECT_EQ(report->episodes, 4);
  EXPECT_TRUE(learner->has_gradient());
  const auto step = learner->OptimStep({});
  ASSERT_OK(step);
  EXPECT_TRUE(step->stepped);
  EXPECT_GT(step->weights_change_l2, 0);
  EXPECT_GT(step->gradient_norm_before_clip, 0);
  EXPECT_FALSE(learner->has_gradient());
  EXPECT_EQ(learner->policy_version(), 1);
  ExpectSame(learner->published()->weights, before->weights);
  const auto snapshot = learner->Publish();
  EXPECT_EQ(snapshot->version, 2);
  EXPECT_EQ(learner->published(), snapshot);
  EXPECT_EQ(learner->updates(), 1);
  EXPECT_EQ(learner->transitions_trained(), 28);
  EXPECT_GT(RelativeDifference(snapshot->weights, before->weights), 0);
}

TEST(LearnerTest, PaddingAndOrderOfRowsDoNotMatter) {
  const auto learner = MakeLearner();
  auto episodes = Episodes(*learner, {6, 9, 4, 9});
  ASSERT_OK(learner->ForwardBackward(episodes, {}));
  const NamedTensors expected = learner->Gradients();
  learner->ClearGradients();
  std::reverse(episodes.begin(), episodes.end());
  ASSERT_OK(learner->ForwardBackward(episodes, {}));
  EXPECT_LT(RelativeDifference(learner->Gradients(), expected), 1e-5);
  learner->ClearGradients();
  // A long row makes padding for all others; its own steps are split off by
  // totals that do not know it.
  PpoOptions totals_only;
  totals_only.totals_only = true;
  const auto whole = learner->ForwardBackward(episodes, totals_only);
  ASSERT_OK(whole);
  PpoOptions part;
  part.totals = whole->totals;
  for (const Trajectory& row : episodes) {
    ASSERT_OK(learner->ForwardBackward({&row, 1}, part));
  }
  EXPECT_LT(RelativeDifference(learner->Gradients(), expected), 1e-5);
}

TEST(LearnerTest, T25ASplitBatchGivesTheGradientOfTheWhole) {
  for (const auto denominator :
       {RatioDenominator::kBehaviour, RatioDenominator::kAnchor}) {
    for (const bool upstream : {false, true}) {
      const auto learner = MakeLearner();
      const auto episodes = Episodes(*learner, {12, 20, 7, 20, 15, 3});
      PpoOptions options = upstream ? PpoOptions::Upstream() : PpoOptions();
      options.denominator = denominator;
      options.contribution.warmup_updates = 0;
      const auto whole = learner->ForwardBackward(episodes, options);
      ASSERT_OK(whole);
      const NamedTensors expected = learner->Gradients();
      learner->ClearGradients();

      PpoOptions totals_only = options;
      totals_only.totals_only = true;
      const auto totals = learner->ForwardBackward(episodes, totals_only);
      ASSERT_OK(totals);
      EXPECT_FALSE(learner->has_gradient());
      EXPECT_NEAR(totals->metrics.at("total"), whole->metrics.at("total"),
                  1e-5);
      options.totals = totals->totals;
      const absl::Span<const Trajectory> rows(episodes);
      double total = 0;
      for (const auto& [from, count] :
           {std::pair<int, int>{0, 1}, {1, 3}, {4, 2}}) {
        const auto part =
            learner->ForwardBackward(rows.subspan(from, count), options);
        ASSERT_OK(part);
        total += part->metrics.at("total");
      }
      EXPECT_NEAR(total, whole->metrics.at("total"), 1e-5);
      EXPECT_LE(WholeDifference(learner->Gradients(), expected), 1e-6);
      EXPECT_LE(RelativeDifference(learner->Gradients(), expected), 1e-5);
    }
  }
}

TEST(LearnerTest, StatisticsOfATotalsCallDoNotChangeTheSplit) {
  // The totals call feeds the statistics; the parts then see the scale of V
  // that a whole first pass would have seen.
  const auto whole = MakeLearner();
  const auto split = MakeLearner();
  const auto episodes = Episodes(*whole, {40, 30, 20, 10});
  ASSERT_OK(whole->ForwardBackward(episodes, FirstPass()));
  PpoOptions totals_only = FirstPass();
  totals_only.totals_only = true;
  const auto totals = split->ForwardBackward(episodes, totals_only);
  ASSERT_OK(totals);
  PpoOptions part;
  part.totals = totals->totals;
  for (const Trajectory& row : episodes) {
    ASSERT_OK(split->ForwardBackward({&row, 1}, part));
  }
  EXPECT_EQ(split->value_sigma(), whole->value_sigma());
  EXPECT_NE(split->value_sigma(), 1.0);
  EXPECT_EQ(split->transitions_trained(), 100);
  EXPECT_LE(WholeDifference(split->Gradients(), whole->Gradients()), 1e-6);
}

TEST(LearnerTest, T24ValuesInRewardUnitsSurviveEveryChangeOfScale) {
  const auto learner = MakeLearner();
  const auto probe = Episodes(*learner, {25, 25}, 99);
  const auto raw_values = [&](double unit) {
    auto evaluation = learner->Evaluate(probe, /*keep_graph=*/false);
    EXPECT_TRUE(evaluation.ok()) << evaluation.status();
    return (*evaluation)->Numbers().values * unit;
  };
  const at::Tensor before = raw_values(1.0);
  RolloutOptions options;
  options.lengths = {30, 30};
  options.reward = [](int64_t, int64_t t, const at::Tensor&) {
    return 40.0f * static_cast<float>(t % 3);
  };
  PpoOptions pass = FirstPass();
  pass.totals_only = true;
  ASSERT_OK(learner->ForwardBackward(
      Rollout(learner->spec(), *learner->published(), options), pass));
  EXPECT_GT(learner->value_sigma(), 10.0);
  // V times sigma stays while only sigma has moved ...
  const at::Tensor during = raw_values(learner->value_sigma());
  EXPECT_LE((during - before).abs().max().item<double>(), 1e-5);
  // ... but publishing also brings new observation statistics into force, which
  // a learner without them does not have.
  LearnerConfig config = TestConfig();
  config.normalize_observations = false;
  const auto plain = MakeLearner(config);
  auto values = plain->Evaluate(probe, false);
  ASSERT_OK(values);
  const at::Tensor first = (*values)->Numbers().values.clone();
  ASSERT_OK(plain->ForwardBackward(
      Rollout(plain->spec(), *plain->published(), options), pass));
  plain->Publish();
  EXPECT_NE(plain->published()->value_unit, 1.0);
  values = plain->Evaluate(probe, false);
  ASSERT_OK(values);
  EXPECT_LE(
      ((*values)->Numbers().values * plain->published()->value_unit - first)
          .abs()
          .max()
          .item<double>(),
      1e-5);
}

TEST(LearnerTest, VersionsMayHaveGapsButMustRise) {
  LearnerConfig config = TestConfig();
  config.max_version_lag = 1;
  const auto learner = MakeLearner(config);
  const auto first = Episodes(*learner);
  EXPECT_EQ(learner->Publish(7)->version, 7);
  EXPECT_EQ(learner->policy_version(), 7);
  EXPECT_THROW(learner->Publish(7), c10::Error);
  // Lag counts versions, not numbers.
  const auto second = Episodes(*learner);
  EXPECT_OK(learner->ForwardBackward(first, FirstPass()));
  EXPECT_EQ(learner->Publish()->version, 8);
  EXPECT_OK(learner->ForwardBackward(second, FirstPass()));
  EXPECT_THAT(
      learner->ForwardBackward(first, FirstPass()),
      Refused(absl::StatusCode::kFailedPrecondition, "STALE_BEHAVIOUR"));
}

TEST(LearnerTest, PublishedStatisticsStayFrozenDuringAnUpdate) {
  const auto learner = MakeLearner();
  const auto episodes = Episodes(*learner);
  ASSERT_OK(learner->ForwardBackward(episodes, FirstPass()));
  EXPECT_TRUE(learner->published()->scaler.identity());
  learner->ClearGradients();
  learner->Publish();
  EXPECT_FALSE(learner->published()->scaler.identity());
  EXPECT_EQ(learner->updates(), 0);  // No optimiser step was taken.
}

TEST(LearnerTest, T5RefusesEpisodesThatWereNotActedLikeThis) {
  const auto learner = MakeLearner();
  auto episodes = Episodes(*learner);
  at::Tensor log_probs = episodes[1].behaviour_log_probs.clone();
  log_probs[3][7] -= 0.05;
  episodes[1].behaviour_log_probs = log_probs;
  const NamedTensors before = learner->Weights();
  const absl::Status status =
      learner->ForwardBackward(episodes, FirstPass()).status();
  EXPECT_THAT(status, Refused(kPrecondition, "BEHAVIOUR_MISMATCH"));
  EXPECT_EQ(DetailOf(status)->row, 1);
  EXPECT_EQ(DetailOf(status)->step, 3);
  EXPECT_EQ(DetailOf(status)->field, "op");
  EXPECT_FALSE(learner->has_gradient());
  EXPECT_EQ(learner->transitions_trained(), 0);
  EXPECT_EQ(learner->value_sigma(), 1.0);
  ExpectSame(learner->Weights(), before);

  log_probs[3][7] += 0.045;  // Between alarm and refusal.
  const auto report = learner->ForwardBackward(episodes, FirstPass());
  ASSERT_OK(report);
  EXPECT_TRUE(report->ratio_alarm);
}

TEST(LearnerTest, RefusesVersionsThatAreUnknownOrTooOld) {
  const auto learner = MakeLearner();
  const auto first = Episodes(*learner);
  auto ahead = first;
  ahead[2].policy_versions = at::full({4}, 2, at::kLong);
  EXPECT_THAT(learner->ForwardBackward(ahead, {}),
              Refused(kPrecondition, "UNKNOWN_VERSION"));
  learner->Publish();
  const auto lagging = learner->ForwardBackward(first, {});
  ASSERT_OK(lagging);  // A lag of one is admissible.
  EXPECT_FALSE(lagging->ratio_check_max.has_value());
  EXPECT_EQ(lagging->metrics.at("version_lag"), 1.0);
  learner->Publish();
  EXPECT_THAT(learner->ForwardBackward(first, {}),
              Refused(kPrecondition, "STALE_BEHAVIOUR"));
  EXPECT_THAT(learner->ForwardBackward({}, {}),
              Refused(kInvalid, "MALFORMED_REQUEST"));
}

TEST(LearnerTest, RefusesOptionsOutOfRangeNamingThem) {
  const auto learner = MakeLearner();
  const auto episodes = Episodes(*learner);
  PpoOptions options;
  options.gamma = 1.5;
  const absl::Status status =
      learner->ForwardBackward(episodes, options).status();
  EXPECT_THAT(status, Refused(kInvalid, "MALFORMED_REQUEST"));
  EXPECT_EQ(DetailOf(status)->field, "gamma");
  options = {};
  options.clip_ratio = kNan;
  EXPECT_THAT(learner->ForwardBackward(episodes, options),
              Refused(kInvalid, "MALFORMED_REQUEST"));
  OptimStepOptions step;
  step.max_grad_norm = 0;
  EXPECT_THAT(learner->OptimStep(step), Refused(kInvalid, "MALFORMED_REQUEST"));
  LearnerConfig config;
  config.learning_rate = -1;
  EXPECT_THAT(Learner::Create(SmallSpec(), config, 1),
              Refused(kInvalid, "MALFORMED_REQUEST"));
}

TEST(LearnerTest, RestoredLearnersGoOnBitForBit) {
  LearnerConfig config = TestConfig();
  config.predictor_dropout = true;  // Its draws must be restored as well.
  const auto learner = MakeLearner(config);
  PpoOptions pass = FirstPass();
  pass.contribution.warmup_updates = 0;
  ASSERT_OK(learner->ForwardBackward(Episodes(*learner, {30, 20}), pass));
  ASSERT_OK(learner->OptimStep({}));
  learner->Publish();
  const auto episodes = Episodes(*learner, {9, 12}, 5);
  ASSERT_OK(learner->ForwardBackward(episodes, pass));
  ASSERT_OK(learner->OptimStep({}));
  pass.update_statistics = false;
  ASSERT_OK(learner->ForwardBackward(episodes, pass));

  // In the middle of an update, with a gradient, through the file format.
  const LearnerState saved = learner->Save();
  const auto bytes = tensor::SerializeSafetensors(saved.tensors);
  ASSERT_OK(bytes);
  const auto file = tensor::ParseSafetensors(*bytes, "memory");
  ASSERT_OK(file);
  auto copy = Learner::CreateFromState(SmallSpec(), config,
                                       {file->tensors, saved.json});
  ASSERT_OK(copy);
  EXPECT_EQ((*copy)->policy_version(), 2);
  EXPECT_EQ((*copy)->optimizer_steps(), 2);
  EXPECT_EQ((*copy)->published()->value_unit, learner->published()->value_unit);
  ExpectSame((*copy)->published()->weights, learner->published()->weights);

  const auto go_on = [&](Learner& l) {
    ASSERT_OK(l.OptimStep({}));
    ASSERT_OK(l.ForwardBackward(episodes, pass));
    ASSERT_OK(l.OptimStep({}));
    l.Publish();
  };
  go_on(*learner);
  go_on(**copy);
  ExpectSame((*copy)->Weights(), learner->Weights());
  EXPECT_EQ((*copy)->Save().json, learner->Save().json);
  const at::Tensor probe = at::randn({3, learner->spec().observation_width()});
  EXPECT_TRUE((*copy)->published()->scaler.Apply(probe).equal(
      learner->published()->scaler.Apply(probe)));
}

TEST(LearnerTest, RefusesAStateThatIsNotItsOwnAndStaysAsItWas) {
  const auto learner = MakeLearner();
  ASSERT_OK(learner->ForwardBackward(Episodes(*learner), FirstPass()));
  const LearnerState good = learner->Save();
  const auto refused = [&](const LearnerState& state, const char* reason) {
    EXPECT_THAT(learner->Restore(state), Refused(CodeOfReason(reason), reason));
    ExpectSame(learner->Save().tensors, good.tensors);
    EXPECT_EQ(learner->Save().json, good.json);
  };
  LearnerState bad = good;
  bad.tensors.erase(bad.tensors.begin() + 5);
  refused(bad, "CORRUPT_CHECKPOINT");
  bad = good;
  bad.tensors.emplace_back("weights.surplus", at::randn({2}));
  refused(bad, "CORRUPT_CHECKPOINT");
  bad = good;
  bad.tensors[0].second = at::randn({3, 3});
  refused(bad, "CORRUPT_CHECKPOINT");
  bad = good;
  bad.tensors[0].second = at::full_like(bad.tensors[0].second, kNan);
  refused(bad, "CORRUPT_CHECKPOINT");
  bad = good;
  bad.json = bad.json.substr(0, bad.json.size() / 2);
  refused(bad, "CORRUPT_CHECKPOINT");
  nlohmann::json json = nlohmann::json::parse(good.json);
  json["spec_digest"] = "other";
  bad = good;
  bad.json = json.dump();
  refused(bad, "SPEC_MISMATCH");
  json = nlohmann::json::parse(good.json);
  json.erase("adam_steps");
  bad.json = json.dump();
  refused(bad, "CORRUPT_CHECKPOINT");
}

TEST(LearnerTest, ChecksRatiosOnlyWhereTheStateIsOfTheSameVersion) {
  // From the third step on a newer version acted, on memory that the older one
  // had made; training computes that memory anew.
  const auto learner = MakeLearner();
  auto episodes = Episodes(*learner, {8});
  ASSERT_OK(learner->ForwardBackward(episodes, FirstPass()));
  OptimStepOptions big_step;
  big_step.learning_rate = 0.02;
  ASSERT_OK(learner->OptimStep(big_step));
  learner->Publish();
  episodes[0].policy_versions = episodes[0].policy_versions.clone();
  episodes[0].policy_versions.slice(0, 2, 8).fill_(2);
  const auto report = learner->ForwardBackward(episodes, {});
  ASSERT_OK(report);
  EXPECT_FALSE(report->ratio_check_max.has_value());
}

TEST(LearnerTest, SolvesABanditWithOneGoodArm) {
  at::set_num_threads(1);
  const policy::PolicySpec spec = BanditSpec(5);
  auto learner = Learner::Create(spec, LearnerConfig(), 7);
  ASSERT_OK(learner);
  constexpr int64_t kGood = 3;
  double share = 0;
  int update = 0;
  for (; update < 60 && share < 0.9; ++update) {
    RolloutOptions options;
    options.lengths.assign(64, 1);
    options.seed = 100 + update;
    options.random_masks = false;
    options.reward = [](int64_t, int64_t, const at::Tensor& actions) {
      return actions[0].item<int64_t>() == kGood ? 1.0f : 0.0f;
    };
    const auto episodes = Rollout(spec, *(*learner)->published(), options);
    share = 0;
    for (const Trajectory& row : episodes) {
      share += row.rewards[0].item<double>() / 64;
    }
    PpoOptions pass;
    for (int k = 0; k < 4; ++k) {
      pass.update_statistics = k == 0;
      const auto report = (*learner)->ForwardBackward(episodes, pass);
      ASSERT_OK(report);
      if (report->kl_stop) break;
      OptimStepOptions step;
      step.learning_rate = 3e-3;
      ASSERT_OK((*learner)->OptimStep(step));
    }
    (*learner)->Publish();
  }
  EXPECT_GE(share, 0.9) << "after " << update << " updates";
}

}  // namespace
}  // namespace esper::ppo
