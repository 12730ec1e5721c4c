#ifndef ESPER_CORE_ENV_REWARD_ACCOUNT_H_
#define ESPER_CORE_ENV_REWARD_ACCOUNT_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "core/env/episode_config.h"
#include "core/env/hindsight.h"
#include "core/env/rent.h"
#include "core/env/report_views.h"
#include "core/env/reward.h"
#include "core/policy/actions.h"
#include "core/policy/signal_tracker.h"
#include "core/slot/counterfactual.h"

namespace esper::env {

// The state that a step is paid by: as measured, before the action ran.
struct RewardContext {
  int epoch = 0;  // 1-based.
  SlotReports reports;
  slot::CounterfactualResult measured;
  policy::TrainingSignals signals;
  std::optional<double> stable_val_accuracy;  // For ESCROW.
  std::vector<int64_t> slot_parameters;       // By slot index; 0 if empty.
  int64_t host_parameters = 0;
  int64_t total_parameters = 0;
};

// Pays the steps of one episode, and remembers what later steps are paid by:
// accuracies at germination, escrow, drips, hindsight credit, penalties.
//
// Call per epoch: OnValidation; then, for the action, Pay, OnOutcome, OnTick;
// after the last action Close.
//
// Thread safety: none.
class RewardAccount {
 public:
  // `config` must outlive the account.
  RewardAccount(const EpisodeConfig& config, std::vector<std::string> slot_ids);

  // Takes in which seeds lifted which others, and the first accuracy.
  void OnValidation(const slot::CounterfactualResult& measured, int epoch);

  // The reward of `op` (the one that counts) on slot index `target`. Clears
  // what was pending. Errors: those of ComputeReward.
  absl::StatusOr<RewardBreakdown> Pay(const RewardContext& context,
                                      policy::Op op, int64_t target);

  // What the action did to its slot; `paid` is what Pay returned for it.
  void OnOutcome(const RewardContext& context, policy::Op op, bool success,
                 int64_t target, const RewardBreakdown& paid);

  // After the slots aged: `reports` as they are now, and the slots whose seed
  // was removed without the policy asking.
  void OnTick(const SlotReports& reports,
              const std::vector<std::string>& auto_pruned);

  // No step will follow: adds what is still pending to the last reward.
  void Close(RewardBreakdown* reward);

  int64_t contributing() const { return contributing_; }

 private:
  RewardInputs Inputs(const RewardContext& context, policy::Op op,
                      int64_t target);
  void AddRent(const RewardContext& context, RewardInputs* inputs);
  void CountOccupants(const RewardContext& context, RewardInputs* inputs) const;

  const EpisodeConfig& config_;
  const std::vector<std::string> slot_ids_;  // In action order.

  RentMeter rent_;
  HindsightLedger ledger_;
  PendingReward pending_;
  std::map<std::string, double> acc_at_germination_;  // By slot id.
  std::map<std::string, double> escrow_;              // By slot id.
  std::vector<DripState> drips_;
  std::optional<double> first_accuracy_;
  int64_t contributing_ = 0;  // Fossilised seeds that contribute.
};

}  // namespace esper::env
#endif  // ESPER_CORE_ENV_REWARD_ACCOUNT_H_
