#ifndef ESPER_CORE_POLICY_PACKED_SAMPLER_H_
#define ESPER_CORE_POLICY_PACKED_SAMPLER_H_

#include <cstdint>
#include <vector>

#include "core/policy/counter_noise.h"
#include "core/policy/head_layout.h"
#include "core/policy/policy_spec.h"

namespace esper::policy {

// What the rows of one step are chosen from, as plain numbers.
struct ChoiceInputs {
  int64_t rows = 0;
  const float* logits = nullptr;      // [rows, A], packed, unmasked.
  const float* means = nullptr;       // [rows, C]; null without Gaussian heads.
  const float* log_std = nullptr;     // [C].
  const bool* masks = nullptr;        // [rows, A]; null: all allowed.
  const bool* conditional = nullptr;  // [rows, driver size, size]; may be null.

  // Where the randomness comes from: keys, or given noise; none of them: the
  // most likely choices.
  const NoiseKey* keys = nullptr;      // [rows].
  const float* exponential = nullptr;  // [rows, A].
  const float* normal = nullptr;       // [rows, C].

  // Writes the reported head's masked logits, before the floor, too.
  int64_t reported_head = -1;
};

// What was chosen. Grows, and is meant to be used again.
struct Choices {
  std::vector<int64_t> actions;   // [rows, K], storage order.
  std::vector<float> continuous;  // [rows, C].
  std::vector<float> log_probs;   // [rows, K].
  std::vector<float> entropies;   // [rows, K].
  std::vector<float> reported;    // [rows, size of the reported head].

 private:
  friend class PackedSampler;
  std::vector<float> scratch;
  std::vector<uint8_t> allowed;
};

// Masking, floors, sampling, log-probabilities and entropies as one loop over
// rows and heads. It computes what `MaskedCategorical`, `DiagonalGaussian` and
// `HeadLayout::EffectiveMasks` define, without a tensor; each row by itself.
//
// Immutable; safe from any thread. `spec` and `layout` must outlive it.
class PackedSampler {
 public:
  PackedSampler(const PolicySpec& spec, const HeadLayout& layout);

  // `floors` must fit the specification. Throws EmptyMaskError (with head and
  // row) and NonFiniteError (NONFINITE_LOGITS); what was written then is
  // meaningless.
  void Sample(const ChoiceInputs& inputs, const FloorSettings& floors,
              Choices* choices) const;

 private:
  void CheckRows(const ChoiceInputs& inputs) const;
  // Whether the driver's choice lets head `k` matter.
  bool Matters(int64_t k, const int64_t* actions) const;
  // The mask in force of categorical head `k`; returns how many entries it
  // allows.
  int64_t MaskInForce(const ChoiceInputs& inputs, int64_t row, int64_t k,
                      const int64_t* actions, uint8_t* allowed) const;
  void SampleCategorical(const ChoiceInputs& inputs,
                         const FloorSettings& floors, int64_t row, int64_t k,
                         Choices* choices) const;
  void SampleGaussian(const ChoiceInputs& inputs, int64_t row, int64_t k,
                      Choices* choices) const;

  const PolicySpec& spec_;
  const HeadLayout& layout_;
  std::vector<int64_t> categorical_;  // In sampling order.
  int64_t widest_ = 0;                // Entries of the largest head.
};

}  // namespace esper::policy
#endif  // ESPER_CORE_POLICY_PACKED_SAMPLER_H_
