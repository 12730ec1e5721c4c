#ifndef ESPER_CORE_POLICY_MASKED_CATEGORICAL_H_
#define ESPER_CORE_POLICY_MASKED_CATEGORICAL_H_

#include "ATen/core/Tensor.h"
#include "core/policy/policy_spec.h"

namespace esper::policy {

// Logit of a disallowed choice.
inline constexpr double kMaskedLogit = -1e4;
// Logit of a cell that only pads a block: never has probability.
inline constexpr double kPaddingLogit = -1e30;
// Floors are capped so that n floors take at most this much probability.
inline constexpr double kFloorCap = 0.99;

// A block of masked categorical distributions, K heads of at most W choices for
// N rows. The one implementation of masking, floors, log-probability, entropy
// and choice, used for acting and for training; all in float32. Values keep the
// gradient to the logits. Copies share storage.
class MaskedCategorical {
 public:
  //   logits:  [N, K, W], floating point.
  //   allowed: bool [N, K, W]; false in padding.
  //   fill:    float32 [K, W], logit of a cell that is not allowed; undefined:
  //            kMaskedLogit everywhere.
  //   floors:  float32 [K], in [0, 1); undefined: none. 0: none for that head.
  // A row without an allowed entry is uniform over its masked entries; callers
  // refuse it by `allowed_count`.
  MaskedCategorical(const at::Tensor& logits, const at::Tensor& allowed,
                    const at::Tensor& fill, FloorMode mode,
                    const at::Tensor& floors);

  const at::Tensor& logits() const { return z_; }  // Masked and floored.
  const at::Tensor& masked_logits() const { return masked_; }  // Before floor.
  const at::Tensor& log_probs() const { return log_probs_; }   // [N, K, W].
  const at::Tensor& allowed_count() const { return count_; }   // int64 [N, K].

  // float32 [N, K, W].
  at::Tensor Probs() const;
  // Of given choices: int64 [N, K], in range -> float32 [N, K].
  at::Tensor LogProb(const at::Tensor& choices) const;
  // -sum p log p / log n over the n allowed choices; 0 if n <= 1. [N, K].
  at::Tensor Entropy() const;
  // First of the most likely choices, int64 [N, K].
  at::Tensor ArgMax() const;
  // argmax of p / e: a draw if e ~ Exp(1). `noise`: float32 [N, K, W], > 0.
  // Rows where `deterministic` (bool [N], may be undefined) is true: ArgMax.
  at::Tensor Sample(const at::Tensor& noise,
                    const at::Tensor& deterministic = {}) const;

 private:
  // Each: floored log-probabilities from p [N, K, W] and floor [N, K, 1].
  at::Tensor Floored(FloorMode mode, const at::Tensor& p,
                     const at::Tensor& floor) const;
  at::Tensor MixtureFloor(const at::Tensor& p, const at::Tensor& floor) const;
  // `under`, bool [N, K, W]: the entries that are set to the floor.
  at::Tensor ClippedFloor(const at::Tensor& p, const at::Tensor& floor,
                          const at::Tensor& under) const;
  // What entries that are not `under` are multiplied by, [N, K, 1].
  at::Tensor ClippedScale(const at::Tensor& p, const at::Tensor& floor,
                          const at::Tensor& under) const;
  // The fewest entries to clip so that no other falls below the floor.
  at::Tensor ExactUnder(const at::Tensor& p, const at::Tensor& floor) const;

  at::Tensor allowed_, fill_, masked_, z_, log_probs_, count_;
};

}  // namespace esper::policy
#endif  // ESPER_CORE_POLICY_MASKED_CATEGORICAL_H_
