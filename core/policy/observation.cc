#include "core/policy/observation.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "core/error.h"

namespace esper::policy {
namespace {

constexpr double kSymlogNorm = 7.0;
constexpr double kContributionScale = 10.0;  // Accuracy points.
constexpr double kBlendTempoScale = 12.0;    // Epochs.
constexpr double kFreshnessBase = 0.995;
constexpr float kUnknown = -1.0f;

// In this nesting NaN becomes `low`, which parity with the reference needs.
double Clamp(double x, double low, double high) {
  const double capped = high < x ? high : x;
  return capped > low ? capped : low;
}

double Symlog(double x) { return x >= 0 ? std::log1p(x) : -std::log1p(-x); }

absl::Status BadInput(const std::string& reason, const std::string& field,
                      const std::string& message) {
  ErrorDetail detail;
  detail.reason = reason;
  detail.field = field;
  return MakeStatus(absl::StatusCode::kInvalidArgument, detail, message);
}

// Collects the first complaint, so that the builders below stay flat.
class InputCheck {
 public:
  explicit InputCheck(ObservationOptions::NonFinite policy)
      : reject_(policy == ObservationOptions::NonFinite::kReject) {}

  // Refused only if the option says so.
  void Finite(const std::string& slot, const char* field, double value) {
    if (reject_) MustBeFinite(slot, field, value);
  }

  // Refused always.
  void MustBeFinite(const std::string& slot, const char* field, double value) {
    if (std::isfinite(value) || !status_.ok()) return;
    status_ = ToStatus(NonFiniteError::Input(
        slot.empty() ? field : absl::StrCat(slot, ".", field)));
  }

  void Fail(absl::Status status) {
    if (status_.ok()) status_ = std::move(status);
  }

  const absl::Status& status() const { return status_; }

 private:
  const bool reject_;
  absl::Status status_;
};

// Column of a stage in the one-hot; -1 for a number that is no stage.
int StageColumn(int64_t stage) {
  if (stage < kStageUnknown || stage > kStageResetting || stage == 5) return -1;
  return static_cast<int>(stage < 5 ? stage : stage - 1);
}

void CheckSlot(const std::string& id, const SlotObservation& slot,
               InputCheck* check) {
  check->Finite(id, "current_alpha", slot.current_alpha);
  check->Finite(id, "contribution", slot.contribution.value_or(0));
  check->Finite(id, "contribution_velocity", slot.contribution_velocity);
  check->Finite(id, "alpha_target", slot.alpha_target);
  check->Finite(id, "alpha_velocity", slot.alpha_velocity);
  check->Finite(id, "interaction_sum", slot.interaction_sum);
  check->MustBeFinite(id, "gradient_health", slot.gradient_health.value_or(0));
  if (StageColumn(slot.stage) < 0) {
    check->Fail(BadInput(
        "BAD_STAGE", id,
        absl::StrCat("Stage ", slot.stage, " of slot ", id, " is unknown.")));
  }
  if (slot.blueprint_index < 0 || slot.blueprint_index >= kNumBlueprints) {
    check->Fail(BadInput(
        "BAD_BLUEPRINT_INDEX", id,
        absl::StrCat("Blueprint index ", slot.blueprint_index, " of slot ", id,
                     " is outside 0..", kNumBlueprints - 1, ".")));
  }
}

absl::Status CheckInputs(const ObservationOptions& options,
                         const HostSignals& signals,
                         const SlotObservations& slots,
                         const ObservationTracking& tracking) {
  InputCheck check(options.non_finite);
  if (options.slot_ids.empty() || options.max_epochs < 1) {
    return BadInput("BAD_SHAPE", "slot_ids",
                    "An observation needs a slot and a positive max_epochs.");
  }
  check.Finite("", "val_loss", signals.val_loss);
  check.Finite("", "val_accuracy", signals.val_accuracy);
  for (double loss : signals.loss_history) {
    check.Finite("", "loss_history", loss);
  }
  for (double accuracy : signals.accuracy_history) {
    check.Finite("", "accuracy_history", accuracy);
  }
  if (tracking.last_action_op() < 0 || tracking.last_action_op() >= kNumOps) {
    check.Fail(
        BadInput("INVALID_ACTION", "last_action_op",
                 absl::StrCat("The last operation ", tracking.last_action_op(),
                              " is outside 0..", kNumOps - 1, ".")));
  }
  for (const auto& [id, slot] : slots) CheckSlot(id, slot, &check);
  for (const std::string& id : options.slot_ids) {
    if (slots.count(id) == 0) continue;
    check.MustBeFinite(id, "gradient_health_prev",
                       tracking.GradientHealthPrev(id).value_or(0));
  }
  return check.status();
}

// The newest `kObservationHistory` values, oldest first, padded on the left.
template <typename Scale>
void FillHistory(const std::vector<double>& history, Scale scale, float* out) {
  const int have =
      static_cast<int>(std::min<size_t>(history.size(), kObservationHistory));
  std::fill(out, out + kObservationHistory, kUnknown);
  for (int i = 0; i < have; ++i) {
    out[kObservationHistory - have + i] =
        static_cast<float>(scale(history[history.size() - have + i]));
  }
}

double Share(const SlotObservations& slots, size_t num_slots,
             std::initializer_list<int64_t> stages) {
  int count = 0;
  for (const auto& [id, slot] : slots) {
    count +=
        std::find(stages.begin(), stages.end(), slot.stage) != stages.end();
  }
  return static_cast<double>(count) / static_cast<double>(num_slots);
}

void FillBase(const ObservationOptions& options, const HostSignals& signals,
              const SlotObservations& slots,
              const ObservationTracking& tracking, float* out) {
  const auto loss = [](double x) { return Symlog(x) / kSymlogNorm; };
  const auto accuracy = [](double x) { return x / 100.0; };
  out[0] = static_cast<float>(
      static_cast<double>(std::min(signals.epoch, options.max_epochs)) /
      static_cast<double>(options.max_epochs));
  out[1] = static_cast<float>(loss(signals.val_loss));
  out[2] = static_cast<float>(accuracy(signals.val_accuracy));
  FillHistory(signals.loss_history, loss, out + 3);
  FillHistory(signals.accuracy_history, accuracy, out + 8);
  const size_t n = options.slot_ids.size();
  out[13] = static_cast<float>(Share(slots, n, {kStageTraining}));
  out[14] = static_cast<float>(Share(slots, n, {kStageBlending}));
  out[15] =
      static_cast<float>(Share(slots, n, {kStageHolding, kStageFossilized}));
  out[16] = tracking.last_action_success() ? 1.0f : 0.0f;
  out[17 + tracking.last_action_op()] = 1.0f;
}

void FillSlot(const std::string& id, const SlotObservation& slot,
              const ObservationTracking& tracking, int64_t max_epochs,
              float* out) {
  const auto epochs = [max_epochs](int64_t n) {
    return static_cast<float>(static_cast<double>(std::min(n, max_epochs)) /
                              static_cast<double>(max_epochs));
  };
  const auto points = [](double x) {
    return static_cast<float>(Clamp(x / kContributionScale, -1.0, 1.0));
  };
  const double norm = slot.gradient_norm.value_or(0);
  const auto health_prev = tracking.GradientHealthPrev(id);
  const auto since = tracking.EpochsSinceContribution(id);

  out[0] = 1.0f;
  out[1 + StageColumn(slot.stage)] = 1.0f;
  out[11] = static_cast<float>(slot.current_alpha);
  out[12] = slot.contribution.has_value() ? points(*slot.contribution) : 0.0f;
  out[13] = points(slot.contribution_velocity);
  out[14] = static_cast<float>(static_cast<double>(slot.blend_tempo_epochs) /
                               kBlendTempoScale);
  out[15] = static_cast<float>(slot.alpha_target);
  out[16] = static_cast<float>(static_cast<double>(slot.alpha_mode) / 2.0);
  out[17] = epochs(slot.alpha_steps_total);
  out[18] = epochs(slot.alpha_steps_done);
  out[19] = epochs(slot.time_to_target);
  out[20] = static_cast<float>(Clamp(slot.alpha_velocity, -1.0, 1.0));
  out[21] =
      static_cast<float>(static_cast<double>(slot.alpha_algorithm - 1) / 2.0);
  out[22] = points(slot.interaction_sum);
  out[23] = std::isfinite(norm) ? static_cast<float>(Symlog(norm) / kSymlogNorm)
                                : 0.0f;
  out[24] = slot.gradient_health.has_value()
                ? static_cast<float>(Clamp(*slot.gradient_health, -1.0, 1.0))
                : 0.0f;
  out[25] = slot.has_vanishing.value_or(false) ? 1.0f : 0.0f;
  out[26] = slot.has_exploding.value_or(false) ? 1.0f : 0.0f;
  out[27] =
      health_prev.has_value() ? static_cast<float>(*health_prev) : kUnknown;
  out[28] = epochs(slot.epochs_in_stage);
  out[29] = since.has_value()
                ? static_cast<float>(
                      std::pow(kFreshnessBase, static_cast<double>(*since)))
                : kUnknown;
  out[30] = epochs(slot.epochs_total);
}

template <typename T>
std::optional<T> Find(const std::map<std::string, T>& map,
                      const std::string& key) {
  const auto it = map.find(key);
  if (it == map.end()) return std::nullopt;
  return it->second;
}

}  // namespace

void ObservationTracking::StartEpisode() {
  *this = ObservationTracking(freshness_);
}

void ObservationTracking::OnContributionMeasured(const std::string& slot_id) {
  epochs_since_contribution_[slot_id] = 0;
}

void ObservationTracking::Forget(const std::string& slot_id) {
  gradient_health_prev_.erase(slot_id);
  epochs_since_contribution_.erase(slot_id);
}

absl::Status ObservationTracking::FinishStep(bool success, Op sampled_op,
                                             const SlotObservations& reports) {
  for (const auto& [id, report] : reports) {
    if (report.gradient_health.has_value() &&
        !std::isfinite(*report.gradient_health)) {
      return ToStatus(
          NonFiniteError::Input(absl::StrCat(id, ".gradient_health")));
    }
  }
  last_action_success_ = success;
  last_action_op_ = static_cast<int64_t>(sampled_op);
  for (const auto& [id, report] : reports) {
    if (report.gradient_health.has_value()) {
      gradient_health_prev_[id] = *report.gradient_health;
    }
    const auto it = epochs_since_contribution_.find(id);
    if (it != epochs_since_contribution_.end()) {
      ++it->second;
    } else if (freshness_ == Freshness::kUpstream) {
      epochs_since_contribution_[id] = 0;
    }
  }
  return absl::OkStatus();
}

void ObservationTracking::OnRollback() {
  last_action_success_ = false;
  last_action_op_ = static_cast<int64_t>(Op::kWait);
}

std::optional<double> ObservationTracking::GradientHealthPrev(
    const std::string& slot_id) const {
  return Find(gradient_health_prev_, slot_id);
}

std::optional<int64_t> ObservationTracking::EpochsSinceContribution(
    const std::string& slot_id) const {
  return Find(epochs_since_contribution_, slot_id);
}

void ObservationTracking::SetLastAction(bool success, int64_t op) {
  last_action_success_ = success;
  last_action_op_ = op;
}

void ObservationTracking::SetGradientHealthPrev(const std::string& slot_id,
                                                double health) {
  gradient_health_prev_[slot_id] = health;
}

void ObservationTracking::SetEpochsSinceContribution(const std::string& slot_id,
                                                     int64_t epochs) {
  epochs_since_contribution_[slot_id] = epochs;
}

absl::StatusOr<Observation> BuildObservation(
    const ObservationOptions& options, const HostSignals& signals,
    const SlotObservations& slots, const ObservationTracking& tracking) {
  if (absl::Status status = CheckInputs(options, signals, slots, tracking);
      !status.ok()) {
    return status;
  }
  const int num_slots = static_cast<int>(options.slot_ids.size());
  Observation observation;
  observation.features.assign(ObservationWidth(num_slots), 0.0f);
  observation.blueprint_indices.assign(num_slots, -1);
  float* out = observation.features.data();
  FillBase(options, signals, slots, tracking, out);
  for (int i = 0; i < num_slots; ++i) {
    const std::string& id = options.slot_ids[i];
    const auto it = slots.find(id);
    if (it == slots.end()) continue;
    observation.blueprint_indices[i] = it->second.blueprint_index;
    FillSlot(id, it->second, tracking, options.max_epochs,
             out + kObservationBaseWidth + i * kObservationSlotWidth);
  }
  return observation;
}

}  // namespace esper::policy
