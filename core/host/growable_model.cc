#include "core/host/growable_model.h"

#include <ATen/ops/aminmax.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/error.h"
#include "core/slot/stage.h"

namespace esper::host {
namespace {

std::string Describe(const at::Tensor& tensor) {
  if (!tensor.defined()) return "undefined";
  return absl::StrCat(c10::toString(tensor.scalar_type()), " [",
                      absl::StrJoin(tensor.sizes(), ", "), "]");
}

absl::Status UnknownSlot(const std::string& slot_id,
                         const std::vector<std::string>& known,
                         absl::StatusCode code) {
  return MakeStatus(
      code, {.reason = "UNKNOWN_SLOT", .field = slot_id},
      absl::StrCat("There is no slot '", slot_id, "' here; there are ",
                   known.empty() ? "none" : absl::StrJoin(known, ", "), "."));
}

// Counts elements, tied tensors once.
class ElementCounter {
 public:
  void Add(const std::vector<at::Tensor>& parameters, int64_t& owned,
           int64_t& trainable) {
    for (const at::Tensor& parameter : parameters) {
      if (!seen_.insert(parameter.unsafeGetTensorImpl()).second) continue;
      owned += parameter.numel();
      if (parameter.requires_grad()) trainable += parameter.numel();
    }
  }

 private:
  std::set<const c10::TensorImpl*> seen_;
};

}  // namespace

absl::StatusOr<std::shared_ptr<GrowableModel>> GrowableModel::Create(
    std::shared_ptr<Host> host, const std::vector<std::string>& slot_ids,
    const GrowableModelOptions& options) {
  if (host == nullptr) {
    return MakeStatus(absl::StatusCode::kInvalidArgument,
                      {.reason = "NO_HOST", .field = "host"},
                      "A growable model needs a host.");
  }
  std::set<std::string> wanted;
  for (const std::string& id : slot_ids) {
    if (host->segment_channels().count(id) == 0) {
      return UnknownSlot(id, host->execution_order(),
                         absl::StatusCode::kInvalidArgument);
    }
    if (!wanted.insert(id).second) {
      return MakeStatus(absl::StatusCode::kInvalidArgument,
                        {.reason = "DUPLICATE_SLOT", .field = id},
                        absl::StrCat("Slot '", id, "' is asked for twice."));
    }
  }

  const std::vector<at::Tensor> parameters = host->parameters();
  slot::SeedSlot::Options slot_options;
  slot_options.topology = host->topology();
  slot_options.init_profile = options.init_profile;
  slot_options.ste_guard = options.ste_guard;
  slot_options.init_seed = options.init_seed;
  if (!parameters.empty()) {
    slot_options.device = parameters.front().device();
    slot_options.dtype = parameters.front().scalar_type();
  }
  int64_t owned = 0;
  ElementCounter().Add(parameters, owned, slot_options.host_param_count);

  std::vector<std::shared_ptr<slot::SeedSlot>> slots;
  for (const slot::InjectionSpec& spec : host->injection_specs()) {
    if (wanted.count(spec.slot_id) == 0) continue;
    slot_options.slot_id = spec.slot_id;
    slot_options.channels = spec.channels;
    auto slot = slot::SeedSlot::Create(slot_options);
    if (!slot.ok()) return slot.status();
    slots.push_back(*std::move(slot));
  }
  return std::shared_ptr<GrowableModel>(
      new GrowableModel(std::move(host), std::move(slots)));
}

GrowableModel::GrowableModel(std::shared_ptr<Host> host,
                             std::vector<std::shared_ptr<slot::SeedSlot>> slots)
    : host_(register_module("host", std::move(host))),
      slots_(std::move(slots)) {
  auto children = std::make_shared<torch::nn::Module>();
  for (size_t i = 0; i < slots_.size(); ++i) {
    const std::string& id = slots_[i]->slot_id();
    children->register_module(id, slots_[i]);
    slot_ids_.push_back(id);
    route_.emplace_back(host_->PositionOf(id), slots_[i].get());
  }
  register_module("seed_slots", std::move(children));
  std::sort(route_.begin(), route_.end());
}

GrowableModel::~GrowableModel() = default;

absl::StatusOr<slot::SeedSlot*> GrowableModel::FindSlot(
    const std::string& slot_id) const {
  for (const auto& slot : slots_) {
    if (slot->slot_id() == slot_id) return slot.get();
  }
  return UnknownSlot(slot_id, slot_ids_, absl::StatusCode::kNotFound);
}

at::Tensor GrowableModel::Forward(const at::Tensor& x) const {
  return ForwardWith(x, /*overrides=*/nullptr);
}

at::Tensor GrowableModel::FusedForward(const at::Tensor& x,
                                       const AlphaOverrides& overrides) const {
  CheckOverrides(x, overrides);
  return ForwardWith(x, &overrides);
}

struct GrowableModel::Stop {
  int position;
  bool training;
  std::shared_ptr<const slot::ForwardPlan> plan;
  slot::SlotView view;
};

std::vector<GrowableModel::Stop> GrowableModel::Stops(
    const AlphaOverrides* overrides) const {
  std::vector<Stop> stops;
  for (const auto& [position, slot] : route_) {
    slot::SlotView view;
    if (overrides != nullptr) {
      const auto found = overrides->find(slot->slot_id());
      if (found != overrides->end()) view.alpha_override = found->second;
    }
    view = slot->Resolve(view);
    std::shared_ptr<const slot::ForwardPlan> plan = slot->plan();
    if (slot::PassesThrough(*plan, view)) continue;
    stops.push_back(
        {position, slot->is_training(), std::move(plan), std::move(view)});
  }
  return stops;
}

at::Tensor GrowableModel::ForwardWith(const at::Tensor& x,
                                      const AlphaOverrides* overrides) const {
  at::Tensor features = x;
  int from = Host::kInput;
  for (const Stop& stop : Stops(overrides)) {
    features = host_->Run(from, stop.position, features);
    from = stop.position;
    features =
        slot::RunForwardPlan(*stop.plan, features, stop.view, stop.training);
  }
  return host_->Run(from, host_->output(), features);
}

void GrowableModel::CheckOverrides(const at::Tensor& x,
                                   const AlphaOverrides& overrides) const {
  std::vector<int64_t> shape(slot::FeatureRank(host_->topology()), 1);
  if (x.defined() && x.dim() > 0) shape[0] = x.size(0);
  for (const auto& [id, alpha] : overrides) {
    if (!FindSlot(id).ok()) {
      throw InvalidArgumentError(
          {.reason = "UNKNOWN_SLOT", .field = id},
          absl::StrCat("An alpha override names slot '", id,
                       "', which the model does not have."));
    }
    if (!alpha.defined() || alpha.sizes() != at::IntArrayRef(shape)) {
      throw ShapeError(
          absl::StrCat("alpha override of ", id),
          absl::StrCat("floating [", absl::StrJoin(shape, ", "), "]"),
          Describe(alpha));
    }
    std::string fault;
    if (!alpha.is_floating_point()) {
      // An integer would truncate every partial alpha to 0.
      fault = absl::StrCat("has dtype ", c10::toString(alpha.scalar_type()),
                           ", but must be floating");
    } else if (alpha.device() != x.device()) {
      fault = absl::StrCat("is on ", alpha.device().str(), ", the input on ",
                           x.device().str());
    } else if (alpha.numel() > 0) {
      const auto [least, most] = at::aminmax(alpha.detach());
      // False for NaN as well.
      if (!(least.item<double>() >= 0 && most.item<double>() <= 1)) {
        fault = "is not finite and in [0, 1] everywhere";
      }
    }
    if (!fault.empty()) {
      throw InvalidArgumentError(
          {.reason = "BAD_ALPHA_OVERRIDE", .field = id},
          absl::StrCat("The alpha override of slot '", id, "' ", fault, "."));
    }
  }
}

std::vector<at::Tensor> GrowableModel::HostParameters() const {
  return host_->parameters();
}

absl::StatusOr<std::vector<at::Tensor>> GrowableModel::SlotParameters(
    const std::string& slot_id) const {
  absl::StatusOr<slot::SeedSlot*> slot = FindSlot(slot_id);
  if (!slot.ok()) return slot.status();
  return (*slot)->SeedParameters();
}

std::vector<at::Tensor> GrowableModel::AllSlotParameters() const {
  std::vector<at::Tensor> all;
  for (const auto& slot : slots_) {
    std::vector<at::Tensor> parameters = slot->SeedParameters();
    all.insert(all.end(), parameters.begin(), parameters.end());
  }
  return all;
}

ParameterCounts GrowableModel::CountParameters() const {
  ParameterCounts counts;
  ElementCounter counter;
  counter.Add(HostParameters(), counts.host_owned, counts.host_trainable);
  for (const auto& slot : slots_) {
    const slot::ElementCounts seed = slot->CountElements();
    counts.seeds_owned += seed.owned;
    counts.seeds_trainable += seed.trainable;
  }
  return counts;
}

int64_t GrowableModel::CountActiveSeeds() const {
  int64_t count = 0;
  for (const auto& slot : slots_) {
    switch (slot->stage()) {
      case slot::SeedStage::kGerminated:
      case slot::SeedStage::kTraining:
      case slot::SeedStage::kBlending:
      case slot::SeedStage::kHolding:
        ++count;
        break;
      default:
        break;  // Empty, fossilised, or cooling down: no seed to grow.
    }
  }
  return count;
}

int64_t GrowableModel::CountSeeds() const {
  int64_t count = CountActiveSeeds();
  for (const auto& slot : slots_) {
    if (slot->stage() == slot::SeedStage::kFossilized) ++count;
  }
  return count;
}

ScopedEvalMode::ScopedEvalMode(torch::nn::Module& module)
    : module_(module), was_training_(module.is_training()) {
  if (was_training_) module_.eval();
}

ScopedEvalMode::~ScopedEvalMode() {
  if (was_training_) module_.train();
}

}  // namespace esper::host
