#ifndef ESPER_CORE_SLOT_SEED_MODULE_H_
#define ESPER_CORE_SLOT_SEED_MODULE_H_

#include <ATen/core/Tensor.h>

#include <string>
#include <utility>

#include "torch/nn/module.h"

namespace esper::slot {

// The network that a blueprint plants into a slot: a map from features to
// features of the same shape.
//
// Thread safety: `forward` may run on several threads at once, so it must not
// change the module. Statistics such as those of batch normalisation do not
// belong in a seed.
class SeedModule : public torch::nn::Module {
 public:
  explicit SeedModule(std::string blueprint_id)
      : blueprint_id_(std::move(blueprint_id)) {}

  // input: floating [B, C, H, W] (cnn) or [B, T, C] (transformer).
  // Returns a tensor of input's shape, dtype and device; grad to parameters
  // and, unless input is detached, to input. May alias input (noop).
  virtual at::Tensor forward(const at::Tensor& input) = 0;

  // Whether the first layer that reads the input is a normalisation. Such a
  // seed gets a contiguous copy of a detached channels_last input, because the
  // framework's group-norm backward can crash without it; the others keep the
  // host's layout. A seed that does not say otherwise gets the copy.
  virtual bool starts_with_normalization() const { return true; }

  // The blueprint's name: "conv_light".
  const std::string& blueprint_id() const { return blueprint_id_; }

 private:
  const std::string blueprint_id_;
};

}  // namespace esper::slot
#endif  // ESPER_CORE_SLOT_SEED_MODULE_H_
