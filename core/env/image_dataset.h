#ifndef ESPER_CORE_ENV_IMAGE_DATASET_H_
#define ESPER_CORE_ENV_IMAGE_DATASET_H_

#include <cstdint>
#include <vector>

#include "core/env/dataset.h"
#include "core/env/image_set.h"
#include "core/env/raw_images.h"

namespace esper::env {

// Images that are used as they are stored, float32.
class PlainImageDataset : public Dataset {
 public:
  explicit PlainImageDataset(ImageSet images) : images_(std::move(images)) {}

  int64_t size() const override { return images_.size(); }
  Batch Get(c10::IntArrayRef rows) const override;

 private:
  const ImageSet images_;
};

// Images stored as bytes, normalised and perhaps augmented when they are asked
// for: a quarter of the memory.
class ByteImageDataset : public Dataset {
 public:
  struct Options {
    // By channel, of pixels scaled to [0, 1]: (pixel / 255 - mean) / deviation.
    std::vector<double> means;
    std::vector<double> deviations;  // > 0.
    // Training: cut out of the image with so many zero pixels put around it
    // before normalisation, at a uniform place; 0 = off.
    int padding = 0;
    bool flip = false;  // Training: mirrored left to right half of the time.
  };

  // `images`: uint8, as many channels as `means` and `deviations`.
  ByteImageDataset(ImageSet images, const Options& options);

  int64_t size() const override { return images_.size(); }
  Batch Get(c10::IntArrayRef rows) const override;
  Batch GetForTraining(c10::IntArrayRef rows, uint64_t key) const override;

 private:
  // Where one sample is cut out. `top` and `left` are in -padding..padding.
  struct View {
    int64_t top = 0;
    int64_t left = 0;
    bool flip = false;
  };

  Batch Make(c10::IntArrayRef rows, const std::vector<View>& views) const;
  void Cut(int64_t row, const View& view, float* out) const;

  const ImageSet images_;
  const Options options_;
  std::vector<float> normalised_;  // [channel * 256 + byte].
};

// Copies file content: uint8 images, int64 labels.
ImageSet ToImageSet(const RawImages& raw);

}  // namespace esper::env
#endif  // ESPER_CORE_ENV_IMAGE_DATASET_H_
