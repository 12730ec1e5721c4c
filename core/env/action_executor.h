#ifndef ESPER_CORE_ENV_ACTION_EXECUTOR_H_
#define ESPER_CORE_ENV_ACTION_EXECUTOR_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "core/env/growing_network.h"
#include "core/policy/actions.h"

namespace esper::env {

// What is known when an action is to be carried out.
struct ExecutionContext {
  double val_loss = 0;
  double val_accuracy = 0;
  int64_t max_seeds = 0;  // 0 = unlimited.
  int64_t live_seeds = 0;
  std::string seed_id;  // Of a seed that this action germinates.
};

// What became of an action.
struct ActionOutcome {
  policy::Op op = policy::Op::kWait;  // As sampled.
  bool success = true;                // The op did what it says; WAIT always.
  std::string refusal;                // Why not; empty on success.

  // The op that counts: `op`, or WAIT if it was vetoed or refused.
  policy::Op effective_op() const { return success ? op : policy::Op::kWait; }
};

// The op as it counts before it is run: WAIT if it cannot apply to the target
// slot or a pre-flight check vetoes it. `refusal` says why.
policy::Op IntendedOp(const policy::FactoredAction& action,
                      const SlotReports& reports,
                      const std::vector<std::string>& slot_ids,
                      const ExecutionContext& context, std::string* refusal);

// Carries the action out on its slot. What cannot apply, is vetoed, or is
// refused by the lifecycle changes nothing and is an unsuccessful outcome, not
// an error. Errors: INTERNAL and the like from the lifecycle. The slot index
// must be in range.
absl::StatusOr<ActionOutcome> ExecuteAction(
    const policy::FactoredAction& action, const SlotReports& reports,
    const ExecutionContext& context, GrowingNetwork& network);

}  // namespace esper::env
#endif  // ESPER_CORE_ENV_ACTION_EXECUTOR_H_
