#ifndef ESPER_CORE_POLICY_SIGNAL_TRACKER_H_
#define ESPER_CORE_POLICY_SIGNAL_TRACKER_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace esper::policy {

// What a tracker says about the host after one epoch.
struct TrainingSignals {
  int64_t epoch = 0;
  int64_t global_step = 0;
  double train_loss = 0;      // Nats.
  double train_accuracy = 0;  // Percent.
  double val_loss = 0;
  double val_accuracy = 0;
  // Previous minus given loss: positive is an improvement, +inf before there
  // is a previous value (see `has_previous`).
  double loss_delta = 0;
  double accuracy_delta = 0;  // Given minus previous accuracy.
  bool has_previous = false;
  int64_t plateau_epochs = 0;
  bool host_stabilized = false;
  double best_val_accuracy = 0;
  double best_val_loss = 0;  // Of the window only.

  // The seed that stands for all: highest stage, then alpha, then smallest
  // contribution, then id. All 0 without seeds.
  int64_t seed_stage = 0;
  int64_t seed_epochs_in_stage = 0;
  double seed_alpha = 0;
  double seed_improvement = 0;  // Since its stage began, accuracy points.

  std::vector<std::string> seed_ids;  // In the order given.
  int64_t available_slots = 1;
  std::vector<double> loss_history;  // At most the last five, oldest first.
  std::vector<double> accuracy_history;
};

// Follows the host's validation curve over an episode: plateaus, stabilisation
// and the short histories that observations show.
//
// Not thread safe; a value that belongs to one episode.
class SignalTracker {
 public:
  struct Options {
    double plateau_threshold = 0.5;         // Accuracy points.
    int64_t history_window = 10;            // Epochs, at least 1.
    double stabilization_threshold = 0.03;  // Share of the previous loss.
    int64_t stabilization_epochs = 3;       // 0 = always stabilised.
    double regression_threshold = 0.05;     // Share of the previous loss.
    // Called once, when the host first counts as stabilised, with the epoch
    // and the stable count. May be empty.
    std::function<void(int64_t epoch, int64_t stable_epochs)> on_stabilized;
    // Called with a sentence about a suspicious accuracy. May be empty.
    std::function<void(const std::string&)> on_warning;
  };

  // A live seed, as far as the summary needs it.
  struct Seed {
    std::string id;
    int64_t stage = 0;
    double alpha = 0;
    int64_t epochs_in_stage = 0;
    std::optional<double> contribution;  // Accuracy points.
    double improvement = 0;              // Since its stage began.
  };

  struct Epoch {
    int64_t epoch = 0;
    int64_t global_step = 0;
    double train_loss = 0;
    double train_accuracy = 0;
    double val_loss = 0;
    double val_accuracy = 0;
    std::vector<Seed> seeds;
    int64_t available_slots = 1;
  };

  // INVALID_ARGUMENT if the window is below 1 or the stabilisation epochs are
  // negative.
  static absl::StatusOr<SignalTracker> Create(const Options& options);

  // With default options.
  SignalTracker() : SignalTracker(Options()) {}

  // Takes one epoch in. INVALID_ARGUMENT (DUPLICATE_SEED_ID), with nothing
  // changed, if two seeds share an id.
  absl::StatusOr<TrainingSignals> Update(const Epoch& epoch);

  // What the signals would be, against the stored state, which stays: stored
  // plateau count and flag, best values including the given ones, histories
  // without them.
  absl::StatusOr<TrainingSignals> Peek(const Epoch& epoch) const;

  // Minimum of the last min(window, available) accuracies. INVALID_ARGUMENT if
  // `window` <= 0, FAILED_PRECONDITION without history.
  absl::StatusOr<double> StableValAccuracy(int64_t window) const;

  // Back to the state after construction.
  void Reset();

 private:
  explicit SignalTracker(const Options& options);

  void UpdateStabilization(double loss_delta, int64_t epoch);
  void WarnAbout(const Epoch& epoch) const;
  absl::StatusOr<TrainingSignals> MakeSignals(const Epoch& epoch) const;

  Options options_;
  std::deque<double> losses_;  // Oldest first, at most `history_window`.
  std::deque<double> accuracies_;
  double best_accuracy_ = 0;
  int64_t plateau_epochs_ = 0;
  double previous_accuracy_ = 0;
  double previous_loss_ = std::numeric_limits<double>::infinity();
  int64_t stable_epochs_ = 0;
  bool stabilized_ = false;
};

}  // namespace esper::policy
#endif  // ESPER_CORE_POLICY_SIGNAL_TRACKER_H_
