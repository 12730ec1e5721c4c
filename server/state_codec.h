#ifndef ESPER_SERVER_STATE_CODEC_H_
#define ESPER_SERVER_STATE_CODEC_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/policy/policy_spec.h"
#include "server/episode_types.h"

namespace esper::server {

// Recurrent states that clients hold: episodes that any replica of one policy
// can go on with. Opaque to clients. Little-endian:
//
//   offset  bytes
//        0      4  "ESST"
//        4      2  format, 1
//        6      2  bit 0: deterministic; bit 1: signed with a key
//        8     32  SHA-256 of the policy's specification
//       40      8  seed
//       48      8  step that comes next, >= 1
//       56      8  layers L, hidden width H: uint32 each
//       64    8LH  h, then c: float32 [L, H] each
//              32  SHA-256 of all bytes before it, or, signed, their
//                  HMAC-SHA256
//
// The digest finds damage; only the HMAC keeps clients from making states of
// their own. Replicas that share episodes need the same key, or none.
//
// Immutable; any thread may use it.
class StateCodec {
 public:
  // `key`: empty for the digest alone.
  StateCodec(const policy::PolicySpec& spec, const std::string& key);

  // `state` must hold h and c of the specification's L and H.
  std::string Encode(const HeldState& state) const;

  // Errors, naming row `row`: BAD_STATE for bytes that are damaged, of another
  // format, not signed as this server signs, or not finite; SPEC_MISMATCH for
  // a state of another policy.
  absl::StatusOr<HeldState> Decode(const std::string& bytes, int64_t row) const;

 private:
  // 32 bytes.
  std::string Tag(const char* data, size_t size) const;

  const std::string spec_digest_;  // 32 bytes.
  const int64_t layers_;
  const int64_t hidden_;
  const std::string key_;
};

// The key in a file: its bytes without white space at the ends.
// INVALID_ARGUMENT for fewer than 16 bytes, NOT_FOUND if it cannot be read.
absl::StatusOr<std::string> ReadStateKey(const std::string& path);

}  // namespace esper::server
#endif  // ESPER_SERVER_STATE_CODEC_H_
