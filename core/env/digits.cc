#include "core/env/digits.h"

#include <ATen/ops/from_blob.h>

#include <algorithm>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "core/env/file_bytes.h"

namespace esper::env {
namespace {

constexpr int kSide = 8;
constexpr int kPixels = kSide * kSide;
constexpr int kMaxGrey = 16;
constexpr int kClasses = 10;
// The real text has 0.25 MiB; anything far beyond it is not this data set.
constexpr size_t kMaxTextBytes = size_t{16} << 20;

// Appends the numbers of one line to `pixels` and `labels`; returns what is
// wrong with it, or an empty string.
std::string ParseLine(const char* begin, const char* end,
                      std::vector<float>* pixels,
                      std::vector<int64_t>* labels) {
  const char* at = begin;
  for (int field = 0; field <= kPixels; ++field) {
    if (field > 0) {
      if (at == end || *at != ',') {
        return absl::StrCat("expected ',' before value ", field + 1, " of ",
                            kPixels + 1);
      }
      ++at;
    }
    int value = 0;
    const char* const first = at;
    while (at != end && *at >= '0' && *at <= '9' && at - first < 3) {
      value = value * 10 + (*at++ - '0');
    }
    const int limit = field < kPixels ? kMaxGrey : kClasses - 1;
    if (at == first || value > limit) {
      return absl::StrCat("value ", field + 1, " is not a number in 0..",
                          limit);
    }
    if (field < kPixels) {
      pixels->push_back(static_cast<float>(value) / kMaxGrey);
    } else {
      labels->push_back(value);
    }
  }
  if (at != end) return "more values than expected";
  return "";
}

}  // namespace

absl::StatusOr<ImageSet> LoadDigits(const std::string& path) {
  ReadOptions options;
  options.allow_plain = false;
  options.max_bytes = kMaxTextBytes;
  absl::StatusOr<std::string> text = ReadFileBytes(path, options);
  if (absl::IsNotFound(text.status())) {
    return absl::NotFoundError(
        absl::StrCat(std::string(text.status().message()),
                     "; deploy/fetch_digits.py fetches the data set"));
  }
  if (!text.ok()) return text.status();

  std::vector<float> pixels;
  std::vector<int64_t> labels;
  const char* at = text->data();
  const char* const end = at + text->size();
  for (int64_t line = 1; at != end; ++line) {
    const char* stop = std::find(at, end, '\n');
    if (stop == end) {
      return CorruptFile(path, absl::StrCat("line ", line, " has no end"));
    }
    const std::string wrong = ParseLine(at, stop, &pixels, &labels);
    if (!wrong.empty()) {
      return CorruptFile(path, absl::StrCat("line ", line, ": ", wrong));
    }
    at = stop + 1;
  }
  if (labels.empty())
    return CorruptFile(path, "no images, at byte 0 of the text");

  const int64_t count = labels.size();
  ImageSet set;
  set.images =
      at::from_blob(pixels.data(), {count, 1, kSide, kSide}, at::kFloat)
          .clone();
  set.labels = at::from_blob(labels.data(), {count}, at::kLong).clone();
  return set;
}

}  // namespace esper::env
