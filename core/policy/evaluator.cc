#include "core/policy/evaluator.h"

#include <algorithm>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "c10/core/GradMode.h"
#include "c10/core/InferenceMode.h"
#include "core/error.h"
#include "core/log.h"
#include "core/policy/diagonal_gaussian.h"
#include "core/policy/head_layout.h"
#include "core/policy/input_checks.h"
#include "core/policy/masked_categorical.h"
#include "core/policy/network_forward.h"
#include "core/policy/recurrent_policy.h"
#include "core/tensor/checks.h"

namespace esper::policy {
namespace internal {

// The only maker of differentiable results.
class DifferentiableFactory {
 public:
  static DifferentiableTensor Make(
      const at::Tensor& value, std::shared_ptr<const BehaviourOrigin> origin) {
    if (!value.defined()) return DifferentiableTensor();
    return DifferentiableTensor(value, std::move(origin));
  }
};

}  // namespace internal

namespace {

constexpr char kCall[] = "EvaluateActions";

GradientContractError NotDifferentiable(const std::string& message,
                                        const std::string& hint) {
  ErrorDetail detail;
  detail.reason = "NOT_DIFFERENTIABLE";
  detail.hint = hint;
  return GradientContractError(detail, message);
}

void CheckContract(const RecurrentPolicy& network,
                   const EvaluationInputs& inputs) {
  const std::string hint =
      "Call EvaluateReference for numbers without a gradient.";
  if (c10::InferenceMode::is_enabled()) {
    throw NotDifferentiable(
        "EvaluateActions in inference mode could not be trained on.", hint);
  }
  if (!c10::GradMode::is_enabled()) {
    throw NotDifferentiable(
        "EvaluateActions with gradients switched off could not be trained on.",
        hint);
  }
  CheckTrainableInput(inputs.observations, kCall, "observations");
  CheckTrainableInput(inputs.categorical, kCall, "categorical");
  CheckTrainableInput(inputs.actions, kCall, "actions");
  CheckTrainableInput(inputs.continuous_actions, kCall, "continuous_actions");
  CheckTrainableInput(inputs.action_masks, kCall, "action_masks");
  CheckTrainableInput(inputs.state.h, kCall, "h");
  CheckTrainableInput(inputs.state.c, kCall, "c");
  CheckTrainableInput(inputs.reset, kCall, "reset");
  CheckTrainableInput(inputs.valid, kCall, "valid");
  for (const at::Tensor& parameter : network.parameters()) {
    if (parameter.requires_grad()) return;
  }
  throw NotDifferentiable(
      "EvaluateActions with every parameter frozen could not be trained on.",
      "Unfreeze a parameter, or call EvaluateReference.");
}

std::vector<bool> TrainableHeads(const RecurrentPolicy& network) {
  std::vector<bool> trainable;
  for (const HeadSpec& head : network.spec().heads) {
    const std::vector<at::Tensor> own = network.HeadParameters(head.name);
    trainable.push_back(std::any_of(
        own.begin(), own.end(),
        [](const at::Tensor& parameter) { return parameter.requires_grad(); }));
    const int64_t k = static_cast<int64_t>(trainable.size()) - 1;
    if (!trainable[k] && network.FirstFrozenWarning(k)) {
      spdlog::warn(
          "Head {} is frozen: evaluations of it train only what lies before "
          "it.",
          head.name);
    }
  }
  return trainable;
}

// Sequences with every shape checked, and the steps of all rows in a line.
struct Rows {
  int64_t batch = 0;
  int64_t steps = 0;
  at::Tensor actions;  // int64 [N, K].
  at::Tensor values;   // float32 [N, C] or undefined.
  at::Tensor masks;    // bool [N, A] or undefined.
  at::Tensor valid;    // bool [N], host, or undefined.
};

Rows CheckShapes(const RecurrentPolicy& network,
                 const EvaluationInputs& inputs) {
  const PolicySpec& spec = network.spec();
  const HeadLayout& layout = network.layout();
  CheckObservationShapes(spec, inputs.observations, inputs.categorical);
  Rows rows;
  rows.batch = inputs.observations.size(0);
  rows.steps = inputs.observations.size(1);
  CheckStateShapes(spec, inputs.state, rows.batch);
  const int64_t n = rows.batch * rows.steps;
  tensor::CheckTensor(inputs.actions, "actions", at::kLong,
                      {rows.batch, rows.steps, layout.num_heads()});
  rows.actions = inputs.actions.reshape({n, layout.num_heads()});
  if (!layout.gaussian_heads().empty()) {
    const int64_t width = layout.continuous_width();
    tensor::CheckTensor(inputs.continuous_actions, "continuous_actions",
                        at::kFloat, {rows.batch, rows.steps, width});
    rows.values = inputs.continuous_actions.reshape({n, width});
  } else if (inputs.continuous_actions.defined()) {
    throw ShapeError("continuous_actions",
                     "undefined: the policy has no Gaussian head",
                     tensor::Describe(inputs.continuous_actions));
  }
  if (inputs.action_masks.defined()) {
    at::Tensor masks = inputs.action_masks;
    if (masks.dim() == 2) {
      tensor::CheckTensor(masks, "action_masks", at::kBool,
                          {rows.batch, layout.width()});
      masks =
          masks.unsqueeze(1).expand({rows.batch, rows.steps, layout.width()});
    }
    tensor::CheckTensor(masks, "action_masks", at::kBool,
                        {rows.batch, rows.steps, layout.width()});
    rows.masks = masks.reshape({n, layout.width()});
  }
  if (inputs.reset.defined()) {
    tensor::CheckTensor(inputs.reset, "reset", at::kBool,
                        {rows.batch, rows.steps});
  }
  if (inputs.valid.defined()) {
    tensor::CheckTensor(inputs.valid, "valid", at::kBool,
                        {rows.batch, rows.steps});
    rows.valid = inputs.valid.reshape({n}).to(at::kCPU);
  }
  return rows;
}

// Actions in range everywhere: they index tables and gathers.
void CheckActionRange(const PolicySpec& spec, const Rows& rows) {
  const at::Tensor host = rows.actions.to(at::kCPU).contiguous();
  const int64_t* action = host.const_data_ptr<int64_t>();
  const int64_t heads = spec.num_heads();
  for (int64_t i = 0; i < host.numel(); ++i) {
    const HeadSpec& head = spec.heads[i % heads];
    // A Gaussian head has no choices; 0 stands for it.
    const int64_t choices = head.kind == HeadKind::kCategorical ? head.size : 1;
    if (action[i] >= 0 && action[i] < choices) continue;
    const int64_t n = i / heads;
    throw InvalidActionError(head.name, n / rows.steps, n % rows.steps,
                             action[i],
                             absl::StrCat("is outside [0, ", choices - 1, "]"));
  }
}

// Finite values everywhere, and zeros in valid steps that do not use the head.
void CheckValues(const PolicySpec& spec, const HeadLayout& layout,
                 const EvaluationInputs& inputs, const Rows& rows) {
  if (!rows.values.defined()) return;
  tensor::CheckFinite(inputs.continuous_actions.detach(), "continuous_actions",
                      /*row_dim=*/0, /*step_dim=*/1);
  const at::Tensor used = layout.Relevance(rows.actions);
  for (const int64_t k : layout.gaussian_heads()) {
    if (layout.driver(k) < 0) continue;
    at::Tensor bad =
        rows.values.detach()
            .narrow(1, layout.continuous_offset(k), layout.dimensions(k))
            .ne(0)
            .any(1)
            .logical_and(used.select(1, k).logical_not());
    if (rows.valid.defined()) bad = bad.logical_and(rows.valid);
    if (!bad.any().item<bool>()) continue;
    const int64_t n = bad.to(at::kByte).argmax().item<int64_t>();
    throw InvalidActionError(spec.heads[k].name, n / rows.steps, n % rows.steps,
                             0,
                             "does not matter, but its values are not zeros");
  }
}

// Actions allowed by the masks in force, which for an irrelevant head allow
// only its placeholder, in every valid step.
void CheckAllowed(const PolicySpec& spec, const HeadLayout& layout,
                  const Rows& rows, const at::Tensor& effective) {
  const at::Tensor host_actions = rows.actions.to(at::kCPU).contiguous();
  const at::Tensor host_masks = effective.to(at::kCPU).contiguous();
  const int64_t* action = host_actions.const_data_ptr<int64_t>();
  const bool* allowed = host_masks.const_data_ptr<bool>();
  const bool* valid =
      rows.valid.defined() ? rows.valid.const_data_ptr<bool>() : nullptr;
  const int64_t heads = layout.num_heads();
  for (int64_t n = 0; n < host_actions.size(0); ++n) {
    if (valid != nullptr && !valid[n]) continue;
    for (int64_t k = 0; k < heads; ++k) {
      if (layout.is_gaussian(k)) continue;
      const int64_t choice = action[n * heads + k];
      if (allowed[n * layout.width() + layout.offset(k) + choice]) continue;
      const int64_t driver = layout.driver(k);
      const bool relevant =
          driver < 0 || layout.Relevant(k, action[n * heads + driver]);
      throw InvalidActionError(
          spec.heads[k].name, n / rows.steps, n % rows.steps, choice,
          relevant ? "is not allowed by its mask"
                   : "is not the placeholder of a head that does not matter");
    }
  }
}

// The numbers of an evaluation, with whatever gradient the mode gives.
struct Scores {
  at::Tensor log_probs, entropies, values, q_values, contributions;
  RecurrentState state;
};

Scores Score(const RecurrentPolicy& network, const EvaluationInputs& inputs,
             const EvaluationOptions& options, const FloorSettings& floors,
             bool dropout) {
  const PolicySpec& spec = network.spec();
  const HeadLayout& layout = network.layout();
  const Rows rows = CheckShapes(network, inputs);
  const std::vector<at::Tensor> floor_tensors = layout.FloorTensors(floors);
  CheckInputValues(
      spec, inputs.observations.detach(), inputs.categorical,
      {inputs.state.h.defined() ? inputs.state.h.detach() : inputs.state.h,
       inputs.state.c.defined() ? inputs.state.c.detach() : inputs.state.c});
  CheckActionRange(spec, rows);
  const at::Tensor effective = layout.EffectiveMasks(
      rows.masks, /*conditional=*/at::Tensor(), rows.actions);
  for (const HeadLevel& level : layout.levels()) {
    CheckNotEmpty(spec, level, layout.MaskBlock(level, effective).sum(-1),
                  rows.steps, rows.valid);
  }
  CheckAllowed(spec, layout, rows, effective);
  CheckValues(spec, layout, inputs, rows);

  const NetworkWeights weights = network.Weights();
  const TrunkOutput trunk =
      Trunk(weights, inputs.observations, inputs.categorical, inputs.state,
            inputs.reset);
  const at::Tensor x =
      trunk.trunk.reshape({rows.batch * rows.steps, spec.hidden_dim});
  const HeadOutput heads = Heads(weights, x);
  CheckLogits(spec, layout, heads.logits.detach());

  std::vector<at::Tensor> log_probs;
  std::vector<at::Tensor> entropies;
  for (size_t i = 0; i < layout.levels().size(); ++i) {
    const HeadLevel& level = layout.levels()[i];
    const MaskedCategorical choices(layout.ToBlock(level, heads.logits),
                                    layout.MaskBlock(level, effective),
                                    level.fill, floors.mode, floor_tensors[i]);
    log_probs.push_back(
        choices.LogProb(rows.actions.index_select(1, level.head_index)));
    entropies.push_back(choices.Entropy());
  }
  if (rows.values.defined()) {
    CheckGaussian(spec, layout, heads.means.detach(), weights.log_std.detach());
    const DiagonalGaussian values(layout, heads.means, weights.log_std,
                                  layout.Relevance(rows.actions));
    log_probs.push_back(values.LogProb(rows.values));
    entropies.push_back(values.Entropy());
  }
  const auto shaped = [&](const at::Tensor& flat) {
    std::vector<int64_t> sizes = {rows.batch, rows.steps};
    if (flat.dim() == 2) sizes.push_back(flat.size(1));
    return flat.view(sizes);
  };
  Scores scores;
  scores.log_probs = shaped(layout.Gather(log_probs));
  scores.entropies = shaped(layout.Gather(entropies));
  scores.values = shaped(heads.values);
  if (options.q_values && !spec.q_head.empty()) {
    const int64_t q = spec.HeadIndex(spec.q_head);
    scores.q_values = shaped(QValue(weights, x, rows.actions.select(1, q)));
  }
  if (options.contributions && spec.contribution_outputs > 0) {
    std::optional<at::Generator> generator;
    if (dropout) generator = network.dropout_generator();
    scores.contributions =
        shaped(Contributions(weights, x, options.aux_stop_gradient, generator));
  }
  scores.state = trunk.state;
  return scores;
}

std::shared_ptr<const BehaviourOrigin> Origin(const RecurrentPolicy& network,
                                              const FloorSettings& floors) {
  auto origin = std::make_shared<BehaviourOrigin>();
  origin->policy_version = 0;  // Training weights have no version yet.
  origin->spec_digest = network.spec_digest();
  origin->floors = floors;
  return origin;
}

}  // namespace

Evaluation EvaluateActions(const RecurrentPolicy& network,
                           const EvaluationInputs& inputs,
                           const EvaluationOptions& options) {
  CheckContract(network, inputs);
  const FloorSettings floors = options.floors.value_or(network.spec().Floors());
  Evaluation result;
  result.trainable = TrainableHeads(network);
  const Scores scores =
      Score(network, inputs, options, floors, network.is_training());
  const auto origin = Origin(network, floors);
  const auto make = [&](const at::Tensor& value) {
    return internal::DifferentiableFactory::Make(value, origin);
  };
  result.log_probs = make(scores.log_probs);
  result.entropies = make(scores.entropies);
  result.values = make(scores.values);
  result.q_values = make(scores.q_values);
  result.contributions = make(scores.contributions);
  result.state = scores.state;
  return result;
}

ReferenceEvaluation EvaluateReference(const RecurrentPolicy& network,
                                      const EvaluationInputs& inputs,
                                      const EvaluationOptions& options) {
  const FloorSettings floors = options.floors.value_or(network.spec().Floors());
  const c10::InferenceMode inference;
  const Scores scores =
      Score(network, inputs, options, floors, /*dropout=*/false);
  const auto origin = Origin(network, floors);
  const auto make = [&](const at::Tensor& value) {
    return value.defined() ? BehaviourTensor::FromRecorded(value, origin)
                           : BehaviourTensor();
  };
  ReferenceEvaluation result;
  result.log_probs = make(scores.log_probs);
  result.entropies = make(scores.entropies);
  result.values = make(scores.values);
  result.q_values = make(scores.q_values);
  result.contributions = make(scores.contributions);
  result.state = scores.state;
  return result;
}

}  // namespace esper::policy
