#ifndef ESPER_CORE_TENSOR_SAFETENSORS_H_
#define ESPER_CORE_TENSOR_SAFETENSORS_H_

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"

// The safetensors format: an 8-byte little-endian header length, a JSON header
// with dtype, shape and byte range of each tensor and free text metadata, then
// the raw little-endian data. Nothing in a file is trusted: every number is
// checked before it is used, and no allocation is larger than the file.
namespace esper::tensor {

using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;

struct Safetensors {
  // In the order of their data. Host, contiguous, without gradient.
  NamedTensors tensors;
  std::map<std::string, std::string> metadata;

  // Null if there is no such tensor.
  const at::Tensor* Find(const std::string& name) const;
  // Null if there is no such entry.
  const std::string* FindMetadata(const std::string& key) const;
};

struct SafetensorsLimits {
  int64_t max_header_bytes = 1 << 20;         // JSON header.
  int64_t max_file_bytes = int64_t{1} << 34;  // Whole file.
  int64_t max_dimensions = 16;                // Per tensor.
};

// Parses a whole file held in memory; the tensors are copies. `source` names it
// in errors. DATA_LOSS (CORRUPT_CHECKPOINT), naming source, tensor and byte
// offset: truncated or oversized header, bad JSON, unknown dtype, shape whose
// product overflows or disagrees with its byte range, ranges that overlap,
// leave a gap or pass the end.
absl::StatusOr<Safetensors> ParseSafetensors(
    const std::string& bytes, const std::string& source,
    const SafetensorsLimits& limits = {});

// Reads and parses `path`. NOT_FOUND if there is no such file; otherwise as
// `ParseSafetensors`.
absl::StatusOr<Safetensors> ReadSafetensors(
    const std::string& path, const SafetensorsLimits& limits = {});

// The file as bytes. Tensors of any device and layout are written as host,
// contiguous data in the given order. INVALID_ARGUMENT for a name that is
// empty, repeated or "__metadata__", an undefined tensor, or a dtype without a
// safetensors name.
absl::StatusOr<std::string> SerializeSafetensors(
    const NamedTensors& tensors,
    const std::map<std::string, std::string>& metadata = {});

// Writes beside `path`, flushes to the disk, then renames: readers see the old
// file or the new one, never a part. INTERNAL with the system's words if the
// file cannot be written; a partial file is removed.
absl::Status WriteSafetensors(
    const std::string& path, const NamedTensors& tensors,
    const std::map<std::string, std::string>& metadata = {});

}  // namespace esper::tensor
#endif  // ESPER_CORE_TENSOR_SAFETENSORS_H_
