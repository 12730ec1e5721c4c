#ifndef ESPER_CORE_ENV_RAW_IMAGES_H_
#define ESPER_CORE_ENV_RAW_IMAGES_H_

#include <cstdint>
#include <vector>

namespace esper::env {

// Labelled images as files hold them.
struct RawImages {
  int64_t channels = 0;
  int64_t height = 0;
  int64_t width = 0;
  std::vector<uint8_t> pixels;  // [N, channels, height, width], row-major.
  std::vector<uint8_t> labels;  // [N], in [0, 10).

  int64_t size() const { return static_cast<int64_t>(labels.size()); }
};

// Both parts of a published data set.
struct RawImageFiles {
  RawImages train;
  RawImages test;
};

}  // namespace esper::env
#endif  // ESPER_CORE_ENV_RAW_IMAGES_H_
