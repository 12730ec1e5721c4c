#include "core/policy/training_linear.h"

#include <cstdint>

#include "ATen/ops/addmm.h"
#include "ATen/ops/threshold_backward.h"
#include "c10/core/GradMode.h"
#include "core/policy/training_product.h"
#include "torch/csrc/autograd/custom_function.h"

namespace esper::policy {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

at::Tensor Forward(const at::Tensor& x, const at::Tensor& weight,
                   const at::Tensor& bias, bool relu,
                   TrainingPrecision precision) {
  // fp32 adds the bias inside the product.
  at::Tensor y = precision == TrainingPrecision::kFp32
                     ? at::addmm(bias, x, weight.t())
                     : Product(x, Operand(weight, precision).t()).add_(bias);
  if (relu) y.relu_();
  return y;
}

// Parameters of layer k: weight at 2k, bias at 2k + 1.
struct Fan : public torch::autograd::Function<Fan> {
  static variable_list forward(AutogradContext* ctx, const at::Tensor& x,
                               at::TensorList parameters, const LinearFan& fan,
                               int64_t precision) {
    const auto how = static_cast<TrainingPrecision>(precision);
    // What the backward pass multiplies again is kept as it was multiplied.
    const at::Tensor operand = Operand(x, how);
    const std::vector<bool>& relu = fan.relu;
    variable_list outputs;
    for (size_t k = 0; k < relu.size(); ++k) {
      outputs.push_back(Forward(operand, parameters[2 * k],
                                parameters[2 * k + 1], relu[k], how));
    }
    variable_list saved = {operand};
    c10::List<bool> relus;
    for (size_t k = 0; k < relu.size(); ++k) {
      saved.push_back(parameters[2 * k]);
      saved.push_back(relu[k] ? outputs[k] : at::Tensor());
      relus.push_back(relu[k]);
    }
    ctx->save_for_backward(saved);
    ctx->saved_data["relu"] = relus;
    ctx->saved_data["precision"] = precision;
    ctx->set_materialize_grads(false);
    return outputs;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const variable_list saved = ctx->get_saved_variables();
    const auto precision =
        static_cast<TrainingPrecision>(ctx->saved_data["precision"].toInt());
    const c10::List<bool> relu = ctx->saved_data["relu"].toBoolList();
    const at::Tensor& x = saved[0];
    const size_t layers = relu.size();
    variable_list result(3 + 2 * layers);
    at::Tensor& dx = result[0];
    for (size_t k = 0; k < layers; ++k) {
      if (!grads[k].defined()) continue;
      const at::Tensor& weight = saved[1 + 2 * k];
      const at::Tensor dy =
          relu[k] ? at::threshold_backward(grads[k], saved[2 + 2 * k], 0)
                  : grads[k];
      const at::Tensor operand = Operand(dy, precision);
      if (ctx->needs_input_grad(1 + 2 * k)) {
        result[1 + 2 * k] = Product(operand.t(), x);
      }
      if (ctx->needs_input_grad(2 + 2 * k)) result[2 + 2 * k] = dy.sum(0);
      if (!ctx->needs_input_grad(0)) continue;
      if (dx.defined() && precision == TrainingPrecision::kFp32) {
        dx.addmm_(operand, weight);
        continue;
      }
      const at::Tensor part = Product(operand, Operand(weight, precision));
      dx = dx.defined() ? dx.add_(part) : part;
    }
    return result;
  }
};

}  // namespace

std::vector<at::Tensor> ApplyFan(const LinearFan& fan, const at::Tensor& x,
                                 TrainingPrecision precision) {
  std::vector<at::Tensor> parameters;
  for (size_t k = 0; k < fan.weights.size(); ++k) {
    parameters.push_back(fan.weights[k]);
    parameters.push_back(fan.biases[k]);
  }
  if (c10::GradMode::is_enabled()) {
    return Fan::apply(x, at::TensorList(parameters), fan,
                      static_cast<int64_t>(precision));
  }
  const at::Tensor operand = Operand(x, precision);
  std::vector<at::Tensor> outputs;
  for (size_t k = 0; k < fan.weights.size(); ++k) {
    outputs.push_back(Forward(operand, fan.weights[k], fan.biases[k],
                              fan.relu[k], precision));
  }
  return outputs;
}

at::Tensor RoundedLinear(const at::Tensor& x, const at::Tensor& weight,
                         const at::Tensor& bias, TrainingPrecision precision) {
  std::vector<int64_t> sizes = x.sizes().vec();
  sizes.back() = weight.size(0);
  return ApplyFan({{weight}, {bias}, {false}}, x.reshape({-1, weight.size(1)}),
                  precision)[0]
      .view(sizes);
}

}  // namespace esper::policy
