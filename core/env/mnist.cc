#include "core/env/mnist.h"

#include <array>
#include <cstdint>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/env/file_bytes.h"

namespace esper::env {
namespace {

constexpr uint32_t kImageMagic = 2051;  // Unsigned bytes, three axes.
constexpr uint32_t kLabelMagic = 2049;  // Unsigned bytes, one axis.
constexpr uint32_t kMaxImages = 10'000'000;
constexpr uint32_t kMinSide = 8;
constexpr uint32_t kMaxSide = 512;
constexpr int kClasses = 10;

// An IDX file of unsigned bytes.
struct Idx {
  std::string path;
  std::vector<uint32_t> extents;
  std::string bytes;  // Header included.
  size_t data = 0;    // Where the header ends.
};

uint32_t BigEndian(const std::string& bytes, size_t at) {
  uint32_t value = 0;
  for (size_t i = 0; i < 4; ++i) {
    value = value << 8 | static_cast<uint8_t>(bytes[at + i]);
  }
  return value;
}

// `limits`: least and greatest extent of every axis.
absl::StatusOr<Idx> ReadIdx(
    const std::string& folder, const std::string& name, uint32_t magic,
    const std::vector<std::pair<uint32_t, uint32_t>>& limits) {
  auto path = FindPlainOrGzip(folder, name);
  if (!path.ok()) return path.status();
  auto bytes = ReadFileBytes(*path);
  if (!bytes.ok()) return bytes.status();
  Idx idx;
  idx.path = *path;
  idx.bytes = *std::move(bytes);
  idx.data = 4 * (1 + limits.size());
  const size_t size = idx.bytes.size();
  if (size >= 4 && BigEndian(idx.bytes, 0) != magic) {
    return CorruptFileAt(idx.path, 0,
                         absl::StrCat("magic number ", BigEndian(idx.bytes, 0),
                                      ", expected ", magic));
  }
  if (size < idx.data) {
    return CorruptFileAt(
        idx.path, size,
        absl::StrCat("the header of ", idx.data, " bytes breaks off"));
  }
  uint64_t count = 1;
  for (size_t axis = 0; axis < limits.size(); ++axis) {
    const size_t at = 4 * (1 + axis);
    const uint32_t extent = BigEndian(idx.bytes, at);
    if (extent < limits[axis].first || extent > limits[axis].second) {
      return CorruptFileAt(
          idx.path, at,
          absl::StrCat("extent ", extent, " of axis ", axis, " is not in ",
                       limits[axis].first, "..", limits[axis].second));
    }
    idx.extents.push_back(extent);
    count *= extent;  // At most 10^7 * 2^18: no overflow.
  }
  if (size - idx.data < count) {
    return CorruptFileAt(
        idx.path, size,
        absl::StrCat("the data breaks off after ", size - idx.data, " of ",
                     count, " bytes"));
  }
  if (size - idx.data > count) {
    return CorruptFileAt(
        idx.path, idx.data + count,
        absl::StrCat(size - idx.data - count, " bytes too many"));
  }
  return idx;
}

absl::StatusOr<RawImages> ReadPart(const std::string& folder,
                                   const std::string& prefix) {
  const std::pair<uint32_t, uint32_t> count = {1, kMaxImages};
  const std::pair<uint32_t, uint32_t> side = {kMinSide, kMaxSide};
  auto images = ReadIdx(folder, prefix + "-images-idx3-ubyte", kImageMagic,
                        {count, side, side});
  if (!images.ok()) return images.status();
  auto labels =
      ReadIdx(folder, prefix + "-labels-idx1-ubyte", kLabelMagic, {count});
  if (!labels.ok()) return labels.status();
  if (labels->extents[0] != images->extents[0]) {
    return CorruptFileAt(
        labels->path, 4,
        absl::StrCat(labels->extents[0], " labels for the ", images->extents[0],
                     " images of ", images->path));
  }
  RawImages part;
  part.channels = 1;
  part.height = images->extents[1];
  part.width = images->extents[2];
  part.labels.assign(labels->bytes.begin() + labels->data, labels->bytes.end());
  for (size_t i = 0; i < part.labels.size(); ++i) {
    if (part.labels[i] >= kClasses) {
      return CorruptFileAt(
          labels->path, labels->data + i,
          absl::StrCat("label ", part.labels[i], " is above ", kClasses - 1));
    }
  }
  part.pixels.assign(images->bytes.begin() + images->data, images->bytes.end());
  return part;
}

}  // namespace

absl::StatusOr<RawImageFiles> LoadMnist(const std::string& folder) {
  RawImageFiles files;
  for (auto& [prefix, part] :
       {std::pair<std::string, RawImages*>("train", &files.train),
        std::pair<std::string, RawImages*>("t10k", &files.test)}) {
    auto read = ReadPart(folder, prefix);
    if (!read.ok()) return read.status();
    *part = *std::move(read);
  }
  if (files.test.height != files.train.height ||
      files.test.width != files.train.width) {
    return CorruptFile(
        folder, absl::StrCat("test images of ", files.test.height, "x",
                             files.test.width, " for training images of ",
                             files.train.height, "x", files.train.width));
  }
  return files;
}

}  // namespace esper::env
