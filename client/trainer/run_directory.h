#ifndef ESPER_CLIENT_TRAINER_RUN_DIRECTORY_H_
#define ESPER_CLIENT_TRAINER_RUN_DIRECTORY_H_

#include <cstdint>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "client/trainer/event_file.h"
#include "client/trainer/run_totals.h"
#include "nlohmann/json.hpp"

namespace esper::client {

// The folder that a training run leaves behind:
//   config.json   the effective configuration;
//   episodes.csv  one line per delivered episode;
//   updates.csv   one line per update;
//   evaluations.csv  one line per evaluation episode, like episodes.csv;
//   steps.jsonl   one line per delivered episode: every step, with the stage,
//                 blueprint, alpha and contribution of every slot;
//   events.out.tfevents.esper  the same numbers and all metrics of the updates
//                 for TensorBoard, by update;
//   summary.json  the totals (RunTotals), and the configuration again.
// A line is written when it happens, and the summary after it, by renaming a
// complete file over the old one. So a run that was killed leaves files that
// can be read, and `Open` with `resume` drops the lines that the summary does
// not count.
//
// Thread safety: any thread may call any method.
class RunDirectory {
 public:
  // Makes the folder, or opens it again. FAILED_PRECONDITION if it holds a run
  // that delivered an episode and `resume` is false; NOT_FOUND if it holds none
  // and `resume` is true; DATA_LOSS if its summary cannot be read; errors of
  // the file system.
  static absl::StatusOr<std::unique_ptr<RunDirectory>> Open(
      const std::string& path, bool resume,
      const nlohmann::ordered_json& config);

  // Adds to the totals and writes the lines.
  absl::Status AddEpisode(const FinishedEpisode& episode)
      ABSL_LOCKS_EXCLUDED(mu_);
  // The episodes of one evaluation.
  absl::Status AddEvaluation(const std::vector<FinishedEpisode>& episodes)
      ABSL_LOCKS_EXCLUDED(mu_);
  absl::Status AddUpdate(const UpdateReport& update, int64_t episodes,
                         double collect_seconds, double update_seconds)
      ABSL_LOCKS_EXCLUDED(mu_);

  // Changes the totals and writes the summary.
  template <typename Function>
  absl::Status Change(Function change) ABSL_LOCKS_EXCLUDED(mu_) {
    absl::MutexLock lock(&mu_);
    change(totals_);
    return WriteSummary();
  }

  RunTotals totals() const ABSL_LOCKS_EXCLUDED(mu_);
  const std::string& path() const { return path_; }

 private:
  RunDirectory(std::string path, nlohmann::ordered_json config);

  absl::Status Create();
  absl::Status Resume();
  absl::Status OpenFiles() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status OpenEvents() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status WriteSummary() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  std::string File(const std::string& name) const;

  const std::string path_;
  const absl::Time opened_;
  const nlohmann::ordered_json config_;

  mutable absl::Mutex mu_;
  RunTotals totals_ ABSL_GUARDED_BY(mu_);
  double earlier_seconds_ ABSL_GUARDED_BY(mu_) = 0;  // Before this process.
  std::ofstream episodes_ ABSL_GUARDED_BY(mu_);
  std::ofstream evaluations_ ABSL_GUARDED_BY(mu_);
  std::ofstream updates_ ABSL_GUARDED_BY(mu_);
  std::ofstream steps_ ABSL_GUARDED_BY(mu_);
  std::unique_ptr<EventFile> events_ ABSL_GUARDED_BY(mu_);
};

}  // namespace esper::client
#endif  // ESPER_CLIENT_TRAINER_RUN_DIRECTORY_H_
