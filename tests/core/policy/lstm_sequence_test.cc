#include "core/policy/lstm_sequence.h"

#include <algorithm>
#include <string>
#include <vector>

#include "ATen/CPUGeneratorImpl.h"
#include "ATen/ops/stack.h"
#include "ATen/ops/zeros.h"
#include "gtest/gtest.h"
#include "torch/csrc/autograd/autograd.h"

namespace esper::policy {
namespace {

// gates_x, weight_hh, h0, c0.
using Inputs = std::vector<at::Tensor>;

Inputs RandomInputs(int64_t batch, int64_t steps, int64_t hidden,
                    uint64_t seed) {
  const auto generator = at::make_generator<at::CPUGeneratorImpl>(seed);
  const auto normal = [&](at::IntArrayRef sizes) {
    return at::zeros(sizes, at::kFloat).normal_(0, 1, generator);
  };
  return {normal({batch, steps, 4 * hidden}),
          normal({4 * hidden, hidden}).mul_(0.3), normal({batch, hidden}),
          normal({batch, hidden})};
}

Inputs Leaves(const Inputs& inputs, at::ScalarType dtype) {
  Inputs leaves;
  for (const at::Tensor& x : inputs) {
    leaves.push_back(x.to(dtype).clone().requires_grad_(true));
  }
  return leaves;
}

// The equations as plain operations.
LstmOutput Naive(const Inputs& inputs, const at::Tensor& reset) {
  at::Tensor h = inputs[2], c = inputs[3];
  std::vector<at::Tensor> y;
  for (int64_t t = 0; t < inputs[0].size(1); ++t) {
    if (reset.defined()) {
      const at::Tensor keep =
          reset.select(1, t).logical_not().to(at::kDouble).unsqueeze(1);
      h = h.mul(keep);
      c = c.mul(keep);
    }
    const auto gates =
        inputs[0].select(1, t).add(h.matmul(inputs[1].t())).chunk(4, 1);
    c = gates[1].sigmoid().mul(c).add(gates[0].sigmoid().mul(gates[2].tanh()));
    h = gates[3].sigmoid().mul(c.tanh());
    y.push_back(h);
  }
  return LstmOutput{at::stack(y, 1), h, c};
}

at::Tensor Loss(const LstmOutput& out) {
  const auto generator = at::make_generator<at::CPUGeneratorImpl>(9);
  at::Tensor loss = at::zeros({}, out.y.options());
  for (const at::Tensor& x : {out.y, out.h, out.c}) {
    const at::Tensor weights =
        at::zeros(x.sizes(), at::kFloat).normal_(0, 1, generator);
    loss = loss.add(x.mul(weights.to(x.scalar_type())).sum());
  }
  return loss;
}

void ExpectClose(const at::Tensor& actual, const at::Tensor& expected,
                 double tolerance, const std::string& what) {
  const double scale = expected.abs().max().item<double>();
  EXPECT_LE(actual.to(at::kDouble).sub(expected).abs().max().item<double>(),
            tolerance * std::max(scale, 1.0))
      << what;
}

// The written-out backward pass against autograd over plain operations in
// float64: few steps and many, which take different products, and widths that
// fill no vector.
TEST(LstmSequenceTest, GradientEqualsAutograd) {
  struct Case {
    int64_t batch, steps, hidden;
    bool reset;
  };
  for (const Case& c : {Case{3, 5, 4, true}, Case{1, 1, 8, false},
                        Case{4, 13, 20, true}, Case{8, 30, 33, false}}) {
    const Inputs inputs = RandomInputs(c.batch, c.steps, c.hidden, c.steps);
    at::Tensor reset;
    if (c.reset) {
      reset = at::zeros({c.batch, c.steps}, at::kBool);
      reset[1][2] = true;
      reset[2][0] = true;
      reset[0][c.steps - 1] = true;
    }
    const Inputs exact = Leaves(inputs, at::kDouble);
    const Inputs single = Leaves(inputs, at::kFloat);
    const LstmOutput expected = Naive(exact, reset);
    const LstmOutput actual =
        LstmSequence(single[0], single[1], single[2], single[3], reset);
    const std::string name = std::to_string(c.steps) + " steps, ";
    ExpectClose(actual.y, expected.y, 2e-6, name + "y");
    ExpectClose(actual.h, expected.h, 2e-6, name + "h");
    ExpectClose(actual.c, expected.c, 2e-6, name + "c");
    const auto a = torch::autograd::grad({Loss(actual)}, single);
    const auto b = torch::autograd::grad({Loss(expected)}, exact);
    for (size_t i = 0; i < inputs.size(); ++i) {
      ExpectClose(a[i], b[i], 2e-5, name + "input " + std::to_string(i));
    }
    // Without a graph: the same numbers.
    const LstmOutput plain =
        LstmSequence(inputs[0], inputs[1], inputs[2], inputs[3], reset);
    EXPECT_TRUE(plain.y.equal(actual.y)) << name;
  }
}

// An initial state that wants no gradient, as in training.
TEST(LstmSequenceTest, InitialStateMayBeConstant) {
  const Inputs inputs = RandomInputs(2, 9, 16, 3);
  const Inputs all = Leaves(inputs, at::kFloat);
  const Inputs some = Leaves(inputs, at::kFloat);
  const auto a = torch::autograd::grad(
      {Loss(LstmSequence(all[0], all[1], all[2], all[3]))}, {all[0], all[1]});
  const auto b = torch::autograd::grad(
      {Loss(LstmSequence(some[0], some[1], inputs[2], inputs[3]))},
      {some[0], some[1]});
  EXPECT_TRUE(a[0].equal(b[0]));
  EXPECT_TRUE(a[1].equal(b[1]));
}

TEST(LstmSequenceTest, Bf16IsNearFp32) {
  const Inputs inputs = RandomInputs(4, 20, 32, 5);
  const Inputs fp32 = Leaves(inputs, at::kFloat);
  const Inputs bf16 = Leaves(inputs, at::kFloat);
  const auto a = torch::autograd::grad(
      {Loss(LstmSequence(fp32[0], fp32[1], fp32[2], fp32[3]))}, fp32);
  const auto b = torch::autograd::grad(
      {Loss(LstmSequence(bf16[0], bf16[1], bf16[2], bf16[3], {},
                         TrainingPrecision::kBf16))},
      bf16);
  for (size_t i = 0; i < inputs.size(); ++i) {
    const double error = b[i].sub(a[i]).norm().div(a[i].norm()).item<double>();
    EXPECT_GT(error, 1e-5) << "input " << i;  // It does round.
    EXPECT_LT(error, 0.1) << "input " << i;
  }
}

}  // namespace
}  // namespace esper::policy
