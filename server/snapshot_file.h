#ifndef ESPER_SERVER_SNAPSHOT_FILE_H_
#define ESPER_SERVER_SNAPSHOT_FILE_H_

#include <string>

#include "absl/status/statusor.h"
#include "core/policy/inference_precision.h"
#include "core/policy/policy_spec.h"
#include "core/ppo/learner.h"

// A published version as one safetensors file, the way followers get it: the
// file of core/policy/policy_io.h, which other programs read as well, with the
// metadata entry `acting` for the rest of what acting needs. Equal versions
// make equal bytes.
namespace esper::server {

struct SnapshotFile {
  policy::PolicySpec spec;
  ppo::PolicySnapshot snapshot;
  policy::InferencePrecision precision = policy::InferencePrecision::kFp32;
};

// INVALID_ARGUMENT if the weights cannot be written (never those of a version
// that acts).
absl::StatusOr<std::string> EncodeSnapshot(
    const policy::PolicySpec& spec, const ppo::PolicySnapshot& snapshot,
    policy::InferencePrecision precision);

// Nothing in `bytes` is trusted. `source` names them in errors. DATA_LOSS
// (CORRUPT_CHECKPOINT) for a file that is not sound, DATA_LOSS
// (CORRUPT_VERSION) for metadata that are not, and the errors of
// `policy::ImportPolicy`.
absl::StatusOr<SnapshotFile> DecodeSnapshot(const std::string& bytes,
                                            const std::string& source);

}  // namespace esper::server
#endif  // ESPER_SERVER_SNAPSHOT_FILE_H_
