#include "core/policy/packed_floor.h"

#include <algorithm>
#include <cmath>

#include "core/policy/masked_categorical.h"

namespace esper::policy {
namespace {

// Keeps logarithms and quotients finite.
constexpr float kTiny = 1e-8f;
// exp of anything less is 0 in float32.
constexpr float kSmallestExponent = -104.0f;

}  // namespace

float Softmax(const float* x, int64_t size, float* p) {
  const float largest = *std::max_element(x, x + size);
  float sum = 0;
  for (int64_t j = 0; j < size; ++j) {
    const float d = x[j] - largest;
    p[j] = d < kSmallestExponent ? 0.0f : std::exp(d);
    sum += p[j];
  }
  for (int64_t j = 0; j < size; ++j) p[j] /= sum;
  return largest + std::log(sum);
}

float FlooredHead::Scale(float in_force) const {
  float need = 0;
  float mass = 0;
  for (int64_t j = 0; j < size; ++j) {
    if (!allowed[j]) continue;
    if (under[j]) {
      need += in_force;
    } else {
      mass += p[j];
    }
  }
  return std::max(1 - need, kTiny) / std::max(mass, kTiny);
}

void FlooredHead::Apply(float* z) {
  Softmax(z, size, p);
  const float n = static_cast<float>(count);
  const float in_force =
      std::min(floor, 1.0f / n * static_cast<float>(kFloorCap));
  if (mode == FloorMode::kMixture) {
    for (int64_t j = 0; j < size; ++j) {
      if (!allowed[j]) continue;
      z[j] = std::log(std::max(p[j] * (1 - n * in_force) + in_force, kTiny));
    }
    return;
  }
  for (int64_t j = 0; j < size; ++j) under[j] = allowed[j] && p[j] < in_force;
  // Each pass clips at least one more entry, or nothing changes any more.
  bool changed = mode == FloorMode::kExact;
  for (int64_t pass = 2; changed && pass < size; ++pass) {
    const float scale = Scale(in_force);
    changed = false;
    for (int64_t j = 0; j < size; ++j) {
      if (!allowed[j] || under[j] || !(p[j] * scale < in_force)) continue;
      under[j] = 1;
      changed = true;
    }
  }
  const float scale = Scale(in_force);
  for (int64_t j = 0; j < size; ++j) {
    if (!allowed[j]) continue;
    z[j] = std::log(std::max(under[j] ? in_force : p[j] * scale, kTiny));
  }
}

}  // namespace esper::policy
