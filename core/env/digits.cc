#include "core/env/digits.h"

#include <ATen/ops/from_blob.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/tensor.h>
#include <zlib.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "core/env/data.h"

namespace esper::env {
namespace {

constexpr int kSide = 8;
constexpr int kPixels = kSide * kSide;
constexpr int kMaxGrey = 16;
constexpr int kClasses = 10;
// The real text has 0.25 MiB; anything far beyond it is not this data set.
constexpr size_t kMaxTextBytes = size_t{16} << 20;

absl::Status Corrupt(const std::string& path, const std::string& what) {
  return absl::DataLossError(absl::StrCat(path, ": ", what));
}

struct CloseGzip {
  void operator()(gzFile_s* file) const { gzclose(file); }
};

absl::StatusOr<std::string> ReadGzip(const std::string& path) {
  const std::unique_ptr<gzFile_s, CloseGzip> file(gzopen(path.c_str(), "rb"));
  if (file == nullptr) {
    return absl::NotFoundError(absl::StrCat(
        path, ": cannot be opened; deploy/fetch_digits.py fetches it"));
  }
  std::string text;
  std::array<char, 1 << 16> chunk;
  while (true) {
    const int count = gzread(file.get(), chunk.data(), chunk.size());
    // A member that breaks off shows as a short read and Z_BUF_ERROR.
    int code = Z_OK;
    const char* message = gzerror(file.get(), &code);
    if (count < 0 || (code != Z_OK && code != Z_STREAM_END)) {
      return Corrupt(
          path, absl::StrCat("not a whole gzip file, at byte ", text.size(),
                             " of the text: ",
                             code == Z_BUF_ERROR ? "it breaks off" : message));
    }
    if (count == 0) break;
    text.append(chunk.data(), count);
    if (text.size() > kMaxTextBytes) {
      return Corrupt(path, "the uncompressed text is longer than 16 MiB");
    }
  }
  if (gzdirect(file.get())) return Corrupt(path, "not a gzip file, at byte 0");
  return text;
}

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

ImageSet Select(const ImageSet& images, const std::vector<int64_t>& rows) {
  const at::Tensor index = at::tensor(rows);
  return {at::index_select(images.images, 0, index),
          at::index_select(images.labels, 0, index)};
}

// Shuffles `rows` by a stream of its own.
std::vector<int64_t> Shuffled(const std::vector<int64_t>& rows, uint64_t seed,
                              int stream) {
  const std::vector<int64_t> order = EpochOrder(rows.size(), seed, stream);
  std::vector<int64_t> shuffled;
  shuffled.reserve(rows.size());
  for (int64_t i : order) shuffled.push_back(rows[i]);
  return shuffled;
}

}  // namespace

int64_t ImageSet::size() const { return labels.defined() ? labels.size(0) : 0; }

absl::StatusOr<ImageSet> LoadDigits(const std::string& path) {
  absl::StatusOr<std::string> text = ReadGzip(path);
  if (!text.ok()) return text.status();

  std::vector<float> pixels;
  std::vector<int64_t> labels;
  const char* at = text->data();
  const char* const end = at + text->size();
  for (int64_t line = 1; at != end; ++line) {
    const char* stop = std::find(at, end, '\n');
    if (stop == end) {
      return Corrupt(path, absl::StrCat("line ", line, " has no end"));
    }
    const std::string wrong = ParseLine(at, stop, &pixels, &labels);
    if (!wrong.empty()) {
      return Corrupt(path, absl::StrCat("line ", line, ": ", wrong));
    }
    at = stop + 1;
  }
  if (labels.empty()) return Corrupt(path, "no images, at byte 0 of the text");

  const int64_t count = labels.size();
  ImageSet set;
  set.images =
      at::from_blob(pixels.data(), {count, 1, kSide, kSide}, at::kFloat)
          .clone();
  set.labels = at::from_blob(labels.data(), {count}, at::kLong).clone();
  return set;
}

absl::StatusOr<ImageSplits> SplitStratified(const ImageSet& images,
                                            const SplitOptions& options) {
  for (double fraction : {options.test_fraction, options.reward_fraction}) {
    if (!(fraction > 0) || !(fraction < 1)) {
      return absl::InvalidArgumentError(
          absl::StrCat("split fraction ", fraction, " is not in (0, 1)"));
    }
  }
  const int64_t count = images.size();
  const int64_t* labels = images.labels.data_ptr<int64_t>();
  std::vector<std::vector<int64_t>> by_class;
  for (int64_t i = 0; i < count; ++i) {
    if (labels[i] >= static_cast<int64_t>(by_class.size())) {
      by_class.resize(labels[i] + 1);
    }
    by_class[labels[i]].push_back(i);
  }

  std::vector<int64_t> train, reward, test;
  int stream = 0;
  for (const std::vector<int64_t>& members : by_class) {
    const std::vector<int64_t> rows = Shuffled(members, options.seed, ++stream);
    const int64_t n = rows.size();
    const int64_t n_test = std::llround(options.test_fraction * n);
    const int64_t n_reward =
        std::llround(options.reward_fraction * (n - n_test));
    test.insert(test.end(), rows.begin(), rows.begin() + n_test);
    reward.insert(reward.end(), rows.begin() + n_test,
                  rows.begin() + n_test + n_reward);
    train.insert(train.end(), rows.begin() + n_test + n_reward, rows.end());
  }
  if (train.empty() || reward.empty() || test.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("splitting ", count, " images leaves a part without any"));
  }
  ImageSplits splits;
  splits.train = Select(images, Shuffled(train, options.seed, ++stream));
  splits.reward = Select(images, Shuffled(reward, options.seed, ++stream));
  splits.test = Select(images, Shuffled(test, options.seed, ++stream));
  return splits;
}

}  // namespace esper::env
