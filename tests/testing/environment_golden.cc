#include "tests/testing/environment_golden.h"

#include <set>
#include <string>

#include "absl/strings/str_cat.h"
#include "core/policy/action_mask.h"
#include "core/policy/actions.h"
#include "core/policy/observation.h"
#include "core/policy/signal_tracker.h"

namespace esper::testing {
namespace {

using policy::ActionHead;

constexpr double kFeatureTolerance = 1e-6;
constexpr double kTrackerTolerance = 1e-12;

// The parts before the first dot: "s3", "s5".
std::set<std::string> Prefixes(const GoldenTensors& file) {
  std::set<std::string> prefixes;
  for (const auto& [name, tensor] : file.all()) {
    prefixes.insert(name.substr(0, name.find('.')));
  }
  return prefixes;
}

std::vector<std::string> SlotIds(int64_t count) {
  std::vector<std::string> ids;
  for (int64_t i = 0; i < count; ++i) ids.push_back(absl::StrCat("r0c", i));
  return ids;
}

// One row of tensors under a prefix.
class Row {
 public:
  Row(const GoldenTensors& file, std::string prefix, int64_t row)
      : file_(file), prefix_(std::move(prefix)), row_(row) {}

  double Number(const std::string& name) const { return Get(name).at(row_); }
  double Number(const std::string& name, int64_t i) const {
    return Get(name).at(row_, i);
  }
  int64_t Integer(const std::string& name) const {
    return static_cast<int64_t>(Number(name));
  }
  int64_t Integer(const std::string& name, int64_t i) const {
    return static_cast<int64_t>(Number(name, i));
  }
  bool Flag(const std::string& name) const { return Number(name) != 0; }
  bool Flag(const std::string& name, int64_t i) const {
    return Number(name, i) != 0;
  }
  const GoldenTensor& Get(const std::string& name) const {
    return file_[prefix_ + name];
  }

 private:
  const GoldenTensors& file_;
  const std::string prefix_;
  const int64_t row_;
};

policy::SlotObservation ReportOf(const Row& row, int64_t i) {
  policy::SlotObservation slot;
  slot.stage = row.Integer("slot.stage", i);
  slot.blueprint_index = row.Integer("slot.blueprint_index", i);
  slot.current_alpha = row.Number("slot.current_alpha", i);
  if (row.Flag("slot.has_contribution", i)) {
    slot.contribution = row.Number("slot.contribution", i);
  }
  slot.contribution_velocity = row.Number("slot.contribution_velocity", i);
  slot.blend_tempo_epochs = row.Integer("slot.blend_tempo_epochs", i);
  slot.alpha_target = row.Number("slot.alpha_target", i);
  slot.alpha_mode = row.Integer("slot.alpha_mode", i);
  slot.alpha_steps_total = row.Integer("slot.alpha_steps_total", i);
  slot.alpha_steps_done = row.Integer("slot.alpha_steps_done", i);
  slot.time_to_target = row.Integer("slot.time_to_target", i);
  slot.alpha_velocity = row.Number("slot.alpha_velocity", i);
  slot.alpha_algorithm = row.Integer("slot.alpha_algorithm", i);
  slot.interaction_sum = row.Number("slot.interaction_sum", i);
  slot.epochs_in_stage = row.Integer("slot.epochs_in_stage", i);
  slot.epochs_total = row.Integer("slot.epochs_total", i);
  if (!row.Flag("slot.has_telemetry", i)) return slot;
  if (row.Flag("slot.has_gradient_norm", i)) {
    slot.gradient_norm = row.Number("slot.gradient_norm", i);
  }
  if (row.Flag("slot.has_gradient_health", i)) {
    slot.gradient_health = row.Number("slot.gradient_health", i);
  }
  const int64_t vanishing = row.Integer("slot.has_vanishing", i);
  const int64_t exploding = row.Integer("slot.has_exploding", i);
  if (vanishing >= 0) slot.has_vanishing = vanishing == 1;
  if (exploding >= 0) slot.has_exploding = exploding == 1;
  return slot;
}

policy::HostSignals SignalsOf(const Row& row) {
  policy::HostSignals signals;
  signals.epoch = row.Integer("epoch");
  signals.val_loss = row.Number("val_loss");
  signals.val_accuracy = row.Number("val_accuracy");
  for (int64_t i = 0; i < row.Integer("loss_history_len"); ++i) {
    signals.loss_history.push_back(row.Number("loss_history", i));
  }
  for (int64_t i = 0; i < row.Integer("accuracy_history_len"); ++i) {
    signals.accuracy_history.push_back(row.Number("accuracy_history", i));
  }
  return signals;
}

void CheckFeatureRow(const Row& row, int64_t num_slots,
                     GoldenReport::Case* check) {
  policy::ObservationOptions options;
  options.slot_ids = SlotIds(num_slots);
  options.max_epochs = row.Integer("max_epochs");
  options.non_finite = policy::ObservationOptions::NonFinite::kClamp;
  policy::SlotObservations slots;
  policy::ObservationTracking tracking;
  tracking.SetLastAction(row.Flag("last_action_success"),
                         row.Integer("last_action_op"));
  for (int64_t i = 0; i < num_slots; ++i) {
    const std::string& id = options.slot_ids[i];
    if (row.Flag("slot.present", i)) slots[id] = ReportOf(row, i);
    if (row.Flag("slot.has_gradient_health_prev", i)) {
      tracking.SetGradientHealthPrev(
          id, row.Number("slot.gradient_health_prev", i));
    }
    if (row.Flag("slot.has_epochs_since_counterfactual", i)) {
      tracking.SetEpochsSinceContribution(
          id, row.Integer("slot.epochs_since_counterfactual", i));
    }
  }
  const auto observation =
      policy::BuildObservation(options, SignalsOf(row), slots, tracking);
  if (!observation.ok()) {
    check->Fail(observation.status().ToString());
    return;
  }
  check->Equal<int64_t>("width",
                        static_cast<int64_t>(observation->features.size()),
                        row.Get("out.obs").shape.at(1));
  for (size_t i = 0; i < observation->features.size(); ++i) {
    check->Near(absl::StrCat("feature ", i), observation->features[i],
                row.Number("out.obs", static_cast<int64_t>(i)), 0,
                kFeatureTolerance);
  }
  for (int64_t i = 0; i < num_slots; ++i) {
    check->Equal("blueprint index", observation->blueprint_indices[i],
                 row.Integer("out.blueprint_indices", i));
  }
}

void CheckMaskRow(const Row& row, int64_t row_number, int64_t num_slots,
                  GoldenReport::Case* check) {
  policy::ActionMaskOptions options;
  options.slot_ids = SlotIds(num_slots);
  options.topology = row.Integer("topology") == 0 ? "cnn" : "transformer";
  options.max_seeds = row.Integer("max_seeds");
  options.allow_governor_override = row.Flag("governor_override");
  options.disable_advance = row.Flag("disable_advance");
  policy::SlotMaskStates states;
  for (int64_t i = 0; i < num_slots; ++i) {
    const std::string& id = options.slot_ids[i];
    if (row.Flag("enabled", i)) options.enabled_slots.push_back(id);
    states[id] = std::nullopt;
    if (!row.Flag("occupied", i)) continue;
    states[id] =
        policy::SlotMaskState{row.Integer("stage", i), row.Integer("age", i),
                              row.Integer("alpha_mode", i)};
  }
  const auto mask =
      policy::BuildActionMask(options, states, row.Integer("total_seeds"));
  if (!mask.ok()) {
    check->Fail(mask.status().ToString());
    return;
  }
  for (int h = 0; h < policy::kNumActionHeads; ++h) {
    const auto head = static_cast<ActionHead>(h);
    const std::string name = absl::StrCat("out.", policy::HeadName(head));
    for (int i = 0; i < policy::HeadSize(head, mask->num_slots); ++i) {
      check->Equal(absl::StrCat(name, " ", i), mask->Allows(head, i),
                   row.Flag(name, i));
    }
  }
  for (int op = 0; op < policy::kNumOps; ++op) {
    for (int64_t slot = 0; slot < num_slots; ++slot) {
      check->Equal(absl::StrCat("slot_by_op ", op, " ", slot),
                   mask->AllowsSlot(static_cast<policy::Op>(op), slot),
                   row.Get("out.slot_by_op").at(row_number, op, slot) != 0);
    }
  }
  const auto unpacked =
      policy::UnpackMaskBits(policy::PackMaskBits(*mask), mask->num_slots);
  if (!unpacked.ok() || unpacked->heads != mask->heads ||
      unpacked->slot_by_op != mask->slot_by_op) {
    check->Fail("the wire form does not come back as it was");
  }
}

// One sequence of the tracker file.
class TrackerSequence {
 public:
  TrackerSequence(const GoldenTensors& file, int64_t sequence,
                  GoldenReport::Case* check)
      : file_(file), k_(sequence), check_(check) {}

  void Run() {
    policy::SignalTracker::Options options;
    const GoldenTensor& params = file_["params"];
    options.plateau_threshold = params.at(k_, 0);
    options.history_window = static_cast<int64_t>(params.at(k_, 1));
    options.stabilization_threshold = params.at(k_, 2);
    options.stabilization_epochs = static_cast<int64_t>(params.at(k_, 3));
    options.regression_threshold = params.at(k_, 4);
    auto tracker = policy::SignalTracker::Create(options);
    if (!tracker.ok()) {
      check_->Fail(tracker.status().ToString());
      return;
    }
    const int64_t steps = file_["in.epoch"].shape.at(1);
    for (int64_t t = 0; t < steps; ++t) {
      const policy::SignalTracker::Epoch epoch = EpochAt(t);
      Compare("peek", t, tracker->Peek(epoch));
      Compare("update", t, tracker->Update(epoch));
    }
  }

 private:
  double In(const std::string& name, int64_t t) const {
    return file_["in." + name].at(k_, t);
  }
  double InSeed(const std::string& name, int64_t t, int64_t i) const {
    return file_["in.seed." + name].at(k_, t, i);
  }

  policy::SignalTracker::Epoch EpochAt(int64_t t) const {
    policy::SignalTracker::Epoch epoch;
    epoch.epoch = static_cast<int64_t>(In("epoch", t));
    epoch.val_loss = In("val_loss", t);
    epoch.val_accuracy = In("val_accuracy", t);
    epoch.available_slots = static_cast<int64_t>(In("available_slots", t));
    const auto seeds = static_cast<int64_t>(In("num_seeds", t));
    for (int64_t i = 0; i < seeds; ++i) {
      policy::SignalTracker::Seed seed;
      seed.id =
          absl::StrCat("seed_", static_cast<int64_t>(InSeed("id_rank", t, i)));
      seed.stage = static_cast<int64_t>(InSeed("stage", t, i));
      seed.alpha = InSeed("alpha", t, i);
      seed.epochs_in_stage =
          static_cast<int64_t>(InSeed("epochs_in_stage", t, i));
      if (InSeed("has_contribution", t, i) != 0) {
        seed.contribution = InSeed("contribution", t, i);
      }
      seed.improvement = InSeed("improvement", t, i);
      epoch.seeds.push_back(seed);
    }
    return epoch;
  }

  void Compare(const std::string& prefix, int64_t t,
               const absl::StatusOr<policy::TrainingSignals>& signals) {
    if (!signals.ok()) {
      check_->Fail(signals.status().ToString());
      return;
    }
    const std::string at = absl::StrCat("step ", t, " ", prefix, ".");
    const std::pair<const char*, double> numbers[] = {
        {"loss_delta", signals->loss_delta},
        {"accuracy_delta", signals->accuracy_delta},
        {"plateau_epochs", static_cast<double>(signals->plateau_epochs)},
        {"host_stabilized", signals->host_stabilized ? 1.0 : 0.0},
        {"best_val_accuracy", signals->best_val_accuracy},
        {"best_val_loss", signals->best_val_loss},
        {"seed_stage", static_cast<double>(signals->seed_stage)},
        {"seed_epochs_in_stage",
         static_cast<double>(signals->seed_epochs_in_stage)},
        {"seed_alpha", signals->seed_alpha},
        {"seed_improvement", signals->seed_improvement},
        {"loss_history_len", static_cast<double>(signals->loss_history.size())},
    };
    for (const auto& [name, value] : numbers) {
      check_->Near(at + name, value,
                   file_[absl::StrCat(prefix, ".", name)].at(k_, t), 0,
                   kTrackerTolerance);
    }
    for (size_t i = 0; i < signals->loss_history.size(); ++i) {
      const auto j = static_cast<int64_t>(i);
      check_->Near(at + "loss_history", signals->loss_history[i],
                   file_[prefix + ".loss_history"].at(k_, t, j), 0,
                   kTrackerTolerance);
      check_->Near(at + "accuracy_history", signals->accuracy_history[i],
                   file_[prefix + ".accuracy_history"].at(k_, t, j), 0,
                   kTrackerTolerance);
    }
  }

  const GoldenTensors& file_;
  const int64_t k_;
  GoldenReport::Case* const check_;
};

}  // namespace

void CheckFeatures(const GoldenTensors& file, GoldenReport* report) {
  for (const std::string& prefix : Prefixes(file)) {
    const auto& shape = file[prefix + ".slot.present"].shape;
    for (int64_t n = 0; n < shape.at(0); ++n) {
      GoldenReport::Case check(report,
                               absl::StrCat("features/", prefix, "/", n));
      CheckFeatureRow(Row(file, prefix + ".", n), shape.at(1), &check);
    }
  }
}

void CheckMasks(const GoldenTensors& file, GoldenReport* report) {
  for (const std::string& prefix : Prefixes(file)) {
    const auto& shape = file[prefix + ".occupied"].shape;
    for (int64_t n = 0; n < shape.at(0); ++n) {
      GoldenReport::Case check(report, absl::StrCat("masks/", prefix, "/", n));
      CheckMaskRow(Row(file, prefix + ".", n), n, shape.at(1), &check);
    }
  }
}

void CheckTracker(const GoldenTensors& file, GoldenReport* report) {
  for (int64_t k = 0; k < file["params"].shape.at(0); ++k) {
    GoldenReport::Case check(report, absl::StrCat("tracker/", k));
    TrackerSequence(file, k, &check).Run();
  }
}

}  // namespace esper::testing
