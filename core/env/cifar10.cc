#include "core/env/cifar10.h"

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "core/env/file_bytes.h"
#include "spdlog/spdlog.h"

namespace esper::env {
namespace {

namespace fs = std::filesystem;

constexpr size_t kImageBytes = 3 * 32 * 32;
constexpr size_t kRecordBytes = 1 + kImageBytes;
constexpr int kClasses = 10;
constexpr int kPublishedTrainFiles = 5;
constexpr int64_t kPublishedTrainImages = 50000;
constexpr int64_t kPublishedTestImages = 10000;

RawImages Empty() {
  RawImages images;
  images.channels = 3;
  images.height = 32;
  images.width = 32;
  return images;
}

// Appends a file's records. `*expected_bytes` is the length that it must have;
// 0 = any, and is then set.
absl::Status Append(const std::string& path, size_t* expected_bytes,
                    RawImages* images) {
  absl::StatusOr<std::string> bytes = ReadFileBytes(path);
  if (!bytes.ok()) return bytes.status();
  const size_t size = bytes->size();
  if (size == 0) return CorruptFileAt(path, 0, "the file is empty");
  if (const size_t rest = size % kRecordBytes; rest != 0) {
    return CorruptFileAt(
        path, size,
        absl::StrCat("record ", size / kRecordBytes + 1, " breaks off after ",
                     rest, " of ", kRecordBytes, " bytes"));
  }
  if (*expected_bytes == 0) *expected_bytes = size;
  if (size != *expected_bytes) {
    return CorruptFileAt(
        path, std::min(size, *expected_bytes),
        absl::StrCat("it has ", size / kRecordBytes, " records, but ",
                     "data_batch_1 has ", *expected_bytes / kRecordBytes));
  }
  for (size_t at = 0; at < size; at += kRecordBytes) {
    const uint8_t label = (*bytes)[at];
    if (label >= kClasses) {
      return CorruptFileAt(
          path, at,
          absl::StrCat("label ", label, " of record ", at / kRecordBytes + 1,
                       " is above ", kClasses - 1));
    }
    images->labels.push_back(label);
    const auto first = bytes->begin() + at + 1;
    images->pixels.insert(images->pixels.end(), first, first + kImageBytes);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<RawImageFiles> LoadCifar10(const std::string& folder) {
  fs::path root = folder;
  std::error_code ignored;
  if (fs::is_directory(root / "cifar-10-batches-bin", ignored)) {
    root /= "cifar-10-batches-bin";
  }
  RawImageFiles files = {Empty(), Empty()};
  size_t train_bytes = 0;
  int number = 1;
  for (;; ++number) {
    const auto path = FindPlainOrGzip(
        root.string(), absl::StrCat("data_batch_", number, ".bin"));
    if (!path.ok() && number == 1) return path.status();
    if (!path.ok()) break;
    absl::Status status = Append(*path, &train_bytes, &files.train);
    if (!status.ok()) return status;
  }
  // A file behind a gap was meant to be read.
  for (int later = number + 1; later <= kPublishedTrainFiles; ++later) {
    const std::string name = absl::StrCat("data_batch_", later, ".bin");
    if (FindPlainOrGzip(root.string(), name).ok()) {
      return absl::NotFoundError(
          absl::StrCat((root / "data_batch_").string(), number,
                       ".bin: not found, but there is ", name));
    }
  }
  const auto test = FindPlainOrGzip(root.string(), "test_batch.bin");
  if (!test.ok()) return test.status();
  size_t any_length = 0;
  absl::Status status = Append(*test, &any_length, &files.test);
  if (!status.ok()) return status;
  if (files.train.size() != kPublishedTrainImages ||
      files.test.size() != kPublishedTestImages) {
    spdlog::warn(
        "{}: {} training and {} test images, where CIFAR-10 has {} "
        "and {}",
        root.string(), files.train.size(), files.test.size(),
        kPublishedTrainImages, kPublishedTestImages);
  }
  return files;
}

}  // namespace esper::env
