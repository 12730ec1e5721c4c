#ifndef ESPER_PROTO_RECORDING_RECORDING_FILE_H_
#define ESPER_PROTO_RECORDING_RECORDING_FILE_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "esper/v1/trajectory.pb.h"

// Recordings as safetensors files, without a tensor library, so that thin
// clients read them too.
//
// The tensors of esper.v1.Trajectory stand under their field names
// ("observations", "behaviour.log_probs", ...). The metadata holds
//   format      "esper.recording.v1";
//   info        RecordingInfo as protobuf's JSON;
//   trajectory  the Trajectory without its tensors, alike;
//   crc32       of all tensor data, in hexadecimal digits.
//
// Files are not trusted: every number is checked before it is used. Errors are
// DATA_LOSS, naming the file and what is wrong, or NOT_FOUND.
namespace esper::recording {

// The file as bytes.
std::string SerializeRecording(const v1::Recording& recording);

// `source` names the bytes in errors.
absl::StatusOr<v1::Recording> ParseRecording(const std::string& bytes,
                                             const std::string& source);

absl::StatusOr<v1::Recording> ReadRecording(const std::string& path);

// What the file says of its recording; reads the header alone. A file whose
// length is not the one that the header tells is DATA_LOSS.
absl::StatusOr<v1::RecordingInfo> ReadRecordingInfo(const std::string& path);

}  // namespace esper::recording
#endif  // ESPER_PROTO_RECORDING_RECORDING_FILE_H_
