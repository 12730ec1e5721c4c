#include "core/ppo/losses.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "ATen/TensorOperators.h"
#include "ATen/ops/full.h"
#include "ATen/ops/ones.h"
#include "ATen/ops/rand.h"
#include "ATen/ops/randn.h"
#include "ATen/ops/zeros.h"
#include "gtest/gtest.h"

namespace esper::ppo {
namespace {

void ExpectNear(const at::Tensor& actual, const at::Tensor& expected,
                double tolerance, const std::string& what) {
  ASSERT_EQ(actual.sizes(), expected.sizes()) << what;
  EXPECT_LE((actual - expected).abs().max().item<double>(), tolerance) << what;
}

double LargestOf(const at::Tensor& x) { return x.abs().max().item<double>(); }

// Random inputs of `n` steps and three heads.
LossInputs RandomInputs(int64_t n) {
  LossInputs inputs;
  inputs.old_log_probs = -at::rand({n, 3});
  inputs.log_probs =
      (inputs.old_log_probs + 0.3 * at::randn({n, 3})).set_requires_grad(true);
  inputs.entropies = at::rand({n, 3}).mul_(0.3).set_requires_grad(true);
  inputs.values = at::randn({n}).set_requires_grad(true);
  inputs.q_values = at::randn({n}).set_requires_grad(true);
  inputs.contributions = at::randn({n, 2}).set_requires_grad(true);
  inputs.old_values = at::randn({n});
  inputs.advantages = at::randn({n});
  inputs.value_targets = at::randn({n});
  inputs.available = at::rand({n, 3}).gt(0.2);
  inputs.relevant = inputs.available.logical_and(at::rand({n, 3}).gt(0.4));
  inputs.forced = at::rand({n}).gt(0.7);
  inputs.contribution_targets = at::randn({n, 2});
  inputs.contribution_active = at::rand({n, 2}).gt(0.5);
  return inputs;
}

LossInputs Select(const LossInputs& x, const at::Tensor& rows) {
  const auto take = [&rows](const at::Tensor& t) {
    return t.index_select(0, rows);
  };
  LossInputs y;
  y.log_probs = take(x.log_probs);
  y.entropies = take(x.entropies);
  y.values = take(x.values);
  y.q_values = take(x.q_values);
  y.contributions = take(x.contributions);
  y.old_log_probs = take(x.old_log_probs);
  y.old_values = take(x.old_values);
  y.advantages = take(x.advantages);
  y.value_targets = take(x.value_targets);
  y.relevant = take(x.relevant);
  y.available = take(x.available);
  y.forced = take(x.forced);
  y.contribution_targets = take(x.contribution_targets);
  y.contribution_active = take(x.contribution_active);
  return y;
}

LossOptions RandomOptions(bool upstream) {
  LossOptions options;
  options.entropy_multipliers = {1.0, 1.3, 0.7};
  options.entropy_floors = {0.5, 0.3, 0.05};
  options.entropy_floor_coefs = {0.3, 0.1, 0.2};
  options.contribution_coef = 0.05;
  options.floor_factor = 1.5;
  if (upstream) {
    options.policy_mean = PolicyMean::kUpstream;
    options.entropy_over = EntropyOver::kUpstream;
    options.statistics_over = StatisticsOver::kUpstream;
  }
  return options;
}

TEST(LossesTest, PartsWithTheTotalsOfTheWholeAddUpToTheWhole) {
  for (const bool upstream : {false, true}) {
    const LossOptions options = RandomOptions(upstream);
    const LossInputs whole = RandomInputs(57);
    const BatchTotals totals = ComputeTotals(whole, options);
    const at::Tensor total = ComputeLoss(whole, options, totals).total;
    total.backward();
    const at::Tensor expected_log_probs = whole.log_probs.grad().clone();
    const at::Tensor expected_entropies = whole.entropies.grad().clone();
    whole.log_probs.mutable_grad() = at::Tensor();
    whole.entropies.mutable_grad() = at::Tensor();

    const at::Tensor order = at::rand({57}).argsort();
    double sum = 0;
    BatchTotals merged;
    for (const auto& [from, to] :
         {std::pair<int, int>{0, 5}, {5, 6}, {6, 40}, {40, 57}}) {
      const LossInputs part = Select(whole, order.slice(0, from, to));
      merged.Merge(ComputeTotals(part, options));
      const at::Tensor loss = ComputeLoss(part, options, totals).total;
      loss.backward();
      sum += loss.item<double>();
    }
    EXPECT_NEAR(sum, total.item<double>(), 1e-5);
    ExpectNear(whole.log_probs.grad(), expected_log_probs, 1e-6, "log_probs");
    ExpectNear(whole.entropies.grad(), expected_entropies, 1e-6, "entropies");
    for (int k = 0; k < 3; ++k) {
      EXPECT_DOUBLE_EQ(merged.head_steps[k], totals.head_steps[k]);
      EXPECT_NEAR(merged.mean_entropies[k], totals.mean_entropies[k], 1e-6);
    }
    EXPECT_NEAR(merged.value_weight, totals.value_weight, 1e-9);
  }
}

TEST(LossesTest, EveryStepWeighsTheSameUnlessUpstreamIsAskedFor) {
  // One head used in every step, one in a single step; equal advantages.
  LossInputs inputs = RandomInputs(10);
  inputs.log_probs = inputs.old_log_probs.clone().set_requires_grad(true);
  inputs.advantages = at::ones({10});
  inputs.forced = at::zeros({10}, at::kBool);
  inputs.available = at::ones({10, 3}, at::kBool);
  inputs.relevant = at::zeros({10, 3}, at::kBool);
  inputs.relevant.select(1, 0).fill_(true);
  inputs.relevant[4][1].fill_(true);
  for (const bool upstream : {false, true}) {
    const LossOptions options = RandomOptions(upstream);
    PolicyLoss(inputs, options, ComputeTotals(inputs, options)).backward();
    const at::Tensor gradient = inputs.log_probs.grad();
    EXPECT_NEAR(gradient[4][0].item<double>(), -0.1, 1e-6);
    EXPECT_NEAR(gradient[4][1].item<double>(), upstream ? -1.0 : -0.1, 1e-6);
    inputs.log_probs.mutable_grad() = at::Tensor();
  }
}

TEST(LossesTest, T27RareHeadsDoNotDominateUnlessUpstreamIsAskedFor) {
  // The share of the policy's gradient that a head used in one step of a
  // hundred gets.
  LossInputs inputs = RandomInputs(100);
  inputs.log_probs = inputs.old_log_probs.clone().set_requires_grad(true);
  inputs.advantages = at::ones({100});
  inputs.forced = at::zeros({100}, at::kBool);
  inputs.relevant = at::zeros({100, 3}, at::kBool);
  inputs.relevant.select(1, 0).fill_(true);
  inputs.relevant[7][1].fill_(true);
  const auto share = [&](PolicyMean mean) {
    LossOptions options = RandomOptions(false);
    options.policy_mean = mean;
    PolicyLoss(inputs, options, ComputeTotals(inputs, options)).backward();
    const at::Tensor weight = inputs.log_probs.grad().abs().sum(0);
    inputs.log_probs.mutable_grad() = at::Tensor();
    return (weight[1] / weight.sum()).item<double>();
  };
  EXPECT_NEAR(share(PolicyMean::kUpstream), 0.5, 1e-6);
  EXPECT_NEAR(share(PolicyMean::kSteps), 1.0 / 101, 1e-6);
}

TEST(LossesTest, T28EntropyIsAveragedWhereTheHeadWasAvailable) {
  // Available in every step, used in the first only.
  LossInputs inputs = RandomInputs(4);
  inputs.forced = at::zeros({4}, at::kBool);
  inputs.available = at::ones({4, 3}, at::kBool);
  inputs.relevant = at::zeros({4, 3}, at::kBool);
  inputs.relevant[0].fill_(true);
  const auto gradient = [&](EntropyOver over) {
    LossOptions options;
    options.entropy_over = over;
    EntropyLoss(inputs, options, ComputeTotals(inputs, options)).backward();
    const at::Tensor found = inputs.entropies.grad().clone();
    inputs.entropies.mutable_grad() = at::Tensor();
    return found;
  };
  ExpectNear(gradient(EntropyOver::kAvailable), at::full({4, 3}, -0.25), 1e-6,
             "available");
  at::Tensor first = at::zeros({4, 3});
  first[0].fill_(-1.0);
  ExpectNear(gradient(EntropyOver::kUpstream), first, 1e-6, "used");
}

TEST(LossesTest, T28ForcedStepsStayOutOfTheDivergence) {
  LossInputs inputs = RandomInputs(6);
  inputs.relevant = at::ones({6, 3}, at::kBool);
  inputs.forced = at::zeros({6}, at::kBool);
  inputs.forced[2].fill_(true);
  // Only the forced step has moved.
  inputs.log_probs = inputs.old_log_probs.clone();
  inputs.log_probs[2].add_(1.0);
  LossOptions options;
  EXPECT_NEAR(ComputeRatioStatistics(inputs, options).approx_kl, 0, 1e-9);
  options.statistics_over = StatisticsOver::kUpstream;
  EXPECT_NEAR(ComputeRatioStatistics(inputs, options).approx_kl,
              (std::exp(1.0) - 2.0) / 6.0, 1e-6);
}

TEST(LossesTest, ForcedStepsDoNotTrainThePolicy) {
  LossInputs inputs = RandomInputs(20);
  inputs.forced = at::ones({20}, at::kBool);
  const LossOptions options = RandomOptions(false);
  const LossTerms terms =
      ComputeLoss(inputs, options, ComputeTotals(inputs, options));
  terms.total.backward();
  EXPECT_EQ(LargestOf(inputs.log_probs.grad()), 0);
  EXPECT_EQ(LargestOf(inputs.entropies.grad()), 0);
  EXPECT_GT(LargestOf(inputs.values.grad()), 0);
}

}  // namespace
}  // namespace esper::ppo
