#ifndef ESPER_CORE_HOST_EMBEDDING_HOST_H_
#define ESPER_CORE_HOST_EMBEDDING_HOST_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "core/host/host.h"

namespace esper::host {

class EmbeddingLayer;
class LayerNormLayer;

struct EmbeddingHostOptions {
  int64_t vocab_size = 256;  // V, in [1, 2^24].
  int64_t width = 32;        // d, in [1, 2^16].
  int64_t segments = 3;      // Points for slots, in [1, 1024].
  double deviation = 0.2;    // Of the initial embedding, finite, > 0.
};

// A language model without layers: a token embedding, a norm, and a head
// without bias that shares the embedding. Each guess depends on one token
// alone, and what it says of token b after a is what it says of a after b. All
// else is left to seeds: the points r0c<i> follow each other with nothing in
// between.
//
// Features are float [B, T, d], logits float [B, T, V]. Parameters are named
// tok_emb.weight, ln_f.weight and ln_f.bias: V d + 2 d.
class EmbeddingHost : public Host {
 public:
  // Initial weights are a function of the seed alone. INVALID_ARGUMENT
  // (BAD_HOST_OPTION), naming the field, if an option is outside its range.
  static absl::StatusOr<std::shared_ptr<EmbeddingHost>> Create(
      const EmbeddingHostOptions& options, uint64_t seed);

  ~EmbeddingHost() override;

  slot::Topology topology() const override {
    return slot::Topology::kTransformer;
  }

 private:
  EmbeddingHost(const EmbeddingHostOptions& options, uint64_t seed);

  // x: int64 [B, T] tokens in [0, V), or float [B, T, d] features at `from`.
  at::Tensor RunChecked(int from, int to, const at::Tensor& x) const override;

  const int64_t vocab_size_;
  const int64_t width_;
  std::shared_ptr<EmbeddingLayer> embedding_;  // Also the head.
  std::shared_ptr<LayerNormLayer> norm_;
};

}  // namespace esper::host
#endif  // ESPER_CORE_HOST_EMBEDDING_HOST_H_
