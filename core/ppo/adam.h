#ifndef ESPER_CORE_PPO_ADAM_H_
#define ESPER_CORE_PPO_ADAM_H_

#include <cstdint>
#include <string>
#include <vector>

#include "ATen/core/Tensor.h"

namespace esper::ppo {

// Adam with decoupled weight decay (Kingma and Ba, 2015; Loshchilov and Hutter,
// 2019), with bias correction per parameter:
//   m = b1 m + (1 - b1) g,  v = b2 v + (1 - b2) g^2
//   w = w (1 - lr decay) - lr / (1 - b1^t) m / (sqrt(v / (1 - b2^t)) + eps)
// A parameter without a gradient is left alone: its moments and step stay.
//
// A step that would not be finite is not taken: everything stays as it was.
// Not thread-safe.
class Adam {
 public:
  struct Options {
    double learning_rate = 3e-4;
    double beta1 = 0.9;
    double beta2 = 0.999;
    double epsilon = 1e-5;
  };
  // Optimiser state of one parameter.
  struct Slot {
    at::Tensor m, v;   // Shape of the parameter; zeros before the first step.
    int64_t step = 0;  // Steps taken with a gradient.
  };

  // parameters: float32 leaves, which `Step` changes in place. decays: one
  // weight decay per parameter, >= 0.
  Adam(std::vector<at::Tensor> parameters, std::vector<double> decays,
       const Options& options);

  // gradients: one per parameter, undefined where there is none. Returns the L2
  // norm of the change of all parameters, or a negative number if that would
  // not be finite, in which case nothing changed.
  double Step(const std::vector<at::Tensor>& gradients);

  Options& options() { return options_; }
  const Options& options() const { return options_; }
  // To store and to restore; shapes must stay.
  std::vector<Slot>& slots() { return slots_; }
  const std::vector<Slot>& slots() const { return slots_; }

 private:
  std::vector<at::Tensor> parameters_;
  std::vector<double> decays_;
  Options options_;
  std::vector<Slot> slots_;
};

// L2 norm over all defined tensors, in double.
double GlobalNorm(const std::vector<at::Tensor>& tensors);

}  // namespace esper::ppo
#endif  // ESPER_CORE_PPO_ADAM_H_
