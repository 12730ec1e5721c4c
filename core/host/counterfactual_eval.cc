#include "core/host/counterfactual_eval.h"

#include <ATen/ops/argmax.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/InferenceMode.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/error.h"
#include "core/slot/forced_alpha.h"
#include "core/slot/stage.h"

namespace esper::host {
namespace {

using slot::CounterfactualCounts;
using slot::CounterfactualPlan;

absl::Status Refuse(absl::StatusCode code, const std::string& reason,
                    const std::string& field, const std::string& message) {
  ErrorDetail detail;
  detail.reason = reason;
  detail.field = field;
  return MakeStatus(code, detail, message);
}

absl::Status CheckModel(const GrowableModel& model,
                        const CounterfactualPlan& plan) {
  if (model.is_training()) {
    return Refuse(absl::StatusCode::kFailedPrecondition, "TRAINING_MODE",
                  "model",
                  "The model is in training mode, in which a measurement would "
                  "change its running statistics: put it into evaluation mode "
                  "(ScopedEvalMode).");
  }
  for (const slot::SlotSetting& setting : plan.slots()) {
    absl::StatusOr<slot::SeedSlot*> slot = model.FindSlot(setting.slot);
    if (!slot.ok()) return slot.status();
    if (slot::FindForcedAlpha(*(*slot)->force_alpha_claim()) != nullptr) {
      return Refuse(
          absl::StatusCode::kFailedPrecondition, "FORCED_ALPHA", setting.slot,
          absl::StrCat("This thread forces the alpha of slot ", setting.slot,
                       ", but the plan measures it as it is: end the "
                       "ForceAlpha scope first."));
    }
    if ((*slot)->alpha() != setting.alpha) {
      return Refuse(absl::StatusCode::kFailedPrecondition, "STALE_PLAN",
                    setting.slot,
                    absl::StrCat("The plan has slot ", setting.slot,
                                 " at alpha ", setting.alpha, ", but it is at ",
                                 (*slot)->alpha(), " by now: plan again."));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckBatch(const ValidationBatch& batch, size_t index) {
  const at::Tensor& x = batch.inputs;
  const at::Tensor& y = batch.labels;
  const auto refuse = [index](const std::string& what) {
    return Refuse(absl::StatusCode::kInvalidArgument, "BAD_BATCH",
                  absl::StrCat("batches[", index, "]"),
                  absl::StrCat("Validation batch ", index, " ", what, "."));
  };
  if (!x.defined() || x.dim() < 2 || x.size(0) == 0) {
    return refuse("has no inputs");
  }
  // Images have one label, sequences one for each token.
  const at::IntArrayRef shape = x.sizes().slice(0, x.dim() == 2 ? 2 : 1);
  if (!y.defined() || y.scalar_type() != at::kLong || y.sizes() != shape) {
    return refuse(
        absl::StrCat("needs labels int64 [", absl::StrJoin(shape, ", "), "]"));
  }
  return absl::OkStatus();
}

// The rows of one forward pass: as many blocks of equal size as there are sets
// of configurations that no slot has told apart yet.
class Branches {
 public:
  Branches(at::Tensor features, int configurations)
      : features_(std::move(features)), groups_(1) {
    for (int k = 0; k < configurations; ++k) groups_[0].push_back(k);
  }

  void Run(const Host& host, int from, int to) {
    features_ = host.Run(from, to, features_);
  }

  // A slot that is the same in every configuration.
  void Apply(const slot::SeedSlot& slot) {
    features_ = slot.forward(features_);
  }

  // A slot that is off in some: those rows pass it by, the others run through
  // it as they would in an ordinary forward pass.
  void Split(const slot::SeedSlot& slot, const CounterfactualPlan& plan,
             int index) {
    std::vector<std::vector<int>> off, on;   // Groups afterwards.
    std::vector<int> off_blocks, on_blocks;  // Where their rows are now.
    for (size_t g = 0; g < groups_.size(); ++g) {
      std::vector<int> without, with;
      for (const int k : groups_[g]) {
        (plan.masks()[k] >> index & 1 ? with : without).push_back(k);
      }
      if (!without.empty()) {
        off.push_back(std::move(without));
        off_blocks.push_back(static_cast<int>(g));
      }
      if (!with.empty()) {
        on.push_back(std::move(with));
        on_blocks.push_back(static_cast<int>(g));
      }
    }
    std::vector<at::Tensor> parts;
    if (!off.empty()) parts.push_back(Blocks(off_blocks));
    if (!on.empty()) parts.push_back(slot.forward(Blocks(on_blocks)));
    features_ = parts.size() == 1 ? parts[0] : at::cat(parts);
    groups_ = std::move(off);
    groups_.insert(groups_.end(), on.begin(), on.end());
  }

  // [K, B, ...] in the order of configurations.
  at::Tensor InOrder(int configurations) const {
    std::vector<at::Tensor> rows(configurations);
    for (size_t g = 0; g < groups_.size(); ++g) {
      for (const int k : groups_[g]) rows[k] = Block(static_cast<int>(g));
    }
    return at::stack(rows);
  }

 private:
  at::Tensor Block(int g) const {
    const int64_t size =
        features_.size(0) / static_cast<int64_t>(groups_.size());
    return features_.narrow(0, g * size, size);
  }

  at::Tensor Blocks(const std::vector<int>& blocks) const {
    if (blocks.size() == groups_.size()) return features_;
    std::vector<at::Tensor> parts;
    for (const int g : blocks) parts.push_back(Block(g));
    return at::cat(parts);
  }

  at::Tensor features_;
  std::vector<std::vector<int>> groups_;
};

// Sums on the model's device, read once at the end.
struct DeviceCounts {
  at::Tensor correct;            // int64 [K].
  at::Tensor correct_with_main;  // int64 [K].
  at::Tensor loss_sum;           // float64 [].
};

// The first configuration's cross-entropy, and who is right.
//   logits: float [K, B, classes] or [K, B, T, V].
//   labels: int64 [B] or [B, T].
void AddBatch(const at::Tensor& logits, const at::Tensor& labels,
              DeviceCounts& counts) {
  const int64_t k = logits.size(0);
  const at::Tensor right =
      (at::argmax(logits, /*dim=*/-1) == labels).reshape({k, -1});
  counts.correct += right.sum(1);
  counts.correct_with_main += (right & right[0]).sum(1);
  const at::Tensor main = logits[0].flatten(0, -2);
  counts.loss_sum +=
      at::cross_entropy_loss(main.to(at::kFloat), labels.flatten())
          .to(at::kDouble);
}

std::vector<int64_t> ToVector(const at::Tensor& counts) {
  const at::Tensor host = counts.cpu().contiguous();
  const int64_t* data = host.const_data_ptr<int64_t>();
  return std::vector<int64_t>(data, data + host.numel());
}

}  // namespace

absl::StatusOr<CounterfactualPlan> PlanCounterfactuals(
    const GrowableModel& model, const CounterfactualPlan::Options& options) {
  std::vector<slot::SlotSetting> settings;
  for (const auto& slot : model.slots()) {
    const std::shared_ptr<const slot::ForwardPlan> plan = slot->plan();
    slot::SlotSetting setting;
    setting.slot = slot->slot_id();
    setting.active = slot::IsActiveStage(plan->stage);
    setting.fossilized = plan->stage == slot::SeedStage::kFossilized;
    setting.alpha = setting.active ? plan->alpha_value : 0.0;
    settings.push_back(std::move(setting));
  }
  return CounterfactualPlan::Create(settings, options);
}

at::Tensor ForwardConfigurations(const GrowableModel& model,
                                 const CounterfactualPlan& plan,
                                 const at::Tensor& x) {
  const Host& host = model.host();
  Branches branches(x, plan.num_configurations());
  int from = Host::kInput;
  for (const auto& [position, slot] : model.route()) {
    branches.Run(host, from, position);
    from = position;
    int index = 0;
    while (index < plan.num_slots() &&
           plan.slots()[index].slot != slot->slot_id()) {
      ++index;
    }
    if (index == plan.num_slots()) {
      branches.Apply(*slot);
    } else {
      branches.Split(*slot, plan, index);
    }
  }
  branches.Run(host, from, host.output());
  return branches.InOrder(plan.num_configurations());
}

absl::StatusOr<CounterfactualCounts> CountCounterfactuals(
    const GrowableModel& model, const CounterfactualPlan& plan,
    const std::vector<ValidationBatch>& batches) {
  if (absl::Status status = CheckModel(model, plan); !status.ok()) {
    return status;
  }
  if (batches.empty()) {
    return Refuse(absl::StatusCode::kInvalidArgument, "BAD_BATCH", "batches",
                  "There is no validation batch.");
  }
  for (size_t i = 0; i < batches.size(); ++i) {
    absl::Status status = CheckBatch(batches[i], i);
    if (!status.ok()) return status;
  }

  c10::InferenceMode inference;
  const at::Device device = batches[0].inputs.device();
  const int64_t k = plan.num_configurations();
  DeviceCounts sums;
  sums.correct = at::zeros({k}, at::TensorOptions(at::kLong).device(device));
  sums.correct_with_main = at::zeros_like(sums.correct);
  sums.loss_sum = at::zeros({}, at::TensorOptions(at::kDouble).device(device));
  CounterfactualCounts counts;
  for (const ValidationBatch& batch : batches) {
    AddBatch(ForwardConfigurations(model, plan, batch.inputs), batch.labels,
             sums);
    counts.samples += batch.labels.numel();
    ++counts.batches;
  }
  counts.correct = ToVector(sums.correct);
  counts.correct_with_main = ToVector(sums.correct_with_main);
  counts.loss_sum = sums.loss_sum.item<double>();
  return counts;
}

absl::StatusOr<slot::CounterfactualResult> EvaluateCounterfactuals(
    const GrowableModel& model, const std::vector<ValidationBatch>& batches,
    const CounterfactualPlan::Options& options) {
  absl::StatusOr<CounterfactualPlan> plan = PlanCounterfactuals(model, options);
  if (!plan.ok()) return plan.status();
  absl::StatusOr<CounterfactualCounts> counts =
      CountCounterfactuals(model, *plan, batches);
  if (!counts.ok()) return counts.status();
  return slot::Attribute(*plan, *counts);
}

}  // namespace esper::host
