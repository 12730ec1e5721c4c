#ifndef ESPER_CORE_HOST_TRANSFORMER_HOST_H_
#define ESPER_CORE_HOST_TRANSFORMER_HOST_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "core/host/host.h"
#include "core/slot/blueprint.h"

namespace esper::host {

class EmbeddingLayer;
class LayerNormLayer;
class SeededDropout;

struct TransformerHostOptions {
  int64_t vocab_size = 50257;  // V, in [1, 2^24].
  int64_t width = 384;         // d, in [1, 2^16]; a multiple of heads.
  int64_t heads = 6;           // > 0.
  int64_t layers = 6;          // In [1, 1024]; a multiple of segments.
  int64_t block_size = 256;    // Longest sequence, in [1, 2^20] tokens.
  double dropout = 0.1;        // In [0, 1); training mode only.
  int64_t segments = 3;        // Points for slots; > 0.
  // kLive: embeddings and linear layers from N(0, 0.02), those that write into
  // the residual stream from N(0, 0.02 / sqrt(2 layers)), biases 0. The first
  // loss is then near ln V. kUpstream: the framework's defaults, with which
  // the tied head starts at logits of standard deviation sqrt(d), about 20.
  slot::InitProfile init_profile = slot::InitProfile::kLive;
};

// Named hosts of the published tasks ("tinystories").
const std::map<std::string, TransformerHostOptions>& TransformerHostPresets();

// Number of trainable parameters, without building the network:
// V d + block_size d + layers (12 d^2 + 13 d) + 2 d.
int64_t TransformerHostParameterCount(const TransformerHostOptions& options);

// A decoder-only language model: token and learned position embeddings,
// dropout, pre-norm blocks x += attention(norm(x)), x += mlp(norm(x)) with a
// causal attention of fused query, key and value and a GELU network of four
// times the width, a last norm, and a head without bias that shares the token
// embedding.
//
// Point r0c<i> lies behind the i-th of `segments` equal groups of blocks.
// Features are float [B, T, d], logits float [B, T, V]. Parameters are named
// tok_emb.weight, pos_emb.weight, layers.<i>.ln1.*, layers.<i>.attn.c_attn.*,
// layers.<i>.attn.c_proj.*, layers.<i>.ln2.*, layers.<i>.mlp.c_fc.*,
// layers.<i>.mlp.c_proj.*, ln_f.*, each with weight and bias.
//
// Tokens on the CPU are checked against the vocabulary. On another device they
// are not, since that would wait for it.
class TransformerHost : public Host {
 public:
  // Initial weights and dropout masks come from private generators: equal seeds
  // give equal networks and equal training runs, and no global generator moves.
  // INVALID_ARGUMENT if an option is outside its range.
  static absl::StatusOr<std::shared_ptr<TransformerHost>> Create(
      const TransformerHostOptions& options, uint64_t seed);

  ~TransformerHost() override;

  slot::Topology topology() const override {
    return slot::Topology::kTransformer;
  }
  const TransformerHostOptions& options() const { return options_; }

  // Restarts the sequence of dropout masks: with the number of the step mixed
  // in, a run that goes on from a checkpoint drops what it would have dropped.
  // Not beside a forward in training mode.
  void SeedDropout(uint64_t seed);

 private:
  class Block;

  TransformerHost(const TransformerHostOptions& options, uint64_t seed);

  // x: int64 [B, T] tokens in [0, V), or float [B, T, d] features at `from`,
  // with 1 <= T <= block_size. Returns features at `to`, or logits.
  at::Tensor RunChecked(int from, int to, const at::Tensor& x) const override;
  void CheckInput(int from, const at::Tensor& x) const;
  at::Tensor Embed(const at::Tensor& tokens) const;

  const TransformerHostOptions options_;
  // Draws in training mode only, where calls follow one another.
  const std::unique_ptr<SeededDropout> dropout_;
  std::shared_ptr<EmbeddingLayer> token_embedding_;  // Also the head.
  std::shared_ptr<EmbeddingLayer> position_embedding_;
  std::vector<std::shared_ptr<Block>> blocks_;
  std::shared_ptr<LayerNormLayer> last_norm_;
};

}  // namespace esper::host
#endif  // ESPER_CORE_HOST_TRANSFORMER_HOST_H_
