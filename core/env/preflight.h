#ifndef ESPER_CORE_ENV_PREFLIGHT_H_
#define ESPER_CORE_ENV_PREFLIGHT_H_

#include <cstdint>
#include <optional>
#include <string>

#include "core/policy/actions.h"

// Checks between a sampled action and the slots: what an op does at all, and
// whether it may touch the model now. Pure functions.
namespace esper::env {

struct PreflightInputs {
  policy::Op op = policy::Op::kWait;
  std::optional<std::string> blueprint_id;
  std::optional<double> alpha_target;
  std::optional<int64_t> alpha_steps;
  std::optional<int64_t> alpha_curve;
  double val_loss = 0;
  double val_accuracy = 0;
  // Stage of the live seed in the target slot, if there is one.
  std::optional<int64_t> seed_stage;
  int64_t max_seeds = 0;  // 0 = unlimited.
  int64_t live_seeds = 0;
  int64_t cooldown_epochs_left = 0;
};

// The first check that vetoes the op, by name ("val_loss_finite",
// "active_seed_capacity", ...); empty if approved. WAIT is always approved.
std::string PreflightVeto(const PreflightInputs& inputs);

// The target slot, for `EffectiveOp`.
struct TargetSlot {
  bool enabled = true;           // And in range.
  std::optional<int64_t> stage;  // Absent without any state.
  int64_t alpha_mode = policy::kAlphaModeHold;
  int64_t age_epochs = 0;
};

// `op` if it can apply to that slot, otherwise WAIT. Known before anything
// runs; an environment that executes first also counts an op as WAIT when its
// handler then refused it.
policy::Op EffectiveOp(policy::Op op, const TargetSlot& target);

}  // namespace esper::env
#endif  // ESPER_CORE_ENV_PREFLIGHT_H_
