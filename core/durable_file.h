#ifndef ESPER_CORE_DURABLE_FILE_H_
#define ESPER_CORE_DURABLE_FILE_H_

#include <string>

#include "absl/status/status.h"

// Files that are still there, and whole, after the machine lost its power.
// Errors are INTERNAL and name the path, what failed and the system's words.
namespace esper {

// Writes a file and flushes it to the disk; what was there is gone at once.
absl::Status WriteAndFlush(const std::string& path, const std::string& bytes);

// Flushes which files a folder has.
absl::Status FlushFolder(const std::string& path);

// Writes a file in one step: at any moment, the old content is there or the new
// one. Its folder must exist. Two calls for one path must not overlap.
absl::Status ReplaceFile(const std::string& path, const std::string& bytes);

}  // namespace esper
#endif  // ESPER_CORE_DURABLE_FILE_H_
