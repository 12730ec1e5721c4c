#include "core/policy/signal_tracker.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "core/error.h"

namespace esper::policy {
namespace {

constexpr int64_t kShownHistory = 5;
constexpr double kMinLossForRatio = 1e-8;

absl::Status BadTrackerInput(absl::StatusCode code, const std::string& reason,
                             const std::string& field,
                             const std::string& message) {
  ErrorDetail detail;
  detail.reason = reason;
  detail.field = field;
  return MakeStatus(code, detail, message);
}

absl::Status CheckSeedIds(const std::vector<SignalTracker::Seed>& seeds) {
  std::set<std::string> ids;
  for (const SignalTracker::Seed& seed : seeds) {
    if (ids.insert(seed.id).second) continue;
    return BadTrackerInput(absl::StatusCode::kInvalidArgument,
                           "DUPLICATE_SEED_ID", "seeds",
                           absl::StrCat("Two seeds are called ", seed.id, "."));
  }
  return absl::OkStatus();
}

// The seed that the summary shows: furthest on, and among equals the one that
// contributes least. An unmeasured contribution counts as the largest.
const SignalTracker::Seed* SummarySeed(
    const std::vector<SignalTracker::Seed>& seeds) {
  const auto key = [](const SignalTracker::Seed& seed) {
    const double contribution =
        seed.contribution.value_or(std::numeric_limits<double>::infinity());
    return std::make_tuple(seed.stage, seed.alpha, -contribution, seed.id);
  };
  const auto it = std::max_element(
      seeds.begin(), seeds.end(),
      [&key](const auto& a, const auto& b) { return key(a) < key(b); });
  return it == seeds.end() ? nullptr : &*it;
}

std::vector<double> Tail(const std::deque<double>& history) {
  const auto shown =
      std::min<int64_t>(kShownHistory, static_cast<int64_t>(history.size()));
  return std::vector<double>(history.end() - shown, history.end());
}

void Append(double value, int64_t window, std::deque<double>* history) {
  history->push_back(value);
  while (static_cast<int64_t>(history->size()) > window) history->pop_front();
}

}  // namespace

absl::StatusOr<SignalTracker> SignalTracker::Create(const Options& options) {
  if (options.history_window < 1 || options.stabilization_epochs < 0) {
    return BadTrackerInput(
        absl::StatusCode::kInvalidArgument, "MALFORMED_REQUEST", "options",
        "A tracker needs a window of at least 1 and no negative epochs.");
  }
  return SignalTracker(options);
}

SignalTracker::SignalTracker(const Options& options) : options_(options) {
  Reset();
}

void SignalTracker::Reset() {
  losses_.clear();
  accuracies_.clear();
  best_accuracy_ = 0;
  plateau_epochs_ = 0;
  previous_accuracy_ = 0;
  previous_loss_ = std::numeric_limits<double>::infinity();
  stable_epochs_ = 0;
  stabilized_ = options_.stabilization_epochs == 0;
}

absl::StatusOr<TrainingSignals> SignalTracker::MakeSignals(
    const Epoch& epoch) const {
  if (absl::Status status = CheckSeedIds(epoch.seeds); !status.ok()) {
    return status;
  }
  TrainingSignals signals;
  signals.epoch = epoch.epoch;
  signals.global_step = epoch.global_step;
  signals.train_loss = epoch.train_loss;
  signals.train_accuracy = epoch.train_accuracy;
  signals.val_loss = epoch.val_loss;
  signals.val_accuracy = epoch.val_accuracy;
  signals.loss_delta = previous_loss_ - epoch.val_loss;
  signals.accuracy_delta = epoch.val_accuracy - previous_accuracy_;
  signals.has_previous = !losses_.empty();
  if (const Seed* seed = SummarySeed(epoch.seeds); seed != nullptr) {
    signals.seed_stage = seed->stage;
    signals.seed_epochs_in_stage = seed->epochs_in_stage;
    signals.seed_alpha = seed->alpha;
    signals.seed_improvement = seed->improvement;
  }
  for (const Seed& seed : epoch.seeds) signals.seed_ids.push_back(seed.id);
  signals.available_slots = epoch.available_slots;
  return signals;
}

absl::StatusOr<TrainingSignals> SignalTracker::Update(const Epoch& epoch) {
  auto signals = MakeSignals(epoch);
  if (!signals.ok()) return signals;
  WarnAbout(epoch);
  plateau_epochs_ = signals->accuracy_delta < options_.plateau_threshold
                        ? plateau_epochs_ + 1
                        : 0;
  UpdateStabilization(signals->loss_delta, epoch.epoch);
  best_accuracy_ = std::max(best_accuracy_, epoch.val_accuracy);
  Append(epoch.val_loss, options_.history_window, &losses_);
  Append(epoch.val_accuracy, options_.history_window, &accuracies_);

  signals->plateau_epochs = plateau_epochs_;
  signals->host_stabilized = stabilized_;
  signals->best_val_accuracy = best_accuracy_;
  signals->best_val_loss = *std::min_element(losses_.begin(), losses_.end());
  signals->loss_history = Tail(losses_);
  signals->accuracy_history = Tail(accuracies_);
  previous_loss_ = epoch.val_loss;
  previous_accuracy_ = epoch.val_accuracy;
  return signals;
}

absl::StatusOr<TrainingSignals> SignalTracker::Peek(const Epoch& epoch) const {
  auto signals = MakeSignals(epoch);
  if (!signals.ok()) return signals;
  signals->plateau_epochs = plateau_epochs_;
  signals->host_stabilized = stabilized_;
  signals->best_val_accuracy = std::max(best_accuracy_, epoch.val_accuracy);
  signals->best_val_loss = epoch.val_loss;
  for (double loss : losses_) {
    signals->best_val_loss = std::min(signals->best_val_loss, loss);
  }
  signals->loss_history = Tail(losses_);
  signals->accuracy_history = Tail(accuracies_);
  return signals;
}

void SignalTracker::UpdateStabilization(double loss_delta, int64_t epoch) {
  if (stabilized_ || !std::isfinite(previous_loss_) ||
      previous_loss_ <= kMinLossForRatio) {
    return;
  }
  const double relative = loss_delta / previous_loss_;
  if (relative <= -options_.regression_threshold ||
      relative >= options_.stabilization_threshold || std::isnan(relative)) {
    stable_epochs_ = 0;
    return;
  }
  ++stable_epochs_;
  if (stable_epochs_ < options_.stabilization_epochs) return;
  stabilized_ = true;
  if (options_.on_stabilized) options_.on_stabilized(epoch, stable_epochs_);
}

void SignalTracker::WarnAbout(const Epoch& epoch) const {
  if (!options_.on_warning) return;
  if (epoch.val_accuracy > 100.0) {
    options_.on_warning(absl::StrCat("Validation accuracy ", epoch.val_accuracy,
                                     " is above 100 percent."));
  } else if (epoch.epoch > 0 && epoch.val_accuracy > 0.0 &&
             epoch.val_accuracy <= 1.0) {
    options_.on_warning(absl::StrCat("Validation accuracy ", epoch.val_accuracy,
                                     " looks like a share, not a percentage."));
  }
}

absl::StatusOr<double> SignalTracker::StableValAccuracy(int64_t window) const {
  if (window <= 0) {
    return BadTrackerInput(absl::StatusCode::kInvalidArgument,
                           "MALFORMED_REQUEST", "window",
                           "The window of a stable accuracy must be positive.");
  }
  if (accuracies_.empty()) {
    return BadTrackerInput(absl::StatusCode::kFailedPrecondition, "NO_HISTORY",
                           "window", "No accuracy has been tracked yet.");
  }
  const auto length =
      std::min<int64_t>(window, static_cast<int64_t>(accuracies_.size()));
  return *std::min_element(accuracies_.end() - length, accuracies_.end());
}

}  // namespace esper::policy
