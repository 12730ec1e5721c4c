// The network's raw answers, and the entry points of a snapshot beside acting.
#include "core/policy/policy_forward.h"

#include <limits>
#include <string>

#include "ATen/ops/ones.h"
#include "ATen/ops/zeros.h"
#include "core/error.h"
#include "core/policy/inference_policy.h"
#include "core/policy/masked_categorical.h"
#include "gtest/gtest.h"
#include "tests/core/policy/test_policy.h"
#include "tests/core/policy/test_specs.h"

namespace esper::policy {
namespace {

class PolicyForwardTest : public ::testing::Test {
 protected:
  ForwardInputs Sequences(int64_t batch, int64_t steps) {
    const PolicyInputs step = policy_.RandomStep(batch * steps);
    ForwardInputs inputs;
    inputs.observations = step.observations.view({batch, steps, -1});
    inputs.categorical = step.categorical.view({batch, steps, -1});
    inputs.action_masks = step.action_masks.view({batch, steps, -1});
    inputs.state = policy_.RandomStep(batch).state;
    return inputs;
  }
  // Reason and tensor (or head) of the error that the call must throw.
  template <typename E>
  std::string Refused(const ForwardInputs& inputs) {
    try {
      policy_.inference().Forward(inputs);
    } catch (const E& error) {
      const ErrorDetail& detail = error.detail();
      return detail.tensor.empty() ? detail.field : detail.tensor;
    }
    return "nothing was thrown";
  }

  TestPolicy policy_{SmallNetworkGrowing(3)};
};

TEST_F(PolicyForwardTest, MasksLogitsAndLeavesTheOthersAlone) {
  ForwardInputs inputs = Sequences(3, 4);
  const ForwardOutput masked = policy_.inference().Forward(inputs);
  const at::Tensor mask = inputs.action_masks;
  inputs.action_masks = at::ones(mask.sizes(), at::kBool);
  const ForwardOutput open = policy_.inference().Forward(inputs);
  const at::Tensor logits = masked.logits.unsafe_tensor();
  EXPECT_TRUE(logits.masked_select(mask).equal(
      open.logits.unsafe_tensor().masked_select(mask)));
  EXPECT_TRUE(logits.masked_select(mask.logical_not())
                  .eq(kMaskedLogit)
                  .all()
                  .item<bool>());
  EXPECT_TRUE(masked.values.unsafe_tensor().equal(open.values.unsafe_tensor()));
  EXPECT_TRUE(logits.is_inference());
}

TEST_F(PolicyForwardTest, OneStepIsWhatActingSees) {
  const PolicyInputs step = policy_.RandomStep(5);
  SampleOptions options;
  options.driver_logits = true;
  options.q_values = true;
  const ActionSample sample =
      policy_.inference().GetAction(step, NoNoise{}, options);
  ForwardInputs inputs;
  inputs.observations = step.observations;
  inputs.categorical = step.categorical;
  inputs.state = step.state;
  inputs.action_masks = step.action_masks;
  const ForwardOutput output = policy_.inference().Forward(inputs);
  const int64_t op = policy_.spec().HeadIndex("op");
  const at::Tensor op_logits = output.logits.unsafe_tensor().squeeze(1).narrow(
      1, policy_.module().layout().offset(op), 6);
  EXPECT_TRUE(
      op_logits.allclose(sample.driver_logits.unsafe_tensor(), 1e-4, 1e-5));
  EXPECT_TRUE(output.values.unsafe_tensor().squeeze(1).allclose(
      sample.values.unsafe_tensor(), 1e-4, 1e-5));
  EXPECT_TRUE(output.state.h.allclose(sample.next_state.h, 1e-4, 1e-5));
  const at::Tensor taken = sample.actions.select(1, op).unsqueeze(1);
  EXPECT_TRUE(output.q_values.unsafe_tensor()
                  .squeeze(1)
                  .gather(1, taken)
                  .squeeze(1)
                  .allclose(sample.q_values.unsafe_tensor(), 1e-5, 1e-6));
}

TEST_F(PolicyForwardTest, RefusesWhatItCannotAnswer) {
  ForwardInputs inputs = Sequences(2, 3);
  inputs.action_masks = at::Tensor();
  EXPECT_EQ(Refused<ShapeError>(inputs), "action_masks");
  inputs = Sequences(2, 3);
  inputs.action_masks = inputs.action_masks.narrow(2, 0, 40);
  EXPECT_EQ(Refused<ShapeError>(inputs), "action_masks");
  inputs = Sequences(2, 3);
  inputs.observations = inputs.observations.narrow(2, 0, 115);
  EXPECT_EQ(Refused<ShapeError>(inputs), "observations");
  inputs = Sequences(2, 3);
  inputs.observations[1][2][0] = std::numeric_limits<float>::infinity();
  EXPECT_EQ(Refused<NonFiniteError>(inputs), "observations");
  inputs = Sequences(2, 3);
  inputs.categorical[0][0][0] = 13;
  EXPECT_EQ(Refused<InvalidArgumentError>(inputs), "categorical");
  inputs = Sequences(2, 3);
  inputs.action_masks[1][2].fill_(false);
  EXPECT_EQ(Refused<EmptyMaskError>(inputs), "op");
  inputs = Sequences(2, 3);
  inputs.state.h.requires_grad_(true);
  EXPECT_EQ(Refused<GradientContractError>(inputs), "h");
}

TEST(PlainPolicyForwardTest, MasksMayBeLeftOutWhereTheSpecificationSaysSo) {
  TestPolicy policy(PlainDiscrete());
  ForwardInputs inputs;
  inputs.observations = policy.Normal({2, 3});
  const ForwardOutput output = policy.inference().Forward(inputs);
  EXPECT_EQ(output.logits.sizes(), (std::vector<int64_t>{2, 1, 4}));
  EXPECT_FALSE(output.q_values.defined());
}

TEST(InferencePolicyTest, PredictsContributionsOfRawObservations) {
  TestPolicy policy(SmallNetworkGrowing(3));
  ObservationNormalizer normalizer;
  normalizer.mean = at::ones({116});
  normalizer.variance = at::ones({116}).mul(4);
  const auto shifted = *InferencePolicy::Create(
      policy.spec(), policy.module().StateDict(), 1, normalizer);
  const PolicyInputs step = policy.RandomStep(4);
  PolicyInputs by_hand = step;
  by_hand.observations = shifted->Normalize(step.observations);
  const at::Tensor raw = shifted->PredictContributions(step).unsafe_tensor();
  EXPECT_EQ(raw.sizes().vec(), (std::vector<int64_t>{4, 3}));
  EXPECT_TRUE(raw.equal(
      policy.inference().PredictContributions(by_hand).unsafe_tensor()));
  EXPECT_FALSE(
      raw.equal(policy.inference().PredictContributions(step).unsafe_tensor()));
  TestPolicy plain(PlainDiscrete());
  EXPECT_THROW(plain.inference().PredictContributions(plain.RandomStep(2)),
               InvalidArgumentError);
}

TEST(InferencePolicyTest, ActsWithTheFloorsOfItsVersion) {
  TestPolicy policy(SmallNetworkGrowing(3));
  const tensor::NamedTensors weights = policy.module().StateDict();
  const FloorSettings scaled = policy.spec().Floors().Scaled(0.25);
  const auto annealed =
      *InferencePolicy::Create(policy.spec(), weights, 2, {}, scaled);
  EXPECT_EQ(annealed->floors(), scaled);
  EXPECT_EQ(annealed->spec_digest(), policy.inference().spec_digest());
  const PolicyInputs step = policy.RandomStep(6);
  const CounterKeys keys{policy.Keys(6)};
  const ActionSample sample = annealed->GetAction(step, keys);
  EXPECT_EQ(sample.log_probs.origin().floors, scaled);
  // As if the same floors had been asked for with the call.
  SampleOptions options;
  options.floors = scaled;
  EXPECT_TRUE(
      sample.log_probs.unsafe_tensor().equal(policy.inference()
                                                 .GetAction(step, keys, options)
                                                 .log_probs.unsafe_tensor()));
  // And training evaluates with them, or is refused.
  EvaluationInputs inputs;
  inputs.observations = step.observations.unsqueeze(1);
  inputs.categorical = step.categorical.unsqueeze(1);
  inputs.actions = sample.actions.clone().unsqueeze(1);
  inputs.state = step.state;
  inputs.valid = at::zeros({6, 1}, at::kBool);
  EvaluationOptions evaluation;
  evaluation.floors = annealed->floors();
  EXPECT_NO_THROW(ImportanceRatio(
      EvaluateActions(policy.module(), inputs, evaluation).log_probs,
      policy.Recorded(sample)));
  EXPECT_THROW(
      ImportanceRatio(EvaluateActions(policy.module(), inputs).log_probs,
                      policy.Recorded(sample)),
      GradientContractError);
  // Annealed to the end there are none left.
  const auto bare =
      *InferencePolicy::Create(policy.spec(), weights, 3, {}, scaled.Scaled(0));
  options.floors = *policy.spec().FloorsFrom(FloorMode::kNone, {});
  EXPECT_TRUE(bare->GetAction(step, keys)
                  .log_probs.unsafe_tensor()
                  .equal(policy.inference()
                             .GetAction(step, keys, options)
                             .log_probs.unsafe_tensor()));
  FloorSettings bad = scaled;
  bad.floors.pop_back();
  const auto refused =
      InferencePolicy::Create(policy.spec(), weights, 1, {}, bad);
  EXPECT_EQ(DetailOf(refused.status())->reason, "BAD_FLOOR");
}

}  // namespace
}  // namespace esper::policy
