// Episode boundaries inside sequences: T16, for one and two recurrent layers.
#include <vector>

#include "ATen/ops/stack.h"
#include "ATen/ops/zeros.h"
#include "core/policy/evaluator.h"
#include "gtest/gtest.h"
#include "tests/core/policy/test_policy.h"
#include "tests/core/policy/test_specs.h"

namespace esper::policy {
namespace {

// Steps [from, from + count) as sequences of their own.
EvaluationInputs Steps(const EvaluationInputs& whole, int64_t from,
                       int64_t count) {
  EvaluationInputs part;
  part.observations = whole.observations.narrow(1, from, count);
  part.categorical = whole.categorical.narrow(1, from, count);
  part.actions = whole.actions.narrow(1, from, count);
  part.action_masks = whole.action_masks.narrow(1, from, count);
  return part;
}

class ResetTest : public ::testing::TestWithParam<int64_t> {
 protected:
  EvaluationInputs Record(int64_t batch, int64_t steps) {
    return policy_.Rollout(batch, steps).second;
  }
  Evaluation Evaluate(const EvaluationInputs& inputs) {
    return EvaluateActions(policy_.module(), inputs);
  }
  int64_t layers() const { return GetParam(); }

  TestPolicy policy_{SmallNetworkGrowing(3, GetParam())};
};

TEST_P(ResetTest, ForgetsWhatCameBefore) {
  const int64_t steps = 6;
  EvaluationInputs inputs = Record(3, steps);
  inputs.reset = at::zeros({3, steps}, at::kBool);
  inputs.reset[1][4] = true;
  const Evaluation whole = Evaluate(inputs);
  // The same steps evaluated as an episode of their own.
  const Evaluation fresh = Evaluate(Steps(inputs, 4, 2));
  const auto difference = [&](int64_t row) {
    return whole.log_probs.tensor()[row]
        .narrow(0, 4, 2)
        .sub(fresh.log_probs.tensor()[row])
        .abs()
        .max()
        .item<float>();
  };
  EXPECT_LT(difference(1), 1e-5);
  EXPECT_GT(difference(0), 1e-4) << "memory matters, so the check can fail";
}

TEST_P(ResetTest, EqualsSteppingWithStatesZeroedByHand) {
  const int64_t batch = 4, steps = 9;
  EvaluationInputs inputs = Record(batch, steps);
  inputs.reset =
      policy_.Bits({batch, steps}).logical_and(policy_.Bits({batch, steps}));
  ASSERT_TRUE(inputs.reset.any().item<bool>());
  const Evaluation whole = Evaluate(inputs);
  RecurrentState state = inputs.state;
  std::vector<at::Tensor> log_probs, values;
  for (int64_t t = 0; t < steps; ++t) {
    const at::Tensor begins = inputs.reset.select(1, t).view({1, batch, 1});
    EvaluationInputs step = Steps(inputs, t, 1);
    step.state = {state.h.masked_fill(begins, 0),
                  state.c.masked_fill(begins, 0)};
    const Evaluation one = Evaluate(step);
    state = one.state;
    log_probs.push_back(one.log_probs.tensor().squeeze(1));
    values.push_back(one.values.tensor().squeeze(1));
  }
  EXPECT_TRUE(
      whole.log_probs.tensor().allclose(at::stack(log_probs, 1), 1e-4, 2e-5));
  EXPECT_TRUE(whole.values.tensor().allclose(at::stack(values, 1), 1e-4, 2e-5));
  EXPECT_TRUE(whole.state.h.allclose(state.h, 1e-4, 2e-5));
  EXPECT_TRUE(whole.state.c.allclose(state.c, 1e-4, 2e-5));
}

TEST_P(ResetTest, NoneAgreesWithThePlainPath) {
  EvaluationInputs inputs = Record(3, 5);
  const Evaluation plain = Evaluate(inputs);
  inputs.reset = at::zeros({3, 5}, at::kBool);
  const Evaluation same = Evaluate(inputs);
  EXPECT_TRUE(
      plain.log_probs.tensor().allclose(same.log_probs.tensor(), 1e-5, 1e-6));
  EXPECT_TRUE(plain.values.tensor().allclose(same.values.tensor(), 1e-5, 1e-6));
  EXPECT_TRUE(plain.state.c.allclose(same.state.c, 1e-5, 1e-6));
}

TEST_P(ResetTest, NoGradientCrossesTheFirstStep) {
  EvaluationInputs inputs = Record(3, 4);
  inputs.state.h = inputs.state.h.clone().requires_grad_(true);
  inputs.state.c = inputs.state.c.clone().requires_grad_(true);
  inputs.reset = at::zeros({3, 4}, at::kBool);
  inputs.reset[1][0] = true;
  const Evaluation result = Evaluate(inputs);
  result.values.tensor().sum().add(result.log_probs.tensor().sum()).backward();
  for (const at::Tensor& state : {inputs.state.h, inputs.state.c}) {
    for (int64_t layer = 0; layer < layers(); ++layer) {
      EXPECT_EQ(state.grad()[layer][1].abs().max().item<float>(), 0);
      EXPECT_GT(state.grad()[layer][0].abs().max().item<float>(), 0);
    }
  }
}

TEST_P(ResetTest, NoGradientCrossesALaterStep) {
  EvaluationInputs inputs = Record(2, 5);
  inputs.observations = inputs.observations.clone().requires_grad_(true);
  inputs.reset = at::zeros({2, 5}, at::kBool);
  inputs.reset[0][3] = true;
  // Only what comes after the boundary.
  Evaluate(inputs).values.tensor().narrow(1, 3, 2).sum().backward();
  const at::Tensor gradient = inputs.observations.grad();
  EXPECT_EQ(gradient[0].narrow(0, 0, 3).abs().max().item<float>(), 0);
  EXPECT_GT(gradient[1].narrow(0, 0, 3).abs().max().item<float>(), 0);
  EXPECT_GT(gradient[0].narrow(0, 3, 2).abs().max().item<float>(), 0);
}

INSTANTIATE_TEST_SUITE_P(Layers, ResetTest, ::testing::Values(1, 2));

}  // namespace
}  // namespace esper::policy
