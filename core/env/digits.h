#ifndef ESPER_CORE_ENV_DIGITS_H_
#define ESPER_CORE_ENV_DIGITS_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace esper::env {

// Labelled images of one split. Copies share storage; nobody writes to it.
struct ImageSet {
  at::Tensor images;  // float32 [N, C, H, W], host, contiguous, in [0, 1].
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
  double test_fraction = 0.2;    // Of the whole set, in (0, 1).
  double reward_fraction = 0.1;  // Of what is not test, in (0, 1).
  // Of the split alone, so that every episode of every run has the same one.
  uint64_t seed = 20240617;
};

// Reads the handwritten digits: a gzip file of CSV lines, each 64 grey values
// in 0..16 (8 rows of 8) and a label in 0..9. Images are [N, 1, 8, 8], scaled
// to [0, 1].
// Errors: NOT_FOUND if the file is missing; DATA_LOSS naming the file and the
// line, or the byte of the uncompressed text, for one that is truncated,
// corrupt or holds anything else.
absl::StatusOr<ImageSet> LoadDigits(const std::string& path);

// Splits each class by itself, so that every part has nearly the same share of
// each class. A pure function of its arguments. The order inside each part is
// shuffled, so that any prefix of it is a fair sample.
// INVALID_ARGUMENT if a fraction is out of range or a part would be empty.
absl::StatusOr<ImageSplits> SplitStratified(const ImageSet& images,
                                            const SplitOptions& options);

}  // namespace esper::env
#endif  // ESPER_CORE_ENV_DIGITS_H_
