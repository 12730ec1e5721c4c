// Training in bfloat16 against training in fp32.
#include "core/policy/training_precision.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "ATen/ops/empty.h"
#include "core/policy/policy_spec.h"
#include "core/policy/training_product.h"
#include "core/ppo/learner.h"
#include "gtest/gtest.h"
#include "tests/core/ppo/rollout.h"
#include "tests/testing/status_matchers.h"

namespace esper::ppo {
namespace {

using ::esper::testing::Refused;
using policy::TrainingPrecision;

// What docs/training-service.md states: relative L2 of the whole gradient, and
// of that of the worst parameter.
constexpr double kWholeError = 0.02;
constexpr double kParameterError = 0.2;

// The policy of the product, a little narrower.
policy::PolicySpec Spec() {
  policy::NetworkGrowingOptions options;
  options.feature_dim = 128;
  options.hidden_dim = 128;
  return policy::PolicySpec::NetworkGrowing(options);
}

std::unique_ptr<Learner> MakeLearner(TrainingPrecision precision) {
  LearnerConfig config;
  config.predictor_dropout = false;
  config.precision = precision;
  auto learner = Learner::Create(Spec(), config, /*init_seed=*/4);
  EXPECT_OK(learner);
  return *std::move(learner);
}

std::vector<Trajectory> Episodes(const Learner& learner) {
  RolloutOptions rollout;
  rollout.lengths = {40, 25, 33, 40};
  rollout.contributions = true;
  return Rollout(learner.spec(), *learner.published(), rollout);
}

TEST(TrainingPrecisionTest, NamesParse) {
  EXPECT_EQ(*policy::ParseTrainingPrecision("fp32"), TrainingPrecision::kFp32);
  EXPECT_EQ(*policy::ParseTrainingPrecision("bf16"), TrainingPrecision::kBf16);
  for (const std::string bad : {"", "auto", "fp16", "BF16"}) {
    EXPECT_THAT(
        policy::ParseTrainingPrecision(bad),
        Refused(absl::StatusCode::kInvalidArgument, "MALFORMED_REQUEST"));
  }
}

// The product of rounded operands, in float32 and in bfloat16 as processors
// with instructions for it run it.
TEST(TrainingPrecisionTest, NarrowAndWideOperandsGiveTheSameProduct) {
  const at::Tensor a = at::empty({33, 70}, at::kFloat).normal_();
  const at::Tensor b = at::empty({70, 21}, at::kFloat).normal_();
  const auto operand = [](const at::Tensor& x, bool narrow) {
    return policy::Operand(x, TrainingPrecision::kBf16, narrow);
  };
  const at::Tensor wide = policy::Product(operand(a, false), operand(b, false));
  const at::Tensor narrow = policy::Product(operand(a, true), operand(b, true));
  EXPECT_EQ(narrow.scalar_type(), at::kFloat);
  // One more rounding, of the result: 8 bits.
  EXPECT_TRUE(narrow.allclose(wide, 1.0 / 128, 0.05));
  const at::Tensor exact = a.to(at::kBFloat16)
                               .to(at::kDouble)
                               .matmul(b.to(at::kBFloat16).to(at::kDouble));
  EXPECT_TRUE(wide.to(at::kDouble).allclose(exact, 1e-5, 1e-4));
  EXPECT_FALSE(wide.allclose(a.matmul(b), 1e-5, 1e-5));
}

TEST(TrainingPrecisionTest, GradientIsWithinTheStatedError) {
  std::vector<NamedTensors> gradients;
  std::vector<Trajectory> episodes;
  for (const auto precision :
       {TrainingPrecision::kFp32, TrainingPrecision::kBf16}) {
    const auto learner = MakeLearner(precision);
    // Both see what the first one acted.
    if (episodes.empty()) episodes = Episodes(*learner);
    PpoOptions options;
    options.update_statistics = true;
    const auto report = learner->ForwardBackward(episodes, options);
    ASSERT_OK(report);
    ASSERT_TRUE(report->accumulated);
    gradients.push_back(learner->Gradients());
  }
  double squares = 0, total = 0, worst = 0;
  for (size_t i = 0; i < gradients[0].size(); ++i) {
    const at::Tensor& exact = gradients[0][i].second;
    const double norm = exact.norm().item<double>();
    const double error =
        gradients[1][i].second.sub(exact).norm().item<double>();
    squares += error * error;
    total += norm * norm;
    if (norm > 0) worst = std::max(worst, error / norm);
  }
  const double whole = std::sqrt(squares / total);
  RecordProperty("whole", std::to_string(whole));
  RecordProperty("worst", std::to_string(worst));
  EXPECT_GT(whole, 1e-5);  // It does round.
  EXPECT_LT(whole, kWholeError);
  EXPECT_LT(worst, kParameterError);
}

// Recorded log-probabilities that are off as rounding may have them.
TEST(TrainingPrecisionTest, RatioCheckAllowsForRounding) {
  for (const double off : {0.02, 0.1, 0.8}) {
    for (const auto precision :
         {TrainingPrecision::kFp32, TrainingPrecision::kBf16}) {
      const auto learner = MakeLearner(precision);
      std::vector<Trajectory> episodes = Episodes(*learner);
      // The driver's: every step uses it.
      const int64_t op = learner->spec().HeadIndex("op");
      for (Trajectory& episode : episodes) {
        episode.behaviour_log_probs = episode.behaviour_log_probs.clone();
        episode.behaviour_log_probs.select(1, op).sub_(off);
      }
      PpoOptions options;
      options.update_statistics = true;
      const auto report = learner->ForwardBackward(episodes, options);
      const bool bf16 = precision == TrainingPrecision::kBf16;
      if (off > (bf16 ? kBf16RatioRefuse : options.ratio_refuse)) {
        EXPECT_THAT(report, Refused(absl::StatusCode::kFailedPrecondition,
                                    "BEHAVIOUR_MISMATCH"));
        continue;
      }
      ASSERT_OK(report);
      EXPECT_NEAR(*report->ratio_check_max, off, 0.01);
      EXPECT_EQ(report->ratio_alarm, off > kBf16RatioAlarm);
    }
  }
}

}  // namespace
}  // namespace esper::ppo
