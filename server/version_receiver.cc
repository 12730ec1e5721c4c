#include "server/version_receiver.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/sha256.h"
#include "server/refusal.h"

namespace esper::server {
namespace {

// Taken at once for a file whose size is only promised.
constexpr int64_t kReserveBytes = 64 << 20;

absl::Status Corrupt(const v1::WatchPolicyResponse& part,
                     const std::string& what) {
  return Refuse("CORRUPT_VERSION", "data",
                absl::StrCat("Version ", part.header().policy_version(),
                             " did not arrive whole: ", what, "."),
                "Ask for it again.");
}

}  // namespace

absl::StatusOr<std::optional<ReceivedVersion>> VersionReceiver::Add(
    const v1::WatchPolicyResponse& part) {
  const int64_t size = static_cast<int64_t>(part.data().size());
  const int64_t held = static_cast<int64_t>(version_.bytes.size());
  if (part.total_bytes() < 1 || part.total_bytes() > max_bytes_) {
    return Corrupt(
        part, absl::StrCat("its size is ", part.total_bytes(),
                           " bytes, at most ", max_bytes_, " are allowed"));
  }
  if (size == 0) return Corrupt(part, "a part is empty");
  if (held == 0) {
    version_.header = part.header();
    version_.sha256 = part.sha256();
    total_bytes_ = part.total_bytes();
    version_.bytes.reserve(std::min(total_bytes_, kReserveBytes));
  } else if (part.sha256() != version_.sha256 ||
             part.total_bytes() != total_bytes_) {
    return Corrupt(part, "a part is of another file");
  }
  if (part.offset() != held) {
    return Corrupt(part, absl::StrCat("a part begins at byte ", part.offset(),
                                      ", expected ", held));
  }
  if (size > total_bytes_ - held) {
    return Corrupt(part, "a part reaches beyond the end");
  }
  version_.bytes += part.data();
  if (held + size < total_bytes_) return std::optional<ReceivedVersion>();
  const std::string digest = Sha256Hex(version_.bytes);
  if (digest != version_.sha256) {
    return Corrupt(part, absl::StrCat("its SHA-256 is ", digest, ", not ",
                                      version_.sha256));
  }
  std::optional<ReceivedVersion> received = std::exchange(version_, {});
  return received;
}

}  // namespace esper::server
