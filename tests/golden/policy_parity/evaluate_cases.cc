#include "ATen/ops/stack.h"
#include "ATen/ops/zeros.h"
#include "ATen/ops/zeros_like.h"
#include "absl/strings/str_cat.h"
#include "core/policy/evaluator.h"
#include "core/policy/sampler.h"
#include "tests/golden/policy_parity/golden_network.h"
#include "torch/csrc/autograd/autograd.h"

namespace esper::testing {
namespace {

using policy::RecurrentState;

struct EvaluateVariant {
  const char* name;
  bool masks, floors, reset, auxiliary;
  bool optional;  // The file need not hold it.
};
constexpr EvaluateVariant kEvaluateVariants[] = {
    {"plain_floor", true, true, false, false, false},
    {"plain_nofloor", true, false, false, false, false},
    {"nomask_floor", false, true, false, false, false},
    {"reset_floor", true, true, true, false, false},
};
constexpr EvaluateVariant kGradientVariants[] = {
    {"plain_floor", true, true, false, false, false},
    {"plain_floor_aux", true, true, false, true, false},
    {"reset_floor", true, true, true, false, false},
    {"plain_nofloor", true, false, false, false, true},
};

// The base masks with the slot head's replaced by the row of the op taken.
at::Tensor EvaluationMasks(const GoldenNetwork& network, GoldenFile& file) {
  at::Tensor masks = network.TakeChoices(file, "mask.").clone();
  const at::Tensor slots = file.Take("mask.slot_for_op");
  const int64_t slot = network.spec().HeadIndex("slot");
  masks.narrow(2, network.module().layout().offset(slot), slots.size(2))
      .copy_(slots);
  return masks;
}

policy::EvaluationInputs TakeInputs(const GoldenNetwork& network,
                                    GoldenFile& file,
                                    const EvaluateVariant& variant) {
  policy::EvaluationInputs inputs;
  inputs.observations = file.Take("state");
  inputs.categorical = file.Take("blueprint_indices");
  inputs.actions = network.TakeHeads(file, "rollout.action.");
  inputs.state = {file.Take("hidden.h"), file.Take("hidden.c")};
  const at::Tensor valid = file.Take("valid");
  if (variant.masks) {
    inputs.action_masks = EvaluationMasks(network, file);
    inputs.valid = valid;
  } else {
    // The slot that WAIT held under its mask is not the one that it would hold
    // without: exempt from the check of actions.
    inputs.valid = at::zeros_like(valid);
  }
  if (variant.reset) inputs.reset = file.Take("reset");
  return inputs;
}

// Steps through the recorded episodes as acting does, carrying and resetting
// the state.
void CompareRollout(const GoldenNetwork& network, GoldenFile& file,
                    GoldenReport::Case& test) {
  const at::Tensor state = file.Take("state");
  const at::Tensor blueprints = file.Take("blueprint_indices");
  const at::Tensor masks = network.TakeChoices(file, "mask.");
  const at::Tensor conditional = file.Take("mask.slot_by_op");
  const at::Tensor noise = network.TakeChoices(file, "rollout.noise.");
  const at::Tensor reset = file.Take("reset");
  file.Take("done");  // What made the resets; nothing computes it here.
  RecurrentState hidden = {file.Take("hidden.h"), file.Take("hidden.c")};

  policy::SampleOptions options;
  options.floors = network.Floors(true);
  options.driver_logits = true;
  std::vector<at::Tensor> actions, log_probs, entropies, values, logits, h, c;
  for (int64_t t = 0; t < state.size(1); ++t) {
    const at::Tensor begin = reset.select(1, t).view({1, -1, 1});
    hidden.h = hidden.h.masked_fill(begin, 0);
    hidden.c = hidden.c.masked_fill(begin, 0);
    h.push_back(hidden.h);
    c.push_back(hidden.c);
    policy::PolicyInputs inputs;
    inputs.observations = state.select(1, t);
    inputs.categorical = blueprints.select(1, t);
    inputs.state = hidden;
    inputs.action_masks = masks.select(1, t);
    inputs.conditional_mask = conditional.select(1, t);
    const policy::ActionSample sample = network.inference().GetAction(
        inputs, policy::GivenNoise{noise.select(1, t)}, options);
    actions.push_back(sample.actions);
    log_probs.push_back(sample.log_probs.unsafe_tensor());
    entropies.push_back(sample.entropies.unsafe_tensor());
    values.push_back(sample.values.unsafe_tensor());
    logits.push_back(sample.driver_logits.unsafe_tensor());
    hidden = sample.next_state;
  }
  const at::Tensor all_actions = at::stack(actions, 1);
  network.CompareHeads(test, file, "rollout.action.", all_actions);
  network.CompareHeads(test, file, "rollout.log_prob.",
                       at::stack(log_probs, 1));
  network.CompareHeads(test, file, "rollout.entropy.", at::stack(entropies, 1));
  CompareOutput(test, "values", at::stack(values, 1),
                file.Take("rollout.values"));
  CompareOutput(test, "sampled_op",
                all_actions.select(2, network.spec().HeadIndex("op")),
                file.Take("rollout.sampled_op"));
  CompareOutput(test, "op_logits", at::stack(logits, 1),
                file.Take("rollout.op_logits"));
  CompareOutput(test, "pre_hidden.h", at::stack(h),
                file.Take("rollout.pre_hidden.h"));
  CompareOutput(test, "pre_hidden.c", at::stack(c),
                file.Take("rollout.pre_hidden.c"));
  CompareOutput(test, "final_hidden.h", hidden.h,
                file.Take("rollout.final_hidden.h"));
  CompareOutput(test, "final_hidden.c", hidden.c,
                file.Take("rollout.final_hidden.c"));
}

void CompareEvaluation(const GoldenNetwork& network, GoldenFile& file,
                       const EvaluateVariant& variant,
                       GoldenReport::Case& test) {
  const std::string prefix = absl::StrCat(variant.name, ".");
  policy::EvaluationOptions options;
  options.floors = network.Floors(variant.floors);
  const policy::Evaluation result = policy::EvaluateActions(
      network.module(), TakeInputs(network, file, variant), options);
  network.CompareHeads(test, file, prefix + "log_prob.",
                       result.log_probs.tensor());
  network.CompareHeads(test, file, prefix + "entropy.",
                       result.entropies.tensor());
  CompareOutput(test, "value", result.values.tensor(),
                file.Take(prefix + "value"));
  CompareOutput(test, "q_value", result.q_values.tensor(),
                file.Take(prefix + "q_value"));
  CompareOutput(test, "pred_contributions", result.contributions.tensor(),
                file.Take(prefix + "pred_contributions"));
  CompareOutput(test, "hidden_out.h", result.state.h,
                file.Take(prefix + "hidden_out.h"));
  CompareOutput(test, "hidden_out.c", result.state.c,
                file.Take(prefix + "hidden_out.c"));
}

at::Tensor LinearLoss(const GoldenNetwork& network, GoldenFile& file,
                      const policy::Evaluation& result,
                      const at::Tensor& valid) {
  const auto sum = [](const at::Tensor& weight, const at::Tensor& value,
                      const at::Tensor& where) {
    return weight.mul(value).mul(where).sum();
  };
  const at::Tensor per_head = valid.unsqueeze(2);
  return sum(network.TakeHeads(file, "w.log_prob."), result.log_probs.tensor(),
             per_head)
      .add(sum(network.TakeHeads(file, "w.entropy."), result.entropies.tensor(),
               per_head))
      .add(sum(file.Take("w.value"), result.values.tensor(), valid))
      .add(sum(file.Take("w.q_value"), result.q_values.tensor(), valid))
      .add(sum(file.Take("w.pred_contributions"), result.contributions.tensor(),
               per_head));
}

// The whole gradient if the file holds it, otherwise its summary.
void CompareParameter(GoldenReport::Case& test, GoldenFile& file,
                      const std::string& prefix, const std::string& name,
                      const at::Tensor& gradient) {
  const at::Tensor actual =
      gradient.defined() ? gradient : at::zeros({0}, at::kFloat);
  if (file.Has(prefix + "grad." + name)) {
    CompareGradient(test, name, actual, file.Take(prefix + "grad." + name));
    return;
  }
  const at::Tensor largest = file.Take(prefix + "grad_absmax." + name);
  const double scale = largest.item<double>();
  const at::Tensor norm = file.Take(prefix + "grad_norm." + name);
  CompareGradient(test, "absmax of " + name, actual.abs().max(), largest,
                  scale);
  CompareGradient(test, "norm of " + name, actual.norm(), norm);
  CompareGradient(test, "sum of " + name, actual.sum(),
                  file.Take(prefix + "grad_sum." + name), norm.item<double>());
  const at::Tensor head = file.Take(prefix + "grad_head8." + name);
  CompareGradient(test, "first elements of " + name,
                  actual.reshape({-1}).narrow(0, 0, head.size(0)), head, scale);
}

void CompareGradients(GoldenNetwork& network, GoldenFile& evaluate,
                      GoldenFile& file, const EvaluateVariant& variant,
                      GoldenReport::Case& test) {
  const std::string prefix = absl::StrCat(variant.name, ".");
  policy::EvaluationInputs inputs = TakeInputs(network, evaluate, variant);
  inputs.observations = inputs.observations.detach().clone();
  inputs.state.h = inputs.state.h.detach().clone();
  inputs.state.c = inputs.state.c.detach().clone();
  std::vector<at::Tensor> leaves = {inputs.observations, inputs.state.h,
                                    inputs.state.c};
  for (at::Tensor& leaf : leaves) leaf.requires_grad_(true);

  policy::EvaluationOptions options;
  options.floors = network.Floors(variant.floors);
  options.aux_stop_gradient = !variant.auxiliary;
  const policy::Evaluation result =
      policy::EvaluateActions(network.module(), inputs, options);
  const at::Tensor loss =
      LinearLoss(network, file, result, evaluate.Take("valid"));
  CompareOutput(test, "loss", loss, file.Take(prefix + "loss"));

  std::vector<std::string> names;
  for (const auto& item : network.mutable_module().named_parameters()) {
    names.push_back(item.key());
    leaves.push_back(item.value());
  }
  const auto gradients = torch::autograd::grad(
      {loss}, leaves, /*grad_outputs=*/{}, /*retain_graph=*/std::nullopt,
      /*create_graph=*/false, /*allow_unused=*/true);
  CompareGradient(test, "d_state", gradients[0], file.Take(prefix + "d_state"));
  CompareGradient(test, "d_h0", gradients[1], file.Take(prefix + "d_h0"));
  CompareGradient(test, "d_c0", gradients[2], file.Take(prefix + "d_c0"));
  for (size_t i = 0; i < names.size(); ++i) {
    CompareParameter(test, file, prefix, names[i], gradients[3 + i]);
  }
}

}  // namespace

void CheckEvaluate(const GoldenNetwork& network, const std::string& name,
                   GoldenFile& file, GoldenReport* report) {
  RunCase(report, name + "/rollout", [&](GoldenReport::Case& test) {
    network.CheckMetadata(test, file);
    CompareRollout(network, file, test);
  });
  for (const EvaluateVariant& variant : kEvaluateVariants) {
    RunCase(report, absl::StrCat(name, "/", variant.name),
            [&](GoldenReport::Case& test) {
              CompareEvaluation(network, file, variant, test);
            });
  }
}

void CheckGradients(GoldenNetwork& network, const std::string& name,
                    GoldenFile& evaluate, GoldenFile& file,
                    GoldenReport* report) {
  for (const EvaluateVariant& variant : kGradientVariants) {
    if (variant.optional && !file.Has(absl::StrCat(variant.name, ".loss"))) {
      continue;
    }
    RunCase(report, absl::StrCat(name, "/", variant.name),
            [&](GoldenReport::Case& test) {
              network.CheckMetadata(test, file);
              CompareGradients(network, evaluate, file, variant, test);
            });
  }
}

}  // namespace esper::testing
