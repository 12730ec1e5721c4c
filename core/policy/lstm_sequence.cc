#include "core/policy/lstm_sequence.h"

#include <algorithm>
#include <optional>
#include <vector>

#include "ATen/ops/cat.h"
#include "ATen/ops/empty.h"
#include "ATen/ops/empty_like.h"
#include "ATen/ops/from_blob.h"
#include "ATen/ops/mm.h"
#include "ATen/ops/zeros.h"
#include "c10/core/GradMode.h"
#include "c10/util/Exception.h"
#include "core/policy/packed_kernels.h"
#include "core/policy/packed_linear.h"
#include "core/policy/training_product.h"
#include "torch/csrc/autograd/custom_function.h"

namespace esper::policy {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Packing the weights costs about as much as this many steps save.
constexpr int64_t kPackedSteps = 6;
// Floats between the rows of what a product reads, beyond their width: rows a
// multiple of 4 KiB apart would share the same few lines of the first cache.
constexpr int64_t kApart = 16;

// rows W^T, a step at a time; W has any strides.
class StepProduct {
 public:
  StepProduct(const at::Tensor& weight, int64_t rows, int64_t steps,
              TrainingPrecision precision)
      : rows_(rows),
        inputs_(weight.size(1)),
        input_(rows * (inputs_ + kApart)) {
    if (precision == TrainingPrecision::kFp32 && steps < kPackedSteps) {
      weight_ = weight.t();
      return;
    }
    packed_ = PackedLinear(weight, /*bias=*/{},
                           precision == TrainingPrecision::kBf16
                               ? InferencePrecision::kBf16
                               : InferencePrecision::kFp32);
    output_.resize(rows * packed_.padded_outputs());
    scratch_.resize(packed_.ScratchSize(rows));
  }

  // What `Run` multiplies: [inputs].
  float* input(int64_t row) { return input_.data() + row * stride(); }
  void Run() {
    if (packed_.defined()) {
      packed_.Apply(input_.data(), stride(), rows_, output_.data(),
                    packed_.padded_outputs(), /*relu=*/false, scratch_.data());
      return;
    }
    product_ = at::mm(at::from_blob(input_.data(), {rows_, inputs_},
                                    {stride(), 1}, at::kFloat),
                      weight_)
                   .contiguous();
  }
  // [outputs], until the next `Run`.
  const float* output(int64_t row) const {
    return packed_.defined()
               ? output_.data() + row * packed_.padded_outputs()
               : product_.const_data_ptr<float>() + row * product_.size(1);
  }

 private:
  int64_t stride() const { return inputs_ + kApart; }

  const int64_t rows_;
  const int64_t inputs_;
  PackedLinear packed_;
  at::Tensor weight_, product_;  // Without packing.
  std::vector<float> input_, output_, scratch_;
};

// What the backward pass needs.
struct Tape {
  at::Tensor gates;  // [B, T, 4H]: after their nonlinearities.
  at::Tensor cells;  // [B, T, H].
};

// Where rows begin over again.
class Resets {
 public:
  explicit Resets(const at::Tensor& reset) {
    if (reset.defined()) flags_ = reset.contiguous();
  }
  bool At(int64_t row, int64_t step) const {
    return flags_.defined() &&
           flags_.const_data_ptr<bool>()[row * flags_.size(1) + step];
  }

 private:
  at::Tensor flags_;
};

LstmOutput Run(const at::Tensor& gates_x, const at::Tensor& weight_hh,
               const at::Tensor& h0, const at::Tensor& c0,
               const at::Tensor& reset, TrainingPrecision precision,
               Tape* tape) {
  const int64_t batch = gates_x.size(0);
  const int64_t steps = gates_x.size(1);
  const int64_t hidden = weight_hh.size(1);
  const PackedKernels& kernels = BestKernels();
  const Resets resets(reset);
  const at::Tensor inputs = gates_x.contiguous();
  const float* input = inputs.const_data_ptr<float>();
  StepProduct product(weight_hh, batch, steps, precision);
  LstmOutput out;
  out.y = at::empty({batch, steps, hidden}, gates_x.options());
  out.h = h0.clone(at::MemoryFormat::Contiguous);
  out.c = c0.clone(at::MemoryFormat::Contiguous);
  float* y = out.y.mutable_data_ptr<float>();
  float* h = out.h.mutable_data_ptr<float>();
  float* c = out.c.mutable_data_ptr<float>();
  std::vector<float> spare(tape == nullptr ? 4 * hidden : 0);
  float* gates = spare.data();
  float* cells = nullptr;
  if (tape != nullptr) {
    tape->gates = at::empty_like(inputs);
    tape->cells = at::empty_like(out.y);
    gates = tape->gates.mutable_data_ptr<float>();
    cells = tape->cells.mutable_data_ptr<float>();
  }
  for (int64_t t = 0; t < steps; ++t) {
    for (int64_t b = 0; b < batch; ++b) {
      if (resets.At(b, t)) {
        std::fill_n(h + b * hidden, hidden, 0.0f);
        std::fill_n(c + b * hidden, hidden, 0.0f);
      }
      std::copy_n(h + b * hidden, hidden, product.input(b));
    }
    product.Run();
    for (int64_t b = 0; b < batch; ++b) {
      const int64_t at = b * steps + t;
      LstmForwardCall call;
      call.input = input + at * 4 * hidden;
      call.product = product.output(b);
      call.c = c + b * hidden;
      call.width = hidden;
      call.gates = tape == nullptr ? gates : gates + at * 4 * hidden;
      call.next_h = y + at * hidden;
      call.next_c = c + b * hidden;
      kernels.lstm_forward(call);
      std::copy_n(call.next_h, hidden, h + b * hidden);
      if (cells != nullptr) {
        std::copy_n(call.next_c, hidden, cells + at * hidden);
      }
    }
  }
  return out;
}

// y before each step: h0, then y of the step before, or zeros after a reset.
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
                               const std::optional<at::Tensor>& reset,
                               int64_t precision) {
    Tape tape;
    const at::Tensor resets = reset.value_or(at::Tensor());
    const LstmOutput out =
        Run(gates_x, weight_hh, h0, c0, resets,
            static_cast<TrainingPrecision>(precision), &tape);
    ctx->save_for_backward(
        {tape.gates, tape.cells, out.y, weight_hh, h0, c0, resets});
    ctx->saved_data["precision"] = precision;
    return {out.y, out.h, out.c};
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const variable_list saved = ctx->get_saved_variables();
    const auto precision =
        static_cast<TrainingPrecision>(ctx->saved_data["precision"].toInt());
    const float* gates = saved[0].const_data_ptr<float>();
    const float* cells = saved[1].const_data_ptr<float>();
    const at::Tensor& y = saved[2];
    const at::Tensor& weight_hh = saved[3];
    const at::Tensor c0 = saved[5].contiguous();
    const at::Tensor& reset = saved[6];
    const int64_t batch = y.size(0);
    const int64_t steps = y.size(1);
    const int64_t hidden = weight_hh.size(1);
    const PackedKernels& kernels = BestKernels();
    const Resets resets(reset);
    StepProduct product(weight_hh.t(), batch, steps, precision);
    const std::vector<float> zeros(hidden);

    const at::Tensor grad_y = grads[0].contiguous();
    const float* dy = grad_y.const_data_ptr<float>();
    at::Tensor grad_h = grads[1].clone(at::MemoryFormat::Contiguous);
    at::Tensor grad_c = grads[2].clone(at::MemoryFormat::Contiguous);
    float* dh = grad_h.mutable_data_ptr<float>();
    float* dc = grad_c.mutable_data_ptr<float>();
    at::Tensor grad_gates = at::empty_like(saved[0]);
    float* dgates = grad_gates.mutable_data_ptr<float>();
    for (int64_t t = steps - 1; t >= 0; --t) {
      for (int64_t b = 0; b < batch; ++b) {
        const int64_t at = b * steps + t;
        const bool begins = resets.At(b, t);
        float* row = dh + b * hidden;
        for (int64_t j = 0; j < hidden; ++j) row[j] += dy[at * hidden + j];
        LstmBackwardCall call;
        call.gates = gates + at * 4 * hidden;
        call.c = begins  ? zeros.data()
                 : t > 0 ? cells + (at - 1) * hidden
                         : c0.const_data_ptr<float>() + b * hidden;
        call.next_c = cells + at * hidden;
        call.dh = row;
        call.width = hidden;
        call.dc = dc + b * hidden;
        call.dgates = dgates + at * 4 * hidden;
        kernels.lstm_backward(call);
        if (begins) std::fill_n(call.dc, hidden, 0.0f);
        std::copy_n(call.dgates, 4 * hidden, product.input(b));
      }
      if (t == 0 && !ctx->needs_input_grad(2)) break;
      product.Run();
      for (int64_t b = 0; b < batch; ++b) {
        if (resets.At(b, t)) {
          std::fill_n(dh + b * hidden, hidden, 0.0f);
        } else {
          std::copy_n(product.output(b), hidden, dh + b * hidden);
        }
      }
    }
    at::Tensor dweight;
    if (ctx->needs_input_grad(1)) {
      dweight = Product(
          Operand(grad_gates.view({batch * steps, 4 * hidden}), precision).t(),
          Operand(Before(saved[4], y, reset).view({batch * steps, hidden}),
                  precision));
    }
    return {grad_gates, dweight, grad_h, grad_c, at::Tensor(), at::Tensor()};
  }
};

}  // namespace

LstmOutput LstmSequence(const at::Tensor& gates_x, const at::Tensor& weight_hh,
                        const at::Tensor& h0, const at::Tensor& c0,
                        const at::Tensor& reset, TrainingPrecision precision) {
  for (const at::Tensor& x : {gates_x, weight_hh, h0, c0}) {
    TORCH_CHECK(x.scalar_type() == at::kFloat && x.device().is_cpu(),
                "LstmSequence takes float32 tensors on the host, not ",
                x.toString());
  }
  const bool differentiate =
      c10::GradMode::is_enabled() &&
      (gates_x.requires_grad() || weight_hh.requires_grad() ||
       h0.requires_grad() || c0.requires_grad());
  if (!differentiate) {
    return Run(gates_x, weight_hh, h0, c0, reset, precision, nullptr);
  }
  const variable_list out = Function::apply(
      gates_x, weight_hh, h0, c0,
      reset.defined() ? std::optional<at::Tensor>(reset) : std::nullopt,
      static_cast<int64_t>(precision));
  return {out[0], out[1], out[2]};
}

}  // namespace esper::policy
