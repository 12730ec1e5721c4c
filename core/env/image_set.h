#ifndef ESPER_CORE_ENV_IMAGE_SET_H_
#define ESPER_CORE_ENV_IMAGE_SET_H_

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "absl/status/statusor.h"

namespace esper::env {

// Labelled images of one split. Copies share storage; nobody writes to it.
struct ImageSet {
  // [N, C, H, W], host, contiguous; float32 in [0, 1], or uint8.
  at::Tensor images;
  at::Tensor labels;  // int64 [N], host, in [0, classes).

  int64_t size() const;
};

// Where each image of a data set goes. The three parts are disjoint and cover
// the data set.
struct ImageSplits {
  ImageSet train;   // The host trains on it.
  ImageSet reward;  // Held out of the training split; makes rewards.
  ImageSet test;    // For reports only, never for reward or observation.
};

// Parameters of SplitStratified.
struct SplitOptions {
  // Of the whole set, in [0, 1); 0 where the test split is a file of its own.
  double test_fraction = 0.2;
  double reward_fraction = 0.1;  // Of what is not test, in (0, 1).
  // Of the split alone, so that every episode of every run has the same one.
  uint64_t seed = 20240617;
};

// Splits each class by itself, so that every part has nearly the same share of
// each class. A pure function of its arguments. The order inside each part is
// shuffled, so that any prefix of it is a fair sample.
// INVALID_ARGUMENT if a fraction is out of range or a part would be empty (but
// for the test split, with a fraction of 0).
absl::StatusOr<ImageSplits> SplitStratified(const ImageSet& images,
                                            const SplitOptions& options);

}  // namespace esper::env
#endif  // ESPER_CORE_ENV_IMAGE_SET_H_
