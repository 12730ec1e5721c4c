#ifndef ESPER_CLIENT_TRAINER_PROGRESS_H_
#define ESPER_CLIENT_TRAINER_PROGRESS_H_

#include <string>

#include "absl/time/time.h"
#include "client/trainer/run_totals.h"

namespace esper::client {

// How far a run is, besides its totals.
struct RunPosition {
  double done = 0;  // Part of the run in [0, 1]; negative: no limit is set.
  int round_episodes = 0;          // Delivered in this round.
  int round_size = 0;              // Of so many.
  double episodes_per_second = 0;  // Since this process started.
  double steps_per_second = 0;     // Environment steps, likewise.
};

// One line: a bar, then update, version, episodes per second, and the mean
// return and host accuracy of the last episodes.
std::string FormatProgress(const RunTotals& totals,
                           const RunPosition& position);

// Shows the line on standard error: redrawn in place on a terminal, else logged
// every `log_every`.
//
// Thread safety: none.
class Progress {
 public:
  Progress(bool terminal, absl::Duration log_every);

  // Whether the line should be shown again.
  bool IsDue(absl::Time now) const;
  void Show(const RunTotals& totals, const RunPosition& position,
            absl::Time now);
  // Leaves the last line on the screen.
  void Finish();

 private:
  const bool terminal_;
  const absl::Duration log_every_;
  absl::Time shown_ = absl::InfinitePast();
};

}  // namespace esper::client
#endif  // ESPER_CLIENT_TRAINER_PROGRESS_H_
