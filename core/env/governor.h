#ifndef ESPER_CORE_ENV_GOVERNOR_H_
#define ESPER_CORE_ENV_GOVERNOR_H_

#include <cstdint>
#include <deque>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace esper::env {

// Why a host is about to be rolled back.
enum class PanicReason { kNone, kNan, kLobotomy, kDivergence };
// "governor_nan", "governor_lobotomy", "governor_divergence"; "" for none.
const char* PanicReasonName(PanicReason reason);

struct GovernorVerdict {
  bool panic = false;
  // Also names the suspicion while a divergence streak is still too short.
  PanicReason reason = PanicReason::kNone;
  int64_t anomalies_in_a_row = 0;
};

// What can be saved and restored: the host and every fossilised seed, live
// seeds excluded. The environment implements it.
class GovernedHost {
 public:
  virtual ~GovernedHost() = default;

  // Copies parameters and buffers aside, replacing an earlier copy.
  virtual absl::Status SaveSnapshot() = 0;

  // Puts the copy back, prunes every slot with `reason` (fossilised ones stay)
  // and clears the optimisers' state. INTERNAL if copy and host do not match.
  virtual absl::Status Rollback(PanicReason reason) = 0;
};

// Watches one host's validation loss and says when it has collapsed. A value:
// `Check` decides, the environment acts (GovernedHost) and then calls
// `OnRollback`.
//
// Not thread safe; belongs to one environment.
class Governor {
 public:
  struct Options {
    double sensitivity = 6.0;          // Standard deviations above the mean.
    double absolute_threshold = 12.0;  // Nats.
    double multiplier = 3.0;           // Times the mean.
    int64_t history_window = 20;       // Epochs, at least 10.
    int64_t min_samples = 10;          // Epochs before anything but NaN counts.
    int64_t panics_in_a_row = 3;
    double penalty = 10.0;  // Subtracted from the reward on a rollback.
    // Loss of a host that guesses: ln(classes or vocabulary).
    double random_guess_loss = 2.302585092994046;
    // A healthy epoch divisible by this asks for a snapshot.
    int64_t snapshot_interval = 5;
  };

  // INVALID_ARGUMENT if the history is below 10 or another option is out of
  // range.
  static absl::StatusOr<Governor> Create(const Options& options);

  // With default options: ten classes.
  Governor() : Governor(Options()) {}

  // Takes the epoch's validation loss in. An anomaly does not enter the
  // history.
  GovernorVerdict Check(double val_loss);

  // Whether a healthy epoch (from 1) is due for a snapshot, because of the
  // interval or because one was requested; clears the request.
  bool TakeSnapshotDue(int64_t epoch);
  // Asks for a snapshot at the next healthy epoch (after a fossilisation).
  void RequestSnapshot() { snapshot_requested_ = true; }

  // After a rollback: clears streak and reason, keeps the history.
  void OnRollback();
  // At episode start: clears everything.
  void Reset();

  const Options& options() const { return options_; }
  int64_t history_size() const { return static_cast<int64_t>(losses_.size()); }

 private:
  explicit Governor(const Options& options) : options_(options) {}

  void Append(double loss);

  Options options_;
  std::deque<double> losses_;  // Oldest first.
  int64_t anomalies_in_a_row_ = 0;
  bool snapshot_requested_ = false;
};

}  // namespace esper::env
#endif  // ESPER_CORE_ENV_GOVERNOR_H_
