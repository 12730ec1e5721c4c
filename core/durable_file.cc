#include "core/durable_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include "absl/strings/str_cat.h"

namespace esper {
namespace {

absl::Status SystemError(const char* what, const std::string& path) {
  return absl::InternalError(absl::StrCat("Cannot ", what, " ", path, ": ",
                                          std::strerror(errno), "."));
}

}  // namespace

absl::Status WriteAndFlush(const std::string& path, const std::string& bytes) {
  const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644);
  if (fd < 0) return SystemError("create", path);
  size_t written = 0;
  while (written < bytes.size()) {
    const ssize_t n = write(fd, bytes.data() + written, bytes.size() - written);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) {
      const absl::Status status = SystemError("write", path);
      close(fd);
      return status;
    }
    written += static_cast<size_t>(n);
  }
  if (fsync(fd) != 0) {
    const absl::Status status = SystemError("flush", path);
    close(fd);
    return status;
  }
  if (close(fd) != 0) return SystemError("close", path);
  return absl::OkStatus();
}

absl::Status FlushFolder(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_DIRECTORY);
  if (fd < 0) return SystemError("open", path);
  const absl::Status status =
      fsync(fd) == 0 ? absl::OkStatus() : SystemError("flush", path);
  close(fd);
  return status;
}

absl::Status ReplaceFile(const std::string& path, const std::string& bytes) {
  const std::string partial = absl::StrCat(path, ".partial.", getpid());
  absl::Status status = WriteAndFlush(partial, bytes);
  if (status.ok() && std::rename(partial.c_str(), path.c_str()) != 0) {
    status = SystemError("rename to", path);
  }
  if (!status.ok()) {
    unlink(partial.c_str());
    return status;
  }
  const std::string folder = std::filesystem::path(path).parent_path().string();
  return FlushFolder(folder.empty() ? "." : folder);
}

}  // namespace esper
