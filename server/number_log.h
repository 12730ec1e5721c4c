#ifndef ESPER_SERVER_NUMBER_LOG_H_
#define ESPER_SERVER_NUMBER_LOG_H_

#include <cstdint>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"

namespace esper::server {

// Gives out numbers, each once, even if the server is killed before its next
// checkpoint, or goes back to an old one: the highest is kept in a file of the
// checkpoint folder, on the disk before the number is used. There are two kinds
// of them. Policy versions: whoever recorded a step under one may rely on which
// weights that were. Tokens of the learner lease: a holder from before the kill
// can never write in the name of one that came after it.
//
// Thread safety: any thread may call any method.
class NumberLog {
 public:
  // `folder` is created when the first number is taken. Empty: numbers are
  // unique for this process alone. `file` is a plain name.
  NumberLog(std::string folder, std::string file);

  // Reads what earlier processes gave out. DATA_LOSS (CORRUPT_CHECKPOINT) if
  // the file holds no number.
  absl::Status Open() ABSL_LOCKS_EXCLUDED(mu_);

  // The next number: above `current` and above all given out before. INTERNAL
  // with the system's words if it cannot be kept; the number is then not used.
  absl::StatusOr<int64_t> Take(int64_t current) ABSL_LOCKS_EXCLUDED(mu_);

  // The highest number known; 0 if there is none.
  int64_t highest() const ABSL_LOCKS_EXCLUDED(mu_);

 private:
  const std::string folder_;
  const std::string file_;
  mutable absl::Mutex mu_;
  int64_t highest_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace esper::server
#endif  // ESPER_SERVER_NUMBER_LOG_H_
