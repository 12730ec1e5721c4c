#include "core/policy/packed_sampler.h"

#include <algorithm>
#include <cmath>

#include "ATen/ops/from_blob.h"
#include "core/error.h"
#include "core/policy/diagonal_gaussian.h"
#include "core/policy/input_checks.h"
#include "core/policy/masked_categorical.h"
#include "core/policy/packed_floor.h"

namespace esper::policy {
namespace {

constexpr float kHalfLogTwoPi = 0.9189385332046727f;
// A single allowed entry above this has all the probability: entries that are
// not allowed lie at kMaskedLogit.
constexpr float kDominant = static_cast<float>(kMaskedLogit) + 1000.0f;

template <typename T>
void Grow(std::vector<T>* x, int64_t size) {
  if (static_cast<int64_t>(x->size()) < size) x->resize(size);
}

bool AllFinite(const float* x, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    if (!std::isfinite(x[i])) return false;
  }
  return true;
}

// A view that is only read.
at::Tensor View(const float* x, at::IntArrayRef sizes) {
  return at::from_blob(const_cast<float*>(x), sizes, at::kFloat);
}

int64_t FirstLargest(const float* x, int64_t size) {
  return std::max_element(x, x + size) - x;
}

}  // namespace

PackedSampler::PackedSampler(const PolicySpec& spec, const HeadLayout& layout)
    : spec_(spec), layout_(layout) {
  for (const int64_t k : layout.sampling_order()) {
    if (layout.is_gaussian(k)) continue;
    categorical_.push_back(k);
    widest_ = std::max(widest_, layout.size(k));
  }
  for (const int64_t k : layout.gaussian_heads()) {
    widest_ = std::max(widest_, layout.dimensions(k));
  }
}

void PackedSampler::CheckRows(const ChoiceInputs& inputs) const {
  const int64_t width = layout_.width();
  if (inputs.masks != nullptr) {
    for (const int64_t k : categorical_) {
      if (layout_.driver(k) >= 0) continue;
      for (int64_t row = 0; row < inputs.rows; ++row) {
        const bool* mask = inputs.masks + row * width + layout_.offset(k);
        if (std::none_of(mask, mask + layout_.size(k),
                         [](bool allowed) { return allowed; })) {
          throw EmptyMaskError(spec_.heads[k].name, row);
        }
      }
    }
  }
  if (!AllFinite(inputs.logits, inputs.rows * width)) {
    CheckLogits(spec_, layout_, View(inputs.logits, {inputs.rows, width}));
  }
  const int64_t dimensions = layout_.continuous_width();
  if (!AllFinite(inputs.means, inputs.rows * dimensions) ||
      !AllFinite(inputs.log_std, dimensions)) {
    CheckGaussian(spec_, layout_, View(inputs.means, {inputs.rows, dimensions}),
                  View(inputs.log_std, {dimensions}));
  }
}

bool PackedSampler::Matters(int64_t k, const int64_t* actions) const {
  const int64_t driver = layout_.driver(k);
  return driver < 0 || layout_.Relevant(k, actions[driver]);
}

int64_t PackedSampler::MaskInForce(const ChoiceInputs& inputs, int64_t row,
                                   int64_t k, const int64_t* actions,
                                   uint8_t* allowed) const {
  const int64_t size = layout_.size(k);
  const bool* mask = nullptr;
  if (k == layout_.conditional_head() && inputs.conditional != nullptr) {
    const int64_t driver = layout_.driver(k);
    mask = inputs.conditional +
           (row * layout_.size(driver) + actions[driver]) * size;
  } else if (inputs.masks != nullptr) {
    mask = inputs.masks + row * layout_.width() + layout_.offset(k);
  }
  if (!Matters(k, actions)) {
    int64_t held = layout_.placeholder(k);
    if (held < 0) {
      held = 0;
      while (mask != nullptr && held < size && !mask[held]) ++held;
      if (held == size) held = 0;
    }
    std::fill_n(allowed, size, uint8_t{0});
    allowed[held] = 1;
    return 1;
  }
  if (mask == nullptr) {
    std::fill_n(allowed, size, uint8_t{1});
    return size;
  }
  int64_t count = 0;
  for (int64_t j = 0; j < size; ++j) {
    allowed[j] = mask[j] ? 1 : 0;
    count += allowed[j];
  }
  return count;
}

void PackedSampler::SampleCategorical(const ChoiceInputs& inputs,
                                      const FloorSettings& floors, int64_t row,
                                      int64_t k, Choices* choices) const {
  const int64_t size = layout_.size(k);
  const int64_t column = row * layout_.width() + layout_.offset(k);
  const int64_t out = row * layout_.num_heads() + k;
  uint8_t* allowed = choices->allowed.data();
  float* z = choices->scratch.data();
  float* p = z + widest_;
  float* noise = p + widest_;

  const int64_t count =
      MaskInForce(inputs, row, k,
                  choices->actions.data() + row * layout_.num_heads(), allowed);
  if (count == 0) throw EmptyMaskError(spec_.heads[k].name, row);
  for (int64_t j = 0; j < size; ++j) {
    z[j] = allowed[j] ? inputs.logits[column + j]
                      : static_cast<float>(kMaskedLogit);
  }
  if (k == inputs.reported_head) {
    std::copy_n(z, size, choices->reported.data() + row * size);
  }
  if (count == 1) {
    const int64_t only = std::find(allowed, allowed + size, 1) - allowed;
    if (z[only] > kDominant) {
      choices->actions[out] = only;
      choices->log_probs[out] = 0;
      choices->entropies[out] = 0;
      return;
    }
  }
  if (floors.mode != FloorMode::kNone && floors.floors[k] > 0) {
    FlooredHead head;
    head.mode = floors.mode;
    head.floor = static_cast<float>(floors.floors[k]);
    head.allowed = allowed;
    head.size = size;
    head.count = count;
    head.p = p;
    head.under = allowed + widest_;
    head.Apply(z);
  }
  const float log_sum = Softmax(z, size, p);

  int64_t chosen = 0;
  if (inputs.keys != nullptr && !inputs.keys[row].deterministic) {
    CounterNoise(inputs.keys[row], static_cast<uint32_t>(k), size, noise);
    for (int64_t j = 0; j < size; ++j) noise[j] = p[j] / noise[j];
    chosen = FirstLargest(noise, size);
  } else if (inputs.exponential != nullptr) {
    for (int64_t j = 0; j < size; ++j) {
      noise[j] = p[j] / inputs.exponential[column + j];
    }
    chosen = FirstLargest(noise, size);
  } else {
    chosen = FirstLargest(z, size);
  }
  choices->actions[out] = chosen;
  choices->log_probs[out] = z[chosen] - log_sum;
  float entropy = 0;
  if (count > 1) {
    for (int64_t j = 0; j < size; ++j) {
      if (allowed[j] && p[j] > 0) entropy -= p[j] * (z[j] - log_sum);
    }
    entropy /= std::log(static_cast<float>(count));
  }
  choices->entropies[out] = entropy;
}

void PackedSampler::SampleGaussian(const ChoiceInputs& inputs, int64_t row,
                                   int64_t k, Choices* choices) const {
  const int64_t dimensions = layout_.dimensions(k);
  const int64_t offset = layout_.continuous_offset(k);
  const int64_t column = row * layout_.continuous_width() + offset;
  const int64_t out = row * layout_.num_heads() + k;
  float* values = choices->continuous.data() + column;
  choices->actions[out] = 0;
  choices->log_probs[out] = 0;
  choices->entropies[out] = 0;
  if (!Matters(k, choices->actions.data() + row * layout_.num_heads())) {
    std::fill_n(values, dimensions, 0.0f);
    return;
  }
  float* noise = choices->scratch.data();
  if (inputs.keys != nullptr) {
    CounterNormals(inputs.keys[row], static_cast<uint32_t>(k), dimensions,
                   noise);
  } else if (inputs.normal != nullptr) {
    std::copy_n(inputs.normal + column, dimensions, noise);
  } else {
    std::fill_n(noise, dimensions, 0.0f);
  }
  float log_prob = 0;
  float entropy = 0;
  for (int64_t j = 0; j < dimensions; ++j) {
    const float limit = static_cast<float>(kLogStdLimit);
    const float log_std =
        std::min(std::max(inputs.log_std[offset + j], -limit), limit);
    const float mean = inputs.means[column + j];
    values[j] = mean + std::exp(log_std) * noise[j];
    const float distance = (values[j] - mean) * std::exp(-log_std);
    log_prob += distance * distance * -0.5f - log_std - kHalfLogTwoPi;
    entropy += log_std + (0.5f + kHalfLogTwoPi);
  }
  choices->log_probs[out] = log_prob;
  choices->entropies[out] = entropy;
}

void PackedSampler::Sample(const ChoiceInputs& inputs,
                           const FloorSettings& floors,
                           Choices* choices) const {
  CheckRows(inputs);
  const int64_t heads = layout_.num_heads();
  Grow(&choices->actions, inputs.rows * heads);
  Grow(&choices->log_probs, inputs.rows * heads);
  Grow(&choices->entropies, inputs.rows * heads);
  Grow(&choices->continuous, inputs.rows * layout_.continuous_width());
  if (inputs.reported_head >= 0) {
    Grow(&choices->reported, inputs.rows * layout_.size(inputs.reported_head));
  }
  Grow(&choices->scratch, 3 * widest_);
  Grow(&choices->allowed, 2 * widest_);
  for (int64_t row = 0; row < inputs.rows; ++row) {
    for (const int64_t k : categorical_) {
      SampleCategorical(inputs, floors, row, k, choices);
    }
    for (const int64_t k : layout_.gaussian_heads()) {
      SampleGaussian(inputs, row, k, choices);
    }
  }
}

}  // namespace esper::policy
