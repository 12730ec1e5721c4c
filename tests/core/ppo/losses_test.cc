#include "core/ppo/losses.h"

#include <algorithm>
#include <cmath>
#include <random>

#include "ATen/TensorOperators.h"
#include "ATen/ops/cat.h"
#include "ATen/ops/ones.h"
#include "ATen/ops/rand.h"
#include "ATen/ops/randn.h"
#include "ATen/ops/tensor.h"
#include "ATen/ops/zeros.h"
#include "core/policy/head_layout.h"
#include "core/policy/policy_spec.h"
#include "core/ppo/trajectory_rules.h"
#include "gtest/gtest.h"
#include "tests/core/ppo/golden_tensors.h"

namespace esper::ppo {
namespace {

const char* const kHeads[] = {
    "slot",         "blueprint",   "style",       "tempo",
    "alpha_target", "alpha_speed", "alpha_curve", "op"};

std::vector<double> InHeadOrder(const nlohmann::json& map) {
  std::vector<double> values;
  if (map.is_null()) return values;
  for (const char* head : kHeads) values.push_back(Number(map.at(head)));
  return values;
}

// Actions and base masks that hold nothing but the op, as the layout's tables
// read them.
struct OpTables {
  OpTables() : rules(policy::PolicySpec::NetworkGrowing(), 1) {}

  at::Tensor Relevance(const at::Tensor& ops) const {
    at::Tensor actions = at::zeros({ops.size(0), 8}, at::kLong);
    actions.select(1, 7).copy_(ops);
    return rules.layout().Relevance(actions);
  }
  at::Tensor Availability(const at::Tensor& op_masks) const {
    const policy::HeadLayout& layout = rules.layout();
    at::Tensor masks = at::ones({op_masks.size(0), layout.width()}, at::kBool);
    masks.slice(1, layout.offset(7), layout.offset(7) + 6)
        .copy_(op_masks.to(at::kBool));
    return rules.Available(masks);
  }

  TrajectoryRules rules;
};

LossInputs InputsOf(const tensor::Safetensors& file, const std::string& id,
                    const nlohmann::json& params, const OpTables& tables) {
  const auto in = [&](const char* name) {
    return Get(file, id + ".in." + name);
  };
  const auto leaf = [&](const char* name) {
    at::Tensor x = in(name);
    if (x.dim() == 2) x = x.t().contiguous();
    return x.clone().set_requires_grad(true);
  };
  LossInputs inputs;
  inputs.log_probs = leaf("new_log_probs");
  inputs.entropies = leaf("entropy");
  inputs.values = leaf("values");
  inputs.q_values = leaf("q_values");
  inputs.old_log_probs = in("old_log_probs").t().contiguous();
  inputs.old_values = in("old_values");
  inputs.advantages = in("advantages");
  inputs.value_targets = in("normalized_returns");
  inputs.relevant = tables.Relevance(in("effective_op"));
  inputs.available = params["availability_masks_given"].get<bool>()
                         ? tables.Availability(in("op_mask"))
                         : inputs.relevant;
  if (params["forced_mask_given"].get<bool>()) {
    inputs.forced = in("forced").to(at::kBool);
  }
  return inputs;
}

LossOptions OptionsOf(const nlohmann::json& params) {
  LossOptions options;
  options.clip_ratio = params["clip_ratio"];
  if (params["clip_value"].get<bool>()) {
    options.value_clip = params["value_clip"];
  }
  options.value_coef = params["value_coef"];
  options.q_coef = params["q_aux_coef"];
  options.entropy_coef = params["entropy_coef"];
  options.entropy_multipliers = InHeadOrder(params["entropy_coef_per_head"]);
  options.entropy_floors = InHeadOrder(params["entropy_floor"]);
  options.entropy_floor_coefs =
      InHeadOrder(params["entropy_floor_penalty_coef"]);
  options.policy_mean = PolicyMean::kUpstream;
  options.entropy_over = EntropyOver::kUpstream;
  options.statistics_over = StatisticsOver::kUpstream;
  return options;
}

void ExpectGradient(const at::Tensor& leaf, const tensor::Safetensors& file,
                    const std::string& name) {
  at::Tensor expected = Get(file, name);
  if (expected.dim() == 2) expected = expected.t();
  ExpectTensorNear(leaf.grad(), expected, 1e-4,
                   1e-6 + 1e-5 * LargestOf(expected), name);
}

TEST(LossesTest, AgreeWithTheReferenceImplementation) {
  const auto golden = LoadGolden("ppo_losses.json");
  const auto file = LoadGoldenTensors("ppo_losses.safetensors");
  const OpTables tables;
  ASSERT_FALSE(golden["cases"].empty());
  for (const auto& test : golden["cases"]) {
    const std::string id = test["id"];
    SCOPED_TRACE(id + " " + test["name"].get<std::string>());
    const auto& params = test["params"];
    const auto& expected = test["expected"];
    const LossInputs inputs = InputsOf(file, id, params, tables);
    const LossOptions options = OptionsOf(params);
    const BatchTotals totals = ComputeTotals(inputs, options);
    const LossTerms terms = ComputeLoss(inputs, options, totals);
    at::Tensor joint;
    const RatioStatistics ratios =
        ComputeRatioStatistics(inputs, options, &joint);

    const double absolute =
        2e-6 * std::max(1.0, std::fabs(Number(expected["total_loss"])));
    const auto expect_term = [&](const at::Tensor& term, const char* name) {
      const double actual = term.defined() ? term.item<double>() : 0.0;
      EXPECT_TRUE(Near(actual, Number(expected[name]), 2e-5, absolute))
          << name << ": " << actual << " against " << expected[name];
    };
    expect_term(terms.policy, "policy_loss");
    expect_term(terms.value, "value_loss");
    expect_term(terms.q, "q_aux_loss");
    expect_term(terms.entropy, "entropy_loss");
    expect_term(terms.entropy_floor, "entropy_floor_penalty");
    expect_term(terms.total, "total_loss");

    const auto expect_ratio = [&](double actual, const nlohmann::json& value,
                                  double abs, const std::string& name) {
      EXPECT_TRUE(Near(actual, Number(value), 1e-4, abs))
          << name << ": " << actual << " against " << value;
    };
    expect_ratio(ratios.approx_kl, expected["approx_kl"], 5e-7, "kl");
    expect_ratio(ratios.clip_fraction, expected["clip_fraction"], 1e-6, "clip");
    expect_ratio(ratios.clip_fraction_above, expected["clip_fraction_positive"],
                 1e-6, "above");
    expect_ratio(ratios.clip_fraction_below, expected["clip_fraction_negative"],
                 1e-6, "below");
    expect_ratio(ratios.joint_mean, expected["ratio_mean"], 1e-6, "mean");
    expect_ratio(ratios.joint_max, expected["ratio_max"], 1e-6, "max");
    expect_ratio(ratios.joint_min, expected["ratio_min"], 1e-6, "min");
    expect_ratio(ratios.joint_deviation, expected["ratio_std"], 1e-6, "std");
    for (size_t k = 0; k < 8; ++k) {
      expect_ratio(ratios.head_ratio_max[k],
                   expected["head_ratio_max"][kHeads[k]], 1e-6, kHeads[k]);
      expect_ratio(ratios.head_clip_fraction[k],
                   expected["head_clip_fraction"][kHeads[k]], 1e-6, kHeads[k]);
    }
    if (!params["target_kl"].is_null()) {
      EXPECT_EQ(ratios.approx_kl > 1.5 * params["target_kl"].get<double>(),
                expected["early_stop"].get<bool>());
    }
    ExpectTensorNear(joint, Get(file, id + ".out.joint_ratio"), 1e-4, 1e-6,
                     "joint ratio");
    ExpectTensorNear(Ratios(inputs.log_probs, inputs.old_log_probs).t(),
                     Get(file, id + ".out.ratios"), 1e-4, 1e-6, "ratios");
    EXPECT_TRUE(inputs.relevant.t().equal(
        Get(file, id + ".out.head_masks").to(at::kBool)));
    if (params["availability_masks_given"].get<bool>()) {
      EXPECT_TRUE(inputs.available.t().equal(
          Get(file, id + ".out.availability_masks").to(at::kBool)));
    }

    terms.entropy.backward({}, /*retain_graph=*/true);
    ExpectGradient(inputs.entropies, file,
                   id + ".grad.entropy_loss_wrt_entropy");
    inputs.entropies.mutable_grad() = at::Tensor();
    if (terms.entropy_floor.defined()) {
      terms.entropy_floor.backward({}, /*retain_graph=*/true);
      ExpectGradient(inputs.entropies, file,
                     id + ".grad.floor_penalty_wrt_entropy");
      inputs.entropies.mutable_grad() = at::Tensor();
    }
    terms.total.backward();
    ExpectGradient(inputs.log_probs, file, id + ".grad.new_log_probs");
    ExpectGradient(inputs.entropies, file, id + ".grad.entropy");
    ExpectGradient(inputs.values, file, id + ".grad.values");
    ExpectGradient(inputs.q_values, file, id + ".grad.q_values");
  }
}

TEST(LossesTest, HeadTablesAgreeWithTheReferenceImplementation) {
  const auto golden = LoadGolden("ppo_schedules.json");
  const OpTables tables;
  for (const auto& test : golden["causal_masks"]) {
    const at::Tensor relevant =
        tables.Relevance(at::tensor({test["op"].get<int64_t>()}));
    for (int k = 0; k < 8; ++k) {
      EXPECT_EQ(relevant[0][k].item<bool>(), test["causal"][kHeads[k]]);
    }
  }
  for (const auto& test : golden["availability_masks"]) {
    const at::Tensor available = tables.Availability(
        at::tensor(Numbers<int64_t>(test["op_mask"])).unsqueeze(0));
    for (int k = 0; k < 8; ++k) {
      EXPECT_EQ(available[0][k].item<bool>(), test["availability"][kHeads[k]])
          << test.dump();
    }
  }
}

TEST(LossesTest, ContributionLossAgreesWithTheReferenceImplementation) {
  const auto golden = LoadGolden("contribution_aux.json");
  const auto file = LoadGoldenTensors("contribution_aux.safetensors");
  for (const auto& test : golden["cases"]) {
    const std::string id = test["id"];
    SCOPED_TRACE(id);
    LossInputs inputs;
    const at::Tensor predictions =
        Get(file, id + ".pred").clone().set_requires_grad(true);
    inputs.contributions = predictions.flatten(0, 1);
    inputs.contribution_targets = Get(file, id + ".target").flatten(0, 1);
    inputs.contribution_active =
        Get(file, id + ".active")
            .to(at::kBool)
            .logical_and(Get(file, id + ".fresh").to(at::kBool).unsqueeze(2))
            .flatten(0, 1);
    LossOptions options;
    options.contribution_clip =
        test["clip"].is_null() ? 0.0 : Number(test["clip"]);
    BatchTotals totals;
    totals.contribution_entries =
        inputs.contribution_active.sum().item<double>();
    const at::Tensor loss = ContributionLoss(inputs, options, totals);
    EXPECT_TRUE(Near(loss.item<double>(), Number(test["loss"]), 2e-5,
                     2e-6 * std::max(1.0, Number(test["loss"]))));
    loss.backward();
    const at::Tensor expected = Get(file, id + ".grad_pred");
    ExpectTensorNear(predictions.grad(), expected, 1e-4,
                     1e-6 + 1e-5 * LargestOf(expected), "gradient");
  }
}

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
    ExpectTensorNear(whole.log_probs.grad(), expected_log_probs, 1e-5, 1e-8,
                     "log_probs");
    ExpectTensorNear(whole.entropies.grad(), expected_entropies, 1e-5, 1e-8,
                     "entropies");
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
