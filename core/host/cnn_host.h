#ifndef ESPER_CORE_HOST_CNN_HOST_H_
#define ESPER_CORE_HOST_CNN_HOST_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "core/host/host.h"

namespace esper::host {

class LinearLayer;

struct CnnHostOptions {
  int64_t in_channels = 3;     // Of the images: 3 colour, 1 grey.
  int64_t num_classes = 10;    // > 0.
  int64_t n_blocks = 3;        // In [2, 16].
  int64_t base_channels = 32;  // Block i has base_channels * 2^i; > 0.
  // Blocks followed by a pool, from the first on; all of them by default.
  // Images must be at least 2^pools pixels in height and width.
  std::optional<int64_t> pool_layers;
  int64_t kernel = 3;         // Odd, > 0.
  bool channels_last = true;  // Memory format from the network's input on.

  int64_t pools() const;                  // In [0, n_blocks].
  int64_t channels(int64_t block) const;  // base_channels * 2^block.
};

// Named hosts of the published tasks ("cifar_baseline", ...).
const std::map<std::string, CnnHostOptions>& CnnHostPresets();

// Number of trainable parameters, without building the network:
// sum over blocks of (k^2 in out + 2 out), and classes (out_last + 1).
int64_t CnnHostParameterCount(const CnnHostOptions& options);

// Convolution blocks (convolution without bias, batch normalisation, ReLU),
// max pools of 2, global average pool, linear classifier.
//
// Points r0c<i> lie behind block i, before its pool; points r1c<i> behind the
// pool of block i. Parameters are named blocks.<i>.conv.weight,
// blocks.<i>.bn.{weight,bias,running_mean,running_var,num_batches_tracked},
// classifier.{weight,bias}.
class CnnHost : public Host {
 public:
  // Initial weights are PyTorch's default distributions, drawn from a private
  // generator: equal seeds give equal networks, and no global generator moves.
  // INVALID_ARGUMENT if an option is outside its range.
  static absl::StatusOr<std::shared_ptr<CnnHost>> Create(
      const CnnHostOptions& options, uint64_t seed);

  ~CnnHost() override;

  slot::Topology topology() const override { return slot::Topology::kCnn; }
  const CnnHostOptions& options() const { return options_; }

 private:
  class ConvBlock;

  CnnHost(const CnnHostOptions& options, uint64_t seed);

  // x: float [B, in_channels, H, W] images, or features at `from`.
  // Returns features at `to`, or logits float [B, num_classes].
  at::Tensor RunChecked(int from, int to, const at::Tensor& x) const override;
  void CheckInput(int from, const at::Tensor& x) const;

  const CnnHostOptions options_;
  std::vector<std::shared_ptr<ConvBlock>> blocks_;
  std::shared_ptr<LinearLayer> classifier_;

  // The network as one list of operations. Each point lies behind one of them,
  // so the work between two positions is a range of the list.
  struct Op {
    enum Kind { kBlock, kPool, kClassify } kind;
    int64_t block;
  };
  std::vector<Op> ops_;
  std::vector<int> ops_before_;  // [position]: operations before that point.
};

}  // namespace esper::host
#endif  // ESPER_CORE_HOST_CNN_HOST_H_
