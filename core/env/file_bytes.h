#ifndef ESPER_CORE_ENV_FILE_BYTES_H_
#define ESPER_CORE_ENV_FILE_BYTES_H_

#include <cstddef>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace esper::env {

// DATA_LOSS "path: what".
absl::Status CorruptFile(const std::string& path, const std::string& what);

// DATA_LOSS "path: at byte offset: what". For a compressed file the offset
// counts uncompressed bytes.
absl::Status CorruptFileAt(const std::string& path, size_t offset,
                           const std::string& what);

struct ReadOptions {
  bool allow_plain = true;             // Else only gzip files are read.
  size_t max_bytes = size_t{1} << 30;  // Uncompressed.
};

// The content of a plain or gzip file, uncompressed.
// Errors: NOT_FOUND if it cannot be opened or is a folder; DATA_LOSS naming the
// file and the byte of the content for a gzip file that breaks off or fails
// its checksum, a plain one where gzip is asked for, or one that is too long.
absl::StatusOr<std::string> ReadFileBytes(const std::string& path,
                                          const ReadOptions& options = {});

// The file `name` in `folder`, or else `name`.gz. NOT_FOUND naming both.
absl::StatusOr<std::string> FindPlainOrGzip(const std::string& folder,
                                            const std::string& name);

}  // namespace esper::env
#endif  // ESPER_CORE_ENV_FILE_BYTES_H_
