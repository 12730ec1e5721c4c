#include "core/slot/forced_alpha.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/log.h"
#include "core/slot/recording.h"

namespace esper::slot {
namespace {

using Scopes = std::vector<std::shared_ptr<ForcedAlpha>>;

Scopes& ThreadScopes() {
  thread_local Scopes scopes;
  return scopes;
}

bool IsClosed(const std::shared_ptr<ForcedAlpha>& forced) {
  return !forced->open.load(std::memory_order_acquire);
}

}  // namespace

void RegisterForcedAlpha(std::shared_ptr<ForcedAlpha> forced) {
  ThreadScopes().push_back(std::move(forced));
}

void CloseForcedAlpha(ForcedAlpha& forced, const std::string& slot_id) {
  if (forced.thread != std::this_thread::get_id()) {
    spdlog::error(
        "A ForceAlpha scope on slot {} ended on another thread than the one "
        "that opened it.",
        slot_id);
  }
  forced.open.store(false, std::memory_order_release);
  forced.claim->taken.store(false, std::memory_order_release);
  // Elsewhere, the owning thread forgets it when it next looks.
  Scopes& scopes = ThreadScopes();
  scopes.erase(std::remove_if(scopes.begin(), scopes.end(), IsClosed),
               scopes.end());
}

std::shared_ptr<const ForcedAlpha> FindForcedAlpha(
    const ForceAlphaClaim& claim) {
  Scopes& scopes = ThreadScopes();
  if (scopes.empty()) return nullptr;
  scopes.erase(std::remove_if(scopes.begin(), scopes.end(), IsClosed),
               scopes.end());
  const auto found = std::find_if(
      scopes.begin(), scopes.end(),
      [&](const auto& forced) { return forced->claim.get() == &claim; });
  return found == scopes.end() ? nullptr : *found;
}

Error ForceAlphaError(const std::string& reason, const std::string& slot_id,
                      const std::string& message, absl::StatusCode code) {
  ErrorDetail detail;
  detail.reason = reason;
  detail.field = slot_id;
  detail.hint =
      "Give that forward SlotView{alpha_override} instead: it writes nothing "
      "and works on any thread and in any mode.";
  return Error(code, detail, message);
}

void CheckForceAlphaAllowed(const std::string& slot_id, bool training) {
  if (IsCapturing() || IsTracing()) {
    throw ForceAlphaError(
        "RECORDING", slot_id,
        absl::StrCat("Slot ", slot_id, " cannot have its alpha forced while ",
                     IsTracing() ? "a tracer" : "a CUDA graph",
                     " is recording: the number would be frozen into the "
                     "record."));
  }
  if (training && at::GradMode::is_enabled()) {
    throw ForceAlphaError(
        "TRAINING_MODE", slot_id,
        absl::StrCat("Slot ", slot_id,
                     " is in training mode with gradients enabled; a forced "
                     "alpha there would train the network at a setting that "
                     "it is not in."));
  }
}

}  // namespace esper::slot
