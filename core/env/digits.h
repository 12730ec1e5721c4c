#ifndef ESPER_CORE_ENV_DIGITS_H_
#define ESPER_CORE_ENV_DIGITS_H_

#include <string>

#include "absl/status/statusor.h"
#include "core/env/image_set.h"

namespace esper::env {

// Reads the handwritten digits: a gzip file of CSV lines, each 64 grey values
// in 0..16 (8 rows of 8) and a label in 0..9. Images are [N, 1, 8, 8], scaled
// to [0, 1].
// Errors: NOT_FOUND if the file is missing; DATA_LOSS naming the file and the
// line, or the byte of the uncompressed text, for one that is truncated,
// corrupt or holds anything else.
absl::StatusOr<ImageSet> LoadDigits(const std::string& path);

}  // namespace esper::env
#endif  // ESPER_CORE_ENV_DIGITS_H_
