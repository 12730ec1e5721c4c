#include "core/policy/lstm_sequence.h"

#include <optional>

#include "ATen/ops/addcmul.h"
#include "ATen/ops/addmm.h"
#include "ATen/ops/cat.h"
#include "ATen/ops/empty.h"
#include "ATen/ops/empty_like.h"
#include "ATen/ops/mm.h"
#include "ATen/ops/mul.h"
#include "ATen/ops/zeros_like.h"
#include "c10/core/GradMode.h"
#include "torch/csrc/autograd/custom_function.h"

namespace esper::policy {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// What the backward pass needs. Undefined tensors are not recorded.
struct Tape {
  at::Tensor gates;  // [B, T, 4H]: after their nonlinearities.
  at::Tensor cells;  // [B, T, H].
};

at::Tensor Reset(const at::Tensor& x, const at::Tensor& reset, int64_t t) {
  return reset.defined() ? x.masked_fill(reset.narrow(1, t, 1), 0) : x;
}

LstmOutput Run(const at::Tensor& gates_x, const at::Tensor& weight_hh,
               const at::Tensor& h0, const at::Tensor& c0,
               const at::Tensor& reset, Tape* tape) {
  const int64_t steps = gates_x.size(1);
  const int64_t hidden = weight_hh.size(1);
  const at::Tensor weight = weight_hh.t();
  LstmOutput out;
  out.h = h0;
  out.c = c0;
  if (tape != nullptr || steps > 1) {
    out.y = at::empty({gates_x.size(0), steps, hidden}, gates_x.options());
  }
  if (tape != nullptr) {
    tape->gates = at::empty_like(gates_x);
    tape->cells = at::empty_like(out.y);
  }
  for (int64_t t = 0; t < steps; ++t) {
    const at::Tensor h = Reset(out.h, reset, t);
    const at::Tensor c = Reset(out.c, reset, t);
    at::Tensor gates = at::addmm(gates_x.select(1, t), h, weight);
    gates.narrow(1, 0, 2 * hidden).sigmoid_();
    gates.narrow(1, 2 * hidden, hidden).tanh_();
    gates.narrow(1, 3 * hidden, hidden).sigmoid_();
    const auto gate = [&](int64_t i) {
      return gates.narrow(1, i * hidden, hidden);
    };
    out.c = at::addcmul(gate(1).mul(c), gate(0), gate(2));
    out.h = gate(3).mul(out.c.tanh());
    if (out.y.defined()) out.y.select(1, t).copy_(out.h);
    if (tape != nullptr) {
      tape->gates.select(1, t).copy_(gates);
      tape->cells.select(1, t).copy_(out.c);
    }
  }
  if (!out.y.defined()) out.y = out.h.unsqueeze(1);
  return out;
}

// x before each step: its initial value, then the values after the steps.
at::Tensor Before(const at::Tensor& initial, const at::Tensor& after,
                  const at::Tensor& reset) {
  const at::Tensor before =
      at::cat({initial.unsqueeze(1), after.narrow(1, 0, after.size(1) - 1)}, 1);
  return reset.defined() ? before.masked_fill(reset.unsqueeze(2), 0) : before;
}

struct Function : public torch::autograd::Function<Function> {
  static variable_list forward(AutogradContext* ctx, const at::Tensor& gates_x,
                               const at::Tensor& weight_hh,
                               const at::Tensor& h0, const at::Tensor& c0,
                               const std::optional<at::Tensor>& reset) {
    Tape tape;
    const at::Tensor resets = reset.value_or(at::Tensor());
    const LstmOutput out = Run(gates_x, weight_hh, h0, c0, resets, &tape);
    ctx->save_for_backward(
        {tape.gates, tape.cells, out.y, weight_hh, h0, c0, resets});
    return {out.y, out.h, out.c};
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor& gates = saved[0];
    const at::Tensor& cells = saved[1];
    const at::Tensor& y = saved[2];
    const at::Tensor& weight_hh = saved[3];
    const at::Tensor& reset = saved[6];
    const int64_t batch = gates.size(0);
    const int64_t steps = gates.size(1);
    const int64_t hidden = weight_hh.size(1);
    const auto gate = [&](int64_t k) {
      return gates.narrow(2, k * hidden, hidden);
    };
    const at::Tensor i = gate(0), f = gate(1), g = gate(2), o = gate(3);
    const at::Tensor before_h = Before(saved[4], y, reset);
    const at::Tensor before_c = Before(saved[5], cells, reset);

    // d gate / d c' (i, f, g) and d gate / d h' (o), for all steps at once.
    const at::Tensor tanh_c = cells.tanh();
    at::Tensor factors = at::empty_like(gates);
    const auto factor = [&](int64_t k) {
      return factors.narrow(2, k * hidden, hidden);
    };
    factor(0).copy_(g.mul(i).mul_(i.neg().add_(1)));
    factor(1).copy_(before_c.mul(f).mul_(f.neg().add_(1)));
    factor(2).copy_(i.mul(g.square().neg_().add_(1)));
    factor(3).copy_(tanh_c.mul(o).mul_(o.neg().add_(1)));
    const at::Tensor h_to_c = o.mul(tanh_c.square().neg_().add_(1));

    const at::Tensor& grad_y = grads[0];
    at::Tensor dh = grads[1];
    at::Tensor dc = grads[2];
    at::Tensor dgates = at::empty_like(gates);
    for (int64_t t = steps - 1; t >= 0; --t) {
      dh = dh.add(grad_y.select(1, t));
      dc = at::addcmul(dc, dh, h_to_c.select(1, t));
      const at::Tensor scale = factors.select(1, t);
      at::Tensor d = dgates.select(1, t);
      d.narrow(1, 0, 3 * hidden)
          .view({batch, 3, hidden})
          .copy_(scale.narrow(1, 0, 3 * hidden)
                     .view({batch, 3, hidden})
                     .mul(dc.unsqueeze(1)));
      d.narrow(1, 3 * hidden, hidden)
          .copy_(scale.narrow(1, 3 * hidden, hidden).mul(dh));
      dc = Reset(dc.mul(f.select(1, t)), reset, t);
      dh = Reset(at::mm(d, weight_hh), reset, t);
    }
    at::Tensor dweight;
    if (ctx->needs_input_grad(1)) {
      dweight = at::mm(dgates.view({batch * steps, 4 * hidden}).t(),
                       before_h.reshape({batch * steps, hidden}));
    }
    return {dgates, dweight, dh, dc, at::Tensor()};
  }
};

}  // namespace

LstmOutput LstmSequence(const at::Tensor& gates_x, const at::Tensor& weight_hh,
                        const at::Tensor& h0, const at::Tensor& c0,
                        const at::Tensor& reset) {
  const bool differentiate =
      c10::GradMode::is_enabled() &&
      (gates_x.requires_grad() || weight_hh.requires_grad() ||
       h0.requires_grad() || c0.requires_grad());
  if (!differentiate) return Run(gates_x, weight_hh, h0, c0, reset, nullptr);
  const variable_list out = Function::apply(
      gates_x, weight_hh, h0, c0,
      reset.defined() ? std::optional<at::Tensor>(reset) : std::nullopt);
  return {out[0], out[1], out[2]};
}

}  // namespace esper::policy
