#ifndef ESPER_SERVER_BATCH_ROWS_H_
#define ESPER_SERVER_BATCH_ROWS_H_

#include <cstdint>
#include <vector>

#include "ATen/core/Tensor.h"
#include "core/policy/counter_noise.h"
#include "core/policy/packed_policy.h"
#include "core/ppo/normalizer.h"
#include "proto/codec/mask_codec.h"

namespace esper::server {

// Rows of several calls side by side, as plain numbers for one forward pass.
// Calls of one batch either all have a tensor or all lack it. One thread at a
// time.
class BatchRows {
 public:
  // Forgets the rows, keeps the memory.
  void Clear();

  // Takes rows `rows` of a call's tensors: observations float32 [N, D];
  // categorical int64 [N, S] or undefined; masks may be null.
  void Add(const at::Tensor& observations, const at::Tensor& categorical,
           const codec::ActionMasks* masks, const std::vector<int64_t>& rows);
  // State of the next row, [L, H] each.
  void AddState(const float* h, const float* c);
  void AddKey(const policy::NoiseKey& key) { keys_.push_back(key); }

  int64_t rows() const { return rows_; }

  // What the network takes; layers of a state row are `hidden` apart. Valid
  // until the next call of any method.
  policy::NetworkStep Step(const ppo::ObservationScaler& scaler,
                           int64_t hidden);
  // Masks and keys, valid as long.
  policy::ChoiceInputs Choices() const;

 private:
  int64_t rows_ = 0;
  std::vector<float> observations_;
  at::Tensor scaled_;
  std::vector<int64_t> categorical_;
  std::vector<char> masks_, conditional_;  // Bools.
  std::vector<const float*> h_, c_;
  std::vector<policy::NoiseKey> keys_;
};

}  // namespace esper::server
#endif  // ESPER_SERVER_BATCH_ROWS_H_
