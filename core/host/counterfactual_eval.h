#ifndef ESPER_CORE_HOST_COUNTERFACTUAL_EVAL_H_
#define ESPER_CORE_HOST_COUNTERFACTUAL_EVAL_H_

#include <ATen/core/Tensor.h>

#include <vector>

#include "absl/status/statusor.h"
#include "core/host/growable_model.h"
#include "core/slot/counterfactual.h"

namespace esper::host {

// One batch of a validation split.
struct ValidationBatch {
  at::Tensor inputs;  // float [B, C, H, W], or int64 [B, T] tokens.
  at::Tensor labels;  // int64 [B], or [B, T]; classes.
};

// The plan for a model as it is now.
// Errors: those of CounterfactualPlan::Create.
absl::StatusOr<slot::CounterfactualPlan> PlanCounterfactuals(
    const GrowableModel& model,
    const slot::CounterfactualPlan::Options& options = {});

// Logits of every configuration of a plan, [K, B, classes] or [K, B, T, V].
// Equal to FusedForward over K copies of `x` with the plan's alphas, but rows
// are copied only where configurations begin to differ, and a seed runs only
// for those in which it is on: with all subsets of n slots the layers in front
// of the first slot run once, not 2^n times.
//   x: as GrowableModel::Forward; B rows.
at::Tensor ForwardConfigurations(const GrowableModel& model,
                                 const slot::CounterfactualPlan& plan,
                                 const at::Tensor& x);

// Measures every configuration of a plan over the batches: accuracy of each,
// and cross-entropy (nats) of the network as it is. Each batch is one
// ForwardConfigurations in inference mode.
// FAILED_PRECONDITION if the model is in training mode (it would update its
// running statistics), or a slot's alpha is no longer that of the plan;
// NOT_FOUND for a slot that the model lacks; INVALID_ARGUMENT without batches,
// for a batch without rows, or for labels that do not match their inputs.
// Thread safety: that of the model's forward. Reads the slots, writes nothing.
absl::StatusOr<slot::CounterfactualCounts> CountCounterfactuals(
    const GrowableModel& model, const slot::CounterfactualPlan& plan,
    const std::vector<ValidationBatch>& batches);

// Plan, count and attribute.
absl::StatusOr<slot::CounterfactualResult> EvaluateCounterfactuals(
    const GrowableModel& model, const std::vector<ValidationBatch>& batches,
    const slot::CounterfactualPlan::Options& options = {});

}  // namespace esper::host
#endif  // ESPER_CORE_HOST_COUNTERFACTUAL_EVAL_H_
