#include "core/env/image_set.h"

#include <ATen/ops/index_select.h>
#include <ATen/ops/tensor.h>

#include <cmath>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "core/env/data.h"

namespace esper::env {
namespace {

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

absl::StatusOr<ImageSplits> SplitStratified(const ImageSet& images,
                                            const SplitOptions& options) {
  const double test_fraction = options.test_fraction;
  if (!(test_fraction >= 0) || !(test_fraction < 1)) {
    return absl::InvalidArgumentError(
        absl::StrCat("test fraction ", test_fraction, " is not in [0, 1)"));
  }
  const double reward_fraction = options.reward_fraction;
  if (!(reward_fraction > 0) || !(reward_fraction < 1)) {
    return absl::InvalidArgumentError(
        absl::StrCat("reward fraction ", reward_fraction, " is not in (0, 1)"));
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
    const int64_t n_test = std::llround(test_fraction * n);
    const int64_t n_reward = std::llround(reward_fraction * (n - n_test));
    test.insert(test.end(), rows.begin(), rows.begin() + n_test);
    reward.insert(reward.end(), rows.begin() + n_test,
                  rows.begin() + n_test + n_reward);
    train.insert(train.end(), rows.begin() + n_test + n_reward, rows.end());
  }
  if (train.empty() || reward.empty() || (test.empty() && test_fraction > 0)) {
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
