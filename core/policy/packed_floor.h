#ifndef ESPER_CORE_POLICY_PACKED_FLOOR_H_
#define ESPER_CORE_POLICY_PACKED_FLOOR_H_

#include <cstdint>

#include "core/policy/policy_spec.h"

// The arithmetic of one masked categorical distribution over plain float32
// arrays: what core/policy/masked_categorical.h defines for tensors.
namespace esper::policy {

// p = softmax(x), 0 for entries more than 104 below the largest. Returns the
// logarithm of the sum of exp(x), so that log p = x - that.
float Softmax(const float* x, int64_t size, float* p);

// One head under a floor.
struct FlooredHead {
  FloorMode mode = FloorMode::kNone;  // Another one when `Apply` is called.
  float floor = 0;                    // In (0, 1).
  const uint8_t* allowed = nullptr;   // [size], 0 or 1; at least one is 1.
  int64_t size = 0;
  int64_t count = 0;         // Of allowed entries.
  float* p = nullptr;        // [size]: scratch.
  uint8_t* under = nullptr;  // [size]: scratch.

  // Replaces the masked logits z [size] of allowed entries by floored
  // log-probabilities.
  void Apply(float* z);

 private:
  // What entries that are not `under` are multiplied by.
  float Scale(float in_force) const;
};

}  // namespace esper::policy
#endif  // ESPER_CORE_POLICY_PACKED_FLOOR_H_
