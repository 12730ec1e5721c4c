#ifndef ESPER_SERVER_VERSION_RECEIVER_H_
#define ESPER_SERVER_VERSION_RECEIVER_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "esper/v1/policy_training.pb.h"

namespace esper::server {

// A version's file as it came, whole and verified.
struct ReceivedVersion {
  v1::ResponseHeader header;
  std::string bytes;   // Safetensors, see server/snapshot_file.h.
  std::string sha256;  // Of `bytes`, lower-case hexadecimal digits.
};

// Puts the parts of one WatchPolicy stream together. Trusts nothing: parts that
// do not fit end the transfer, and what does not have the promised SHA-256 is
// never handed out. No more memory is taken than bytes have come.
//
// Not thread-safe.
class VersionReceiver {
 public:
  // Files above `max_bytes` (> 0) are refused.
  explicit VersionReceiver(int64_t max_bytes) : max_bytes_(max_bytes) {}

  // Takes the next part; the file if it was the last one. DATA_LOSS
  // (CORRUPT_VERSION) for a part that does not continue the file, is of another
  // one or beyond its size, or if the digest differs: the stream is of no more
  // use then.
  absl::StatusOr<std::optional<ReceivedVersion>> Add(
      const v1::WatchPolicyResponse& part);

 private:
  const int64_t max_bytes_;
  ReceivedVersion version_;  // What has come; empty bytes: nothing.
  int64_t total_bytes_ = 0;
};

}  // namespace esper::server
#endif  // ESPER_SERVER_VERSION_RECEIVER_H_
