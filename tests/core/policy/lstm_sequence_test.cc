#include "core/policy/lstm_sequence.h"

#include <vector>

#include "ATen/CPUGeneratorImpl.h"
#include "ATen/ops/stack.h"
#include "ATen/ops/zeros.h"
#include "gtest/gtest.h"
#include "torch/csrc/autograd/autograd.h"

namespace esper::policy {
namespace {

// The written-out backward pass against autograd over plain operations.
TEST(LstmSequenceTest, GradientEqualsAutograd) {
  const int64_t batch = 3, steps = 5, hidden = 4;
  const auto generator = at::make_generator<at::CPUGeneratorImpl>(1);
  const auto leaf = [&](at::IntArrayRef sizes) {
    return at::zeros(sizes, at::kDouble)
        .normal_(0, 1, generator)
        .requires_grad_(true);
  };
  std::vector<at::Tensor> inputs = {
      leaf({batch, steps, 4 * hidden}), leaf({4 * hidden, hidden}),
      leaf({batch, hidden}), leaf({batch, hidden})};
  at::Tensor reset = at::zeros({batch, steps}, at::kBool);
  reset[1][2] = true;
  reset[2][0] = true;
  const auto naive = [&] {
    at::Tensor h = inputs[2], c = inputs[3];
    std::vector<at::Tensor> y;
    for (int64_t t = 0; t < steps; ++t) {
      const at::Tensor keep =
          reset.select(1, t).logical_not().to(at::kDouble).unsqueeze(1);
      h = h.mul(keep);
      c = c.mul(keep);
      const auto gates =
          inputs[0].select(1, t).add(h.matmul(inputs[1].t())).chunk(4, 1);
      c = gates[1].sigmoid().mul(c).add(
          gates[0].sigmoid().mul(gates[2].tanh()));
      h = gates[3].sigmoid().mul(c.tanh());
      y.push_back(h);
    }
    return LstmOutput{at::stack(y, 1), h, c};
  };
  const LstmOutput expected = naive();
  const LstmOutput actual =
      LstmSequence(inputs[0], inputs[1], inputs[2], inputs[3], reset);
  const std::vector<at::Tensor> weights = {leaf({batch, steps, hidden}),
                                           leaf({batch, hidden}),
                                           leaf({batch, hidden})};
  const auto loss = [&](const LstmOutput& out) {
    return out.y.mul(weights[0])
        .sum()
        .add(out.h.mul(weights[1]).sum())
        .add(out.c.mul(weights[2]).sum());
  };
  EXPECT_TRUE(actual.y.allclose(expected.y, 1e-12, 1e-12));
  EXPECT_TRUE(actual.c.allclose(expected.c, 1e-12, 1e-12));
  const auto a = torch::autograd::grad({loss(actual)}, inputs);
  const auto b = torch::autograd::grad({loss(expected)}, inputs);
  for (size_t i = 0; i < inputs.size(); ++i) {
    EXPECT_TRUE(a[i].allclose(b[i], 1e-10, 1e-12)) << "input " << i;
  }
}

}  // namespace
}  // namespace esper::policy
