#include "core/env/image_dataset.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/tensor.h>

#include <algorithm>

#include "core/env/data.h"

namespace esper::env {
namespace {

constexpr int kByteValues = 256;

// High half of a 64-bit product: uniform over 0..count-1.
int64_t UniformBelow(uint32_t bits, int64_t count) {
  return static_cast<int64_t>((uint64_t{bits} * count) >> 32);
}

}  // namespace

Batch PlainImageDataset::Get(c10::IntArrayRef rows) const {
  const at::Tensor index = at::tensor(rows);
  return {at::index_select(images_.images, 0, index),
          at::index_select(images_.labels, 0, index)};
}

ByteImageDataset::ByteImageDataset(ImageSet images, const Options& options)
    : images_(std::move(images)), options_(options) {
  TORCH_CHECK(images_.images.scalar_type() == at::kByte &&
                  images_.images.is_contiguous(),
              "images must be contiguous uint8");
  const size_t channels = images_.images.size(1);
  TORCH_CHECK(
      options.means.size() == channels && options.deviations.size() == channels,
      "normalisation is not for ", channels, " channels");
  for (size_t c = 0; c < channels; ++c) {
    for (int byte = 0; byte < kByteValues; ++byte) {
      normalised_.push_back(static_cast<float>(
          (byte / 255.0 - options.means[c]) / options.deviations[c]));
    }
  }
}

Batch ByteImageDataset::Get(c10::IntArrayRef rows) const {
  return Make(rows, std::vector<View>(rows.size()));
}

Batch ByteImageDataset::GetForTraining(c10::IntArrayRef rows,
                                       uint64_t key) const {
  std::vector<View> views(rows.size());
  const int64_t places = 2 * options_.padding + 1;
  for (size_t i = 0; i < rows.size(); ++i) {
    // Two numbers for each sample: one places, the other flips.
    const uint64_t place = StreamBits(key, 2 * rows[i]);
    views[i].top = UniformBelow(place >> 32, places) - options_.padding;
    views[i].left = UniformBelow(place & 0xffffffff, places) - options_.padding;
    views[i].flip = options_.flip && StreamBits(key, 2 * rows[i] + 1) >> 63;
  }
  return Make(rows, views);
}

Batch ByteImageDataset::Make(c10::IntArrayRef rows,
                             const std::vector<View>& views) const {
  std::vector<int64_t> shape = images_.images.sizes().vec();
  shape[0] = static_cast<int64_t>(rows.size());
  const int64_t stride = images_.images[0].numel();
  Batch batch;
  batch.inputs = at::empty(shape, at::kFloat);
  float* out = batch.inputs.data_ptr<float>();
  for (size_t i = 0; i < rows.size(); ++i) {
    TORCH_CHECK(rows[i] >= 0 && rows[i] < size(), "no sample ", rows[i]);
    Cut(rows[i], views[i], out + i * stride);
  }
  batch.labels = at::index_select(images_.labels, 0, at::tensor(rows));
  return batch;
}

void ByteImageDataset::Cut(int64_t row, const View& view, float* out) const {
  const int64_t channels = images_.images.size(1);
  const int64_t height = images_.images.size(2);
  const int64_t width = images_.images.size(3);
  const uint8_t* in =
      images_.images.data_ptr<uint8_t>() + row * channels * height * width;
  for (int64_t c = 0; c < channels; ++c) {
    const float* value = &normalised_[c * kByteValues];
    for (int64_t y = 0; y < height; ++y) {
      const int64_t from_y = y + view.top;
      const bool inside = from_y >= 0 && from_y < height;
      for (int64_t x = 0; x < width; ++x) {
        const int64_t from_x = x + view.left;
        const int byte = inside && from_x >= 0 && from_x < width
                             ? in[(c * height + from_y) * width + from_x]
                             : 0;
        out[(c * height + y) * width + (view.flip ? width - 1 - x : x)] =
            value[byte];
      }
    }
  }
}

ImageSet ToImageSet(const RawImages& raw) {
  ImageSet set;
  const std::vector<int64_t> shape = {raw.size(), raw.channels, raw.height,
                                      raw.width};
  // from_blob wants a pointer to data that it could write, but is copied.
  set.images =
      at::from_blob(const_cast<uint8_t*>(raw.pixels.data()), shape, at::kByte)
          .clone();
  set.labels = at::from_blob(const_cast<uint8_t*>(raw.labels.data()),
                             {raw.size()}, at::kByte)
                   .to(at::kLong);
  return set;
}

}  // namespace esper::env
