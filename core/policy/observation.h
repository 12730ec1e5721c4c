#ifndef ESPER_CORE_POLICY_OBSERVATION_H_
#define ESPER_CORE_POLICY_OBSERVATION_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/policy/actions.h"

// The observation of the network-growing policy: a base block about the host,
// then one block per slot. Schema version 1. All arithmetic is in double and
// rounded to float once.
namespace esper::policy {

inline constexpr int kObservationBaseWidth = 23;
inline constexpr int kObservationSlotWidth = 31;
inline constexpr int kObservationHistory = 5;

// 116 for three slots.
inline constexpr int ObservationWidth(int num_slots) {
  return kObservationBaseWidth + kObservationSlotWidth * num_slots;
}

// What the host's last validation said.
struct HostSignals {
  int64_t epoch = 0;
  double val_loss = 0;      // Nats.
  double val_accuracy = 0;  // Percent, 0..100.
  // Any length, oldest first; the last five are used.
  std::vector<double> loss_history;
  std::vector<double> accuracy_history;
};

// What one occupied slot reports, cool-down included. An absent optional means
// "not measured".
struct SlotObservation {
  int64_t stage = kStageUnknown;
  int64_t blueprint_index = 0;  // 0..12.
  double current_alpha = 0;
  std::optional<double> contribution;  // Accuracy points.
  double contribution_velocity = 0;    // Accuracy points per epoch.
  int64_t blend_tempo_epochs = 0;
  double alpha_target = 0;
  int64_t alpha_mode = kAlphaModeHold;
  int64_t alpha_steps_total = 0;
  int64_t alpha_steps_done = 0;
  int64_t time_to_target = 0;  // Controller steps left.
  double alpha_velocity = 0;   // Alpha per step.
  int64_t alpha_algorithm = 1;
  double interaction_sum = 0;  // Accuracy points.
  // From gradient telemetry. A norm that is not finite counts as 0.
  std::optional<double> gradient_norm;
  std::optional<double> gradient_health;  // Nominally 0..1.
  std::optional<bool> has_vanishing;
  std::optional<bool> has_exploding;
  int64_t epochs_in_stage = 0;
  int64_t epochs_total = 0;  // Seed age.
};

// Reports by slot id. A missing id is an empty slot.
using SlotObservations = std::map<std::string, SlotObservation>;

// What the environment remembers between steps for the observation. Not thread
// safe; a value that belongs to one episode.
class ObservationTracking {
 public:
  // Whether a slot that was never measured has a freshness. `kMeasured`: only a
  // measurement creates it. `kUpstream`: any reported slot gets one after its
  // first step, as if it had been measured.
  enum class Freshness { kMeasured, kUpstream };

  explicit ObservationTracking(Freshness freshness = Freshness::kMeasured)
      : freshness_(freshness) {}

  // Forgets everything: last action succeeded, was WAIT, nothing measured.
  void StartEpisode();

  // The slot's contribution was measured in this epoch. Call it before the
  // observation of that epoch is built.
  void OnContributionMeasured(const std::string& slot_id);

  // The slot was newly germinated, or became empty.
  void Forget(const std::string& slot_id);

  // After the action: remembers its outcome, the sampled op, each reported
  // slot's measured gradient health (an unmeasured one leaves the old entry),
  // and ages the measurements by one step. NONFINITE_INPUT if a health is not
  // finite; then nothing changes.
  absl::Status FinishStep(bool success, Op sampled_op,
                          const SlotObservations& reports);

  // The governor rolled the host back: the action counts as a failed WAIT.
  void OnRollback();

  bool last_action_success() const { return last_action_success_; }
  int64_t last_action_op() const { return last_action_op_; }
  std::optional<double> GradientHealthPrev(const std::string& slot_id) const;
  std::optional<int64_t> EpochsSinceContribution(
      const std::string& slot_id) const;

  // For restoring a recorded state; `op` is checked when features are built.
  void SetLastAction(bool success, int64_t op);
  void SetGradientHealthPrev(const std::string& slot_id, double health);
  void SetEpochsSinceContribution(const std::string& slot_id, int64_t epochs);

 private:
  Freshness freshness_;
  bool last_action_success_ = true;
  int64_t last_action_op_ = 0;
  std::map<std::string, double> gradient_health_prev_;
  std::map<std::string, int64_t> epochs_since_contribution_;
};

struct ObservationOptions {
  // Slot ids in the order of the slot head; at least one, all unique.
  std::vector<std::string> slot_ids;
  int64_t max_epochs = 150;  // Episode length, in epochs; at least 1.
  // What a number that is not finite does. `kReject`: NONFINITE_INPUT, naming
  // it. `kClamp`: flows through as upstream has it (clamped fields read -1).
  // The gradient norm counts as 0, and gradient health is rejected, in both.
  enum class NonFinite { kReject, kClamp };
  NonFinite non_finite = NonFinite::kReject;
};

struct Observation {
  std::vector<float> features;  // ObservationWidth(S).
  // Per slot: -1 empty, otherwise 0..12. The categorical input.
  std::vector<int64_t> blueprint_indices;
};

// Builds one observation. Errors, all INVALID_ARGUMENT: NONFINITE_INPUT (as the
// option says), BAD_STAGE (a number that is no stage), BAD_BLUEPRINT_INDEX,
// INVALID_ACTION (last op out of range), BAD_SHAPE (no slot, max_epochs < 1).
absl::StatusOr<Observation> BuildObservation(
    const ObservationOptions& options, const HostSignals& signals,
    const SlotObservations& slots, const ObservationTracking& tracking);

}  // namespace esper::policy
#endif  // ESPER_CORE_POLICY_OBSERVATION_H_
