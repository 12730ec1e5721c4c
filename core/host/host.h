#ifndef ESPER_CORE_HOST_HOST_H_
#define ESPER_CORE_HOST_HOST_H_

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "core/slot/slot_id.h"
#include "core/slot/topology.h"

namespace esper::host {

// A network with named points between its layers where a slot may be put. The
// host knows nothing of slots: it routes activations from one point to another.
//
// Points are named by slot id and have two orders. `injection_specs` is the
// order of actions (row by row); `execution_order` is the order in which
// activations meet the points. A position is an index into the latter, with
// `kInput` before the first and `output()` behind the last.
//
// Features are float [B, C, H, W] (cnn) or float [B, T, C] (transformer), with
// C of the point that they are at.
//
// Thread safety: in evaluation mode any number of threads may call the forward
// functions at once. In training mode they update running statistics, so calls
// must follow one another.
class Host : public torch::nn::Module {
 public:
  static constexpr int kInput = -1;

  virtual slot::Topology topology() const = 0;

  // In action order. Constant after construction.
  const std::vector<slot::InjectionSpec>& injection_specs() const {
    return specs_;
  }
  const std::vector<std::string>& execution_order() const {
    return execution_order_;
  }
  const std::map<std::string, int64_t>& segment_channels() const {
    return channels_;
  }

  // The position behind the last point: the network's output.
  int output() const { return static_cast<int>(execution_order_.size()); }

  // Position of a point. Throws InvalidArgumentError (UNKNOWN_SEGMENT) that
  // lists the points there are.
  int PositionOf(const std::string& segment) const;

  // The layers between two positions, from < to. `x` is the network's input if
  // `from` is kInput, else the features at `from`; returns the features at
  // `to`, or the logits if it is output(). Never writes into `x`; the result
  // does not alias it.
  // Throws InvalidArgumentError (BAD_SEGMENT_ORDER) unless
  // kInput <= from < to <= output(); ShapeError for an input of wrong shape.
  at::Tensor Run(int from, int to, const at::Tensor& x) const;

  // The whole network, without slots.
  at::Tensor Forward(const at::Tensor& x) const {
    return Run(kInput, output(), x);
  }

  // The same by name, with the errors of PositionOf and Run.
  at::Tensor ForwardToSegment(const std::string& target,
                              const at::Tensor& x) const;
  at::Tensor ForwardToSegment(const std::string& target, const at::Tensor& x,
                              const std::string& from) const;
  at::Tensor ForwardFromSegment(const std::string& from,
                                const at::Tensor& x) const;

 protected:
  // `specs` in action order; `execution_order` holds the same ids.
  Host(std::vector<slot::InjectionSpec> specs,
       std::vector<std::string> execution_order);

 private:
  // Run with its positions checked.
  virtual at::Tensor RunChecked(int from, int to,
                                const at::Tensor& x) const = 0;

  const std::vector<slot::InjectionSpec> specs_;
  const std::vector<std::string> execution_order_;
  std::map<std::string, int64_t> channels_;
  std::map<std::string, int> positions_;
};

}  // namespace esper::host
#endif  // ESPER_CORE_HOST_HOST_H_
