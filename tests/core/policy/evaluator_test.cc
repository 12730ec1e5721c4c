// What evaluation and acting refuse and how they agree: T13, T14, T16, T18.
#include "core/policy/evaluator.h"

#include <limits>

#include "ATen/CPUGeneratorImpl.h"
#include "ATen/ops/cat.h"
#include "ATen/ops/full.h"
#include "ATen/ops/ones.h"
#include "ATen/ops/stack.h"
#include "ATen/ops/zeros.h"
#include "core/error.h"
#include "core/policy/lstm_sequence.h"
#include "core/policy/sampler.h"
#include "gtest/gtest.h"
#include "tests/core/policy/test_policy.h"
#include "tests/core/policy/test_specs.h"
#include "torch/csrc/autograd/autograd.h"

namespace esper::policy {
namespace {

constexpr int64_t kGerminate = 1;
constexpr int64_t kRetarget = 2;

// Runs `body`, which must throw an Error of type E, and returns its detail.
template <typename E, typename Body>
ErrorDetail Thrown(Body body) {
  try {
    body();
  } catch (const E& error) {
    return error.detail();
  } catch (const std::exception& error) {
    ADD_FAILURE() << "another error: " << error.what();
    return {};
  }
  ADD_FAILURE() << "nothing was thrown";
  return {};
}

class EvaluatorTest : public ::testing::Test {
 protected:
  // B rows of T steps, recorded by acting.
  EvaluationInputs Record(int64_t batch, int64_t steps) {
    return policy_.Rollout(batch, steps).second;
  }
  Evaluation Evaluate(const EvaluationInputs& inputs) {
    return EvaluateActions(policy_.module(), inputs);
  }
  int64_t Head(const std::string& name) {
    return policy_.spec().HeadIndex(name);
  }
  at::Tensor HeadMask(at::Tensor masks, const std::string& name) {
    const HeadLayout& layout = policy_.module().layout();
    const int64_t k = Head(name);
    return masks.narrow(-1, layout.offset(k), layout.size(k));
  }
  // A step in which the op is fixed and everything else allowed.
  PolicyInputs StepWithOp(int64_t batch, int64_t op) {
    PolicyInputs step = policy_.RandomStep(batch);
    step.action_masks.fill_(true);
    HeadMask(step.action_masks, "op").fill_(false);
    HeadMask(step.action_masks, "op").select(-1, op).fill_(true);
    step.conditional_mask.fill_(true);
    return step;
  }

  TestPolicy policy_{SmallNetworkGrowing(3)};
};

// T13
TEST_F(EvaluatorTest, RefusesActionsOutsideTheirRangeEverywhere) {
  for (const int64_t value : {-1, 6}) {
    EvaluationInputs inputs = Record(3, 4);
    inputs.actions[1][2][Head("op")] = value;
    const auto expect = [&] {
      const ErrorDetail detail =
          Thrown<InvalidActionError>([&] { Evaluate(inputs); });
      EXPECT_EQ(detail.field, "op");
      EXPECT_EQ(detail.row, 1);
      EXPECT_EQ(detail.step, 2);
    };
    expect();
    inputs.valid = at::ones({3, 4}, at::kBool);
    inputs.valid[1][2] = false;
    expect();
  }
}

TEST_F(EvaluatorTest, RefusesMaskedActionsInValidStepsOnly) {
  EvaluationInputs inputs = Record(3, 4);
  const int64_t taken = inputs.actions[2][1][Head("op")].item<int64_t>();
  HeadMask(inputs.action_masks[2][1], "op").fill_(true);
  HeadMask(inputs.action_masks[2][1], "op")[taken] = false;
  const ErrorDetail detail =
      Thrown<InvalidActionError>([&] { Evaluate(inputs); });
  EXPECT_EQ(detail.field, "op");
  EXPECT_EQ(detail.row, 2);
  EXPECT_EQ(detail.step, 1);
  inputs.valid = at::ones({3, 4}, at::kBool);
  inputs.valid[2][1] = false;
  EXPECT_NO_THROW(Evaluate(inputs));
}

TEST_F(EvaluatorTest, RefusesAnIrrelevantHeadAwayFromItsPlaceholder) {
  EvaluationInputs inputs = Record(2, 3);
  inputs.actions[1][0][Head("op")] = 0;  // WAIT
  HeadMask(inputs.action_masks[1][0], "op")[0] = true;
  for (int64_t k = 1; k < 7; ++k) {
    inputs.actions[1][0][k] = *policy_.spec().heads[k].placeholder;
  }
  HeadMask(inputs.action_masks[1][0], "slot").fill_(true);
  inputs.actions[1][0][Head("slot")] = 0;
  EXPECT_NO_THROW(Evaluate(inputs));
  inputs.actions[1][0][Head("style")] = 0;
  EXPECT_EQ(Thrown<InvalidActionError>([&] { Evaluate(inputs); }).field,
            "style");
  inputs.actions[1][0][Head("style")] = 2;
  inputs.actions[1][0][Head("slot")] = 1;
  EXPECT_EQ(Thrown<InvalidActionError>([&] { Evaluate(inputs); }).field,
            "slot");
}

// T14
TEST_F(EvaluatorTest, RefusesAnEmptyMaskOfEveryHeadThatMatters) {
  struct Case {
    const char* head;
    int64_t op;
  };
  for (const Case& test :
       {Case{"op", kGerminate}, Case{"blueprint", kGerminate},
        Case{"style", kGerminate}, Case{"tempo", kGerminate},
        Case{"alpha_target", kRetarget}, Case{"alpha_speed", kRetarget},
        Case{"alpha_curve", kRetarget}}) {
    PolicyInputs step = StepWithOp(3, test.op);
    HeadMask(step.action_masks[1], test.head).fill_(false);
    const ErrorDetail detail = Thrown<EmptyMaskError>(
        [&] { policy_.inference().GetAction(step, NoNoise{}); });
    EXPECT_EQ(detail.field, test.head);
    EXPECT_EQ(detail.row, 1);
  }
  PolicyInputs step = StepWithOp(3, kGerminate);
  step.conditional_mask[2][kGerminate].fill_(false);
  EXPECT_EQ(Thrown<EmptyMaskError>([&] {
              policy_.inference().GetAction(step, NoNoise{});
            }).field,
            "slot");
  // Another row of the conditional mask may be empty.
  step = StepWithOp(3, kGerminate);
  step.conditional_mask[2][kRetarget].fill_(false);
  EXPECT_NO_THROW(policy_.inference().GetAction(step, NoNoise{}));
}

TEST_F(EvaluatorTest, WaitAcceptsAnEmptySlotMask) {
  PolicyInputs step = StepWithOp(2, 0);
  step.conditional_mask.fill_(false);
  HeadMask(step.action_masks, "slot").fill_(false);
  HeadMask(step.action_masks, "blueprint").fill_(false);
  const ActionSample sample = policy_.inference().GetAction(step, NoNoise{});
  EXPECT_EQ(sample.actions[0][0].item<int64_t>(), 0);
  for (int64_t k = 0; k < 8; ++k) {
    EXPECT_EQ(sample.log_probs.unsafe_tensor()[1][k].item<float>(), 0);
    EXPECT_EQ(sample.entropies.unsafe_tensor()[1][k].item<float>(), 0);
  }
}

TEST_F(EvaluatorTest, EvaluationRefusesEmptyMasksInValidStepsOnly) {
  EvaluationInputs inputs = Record(2, 3);
  HeadMask(inputs.action_masks[1][2], "op").fill_(false);
  const ErrorDetail detail = Thrown<EmptyMaskError>([&] { Evaluate(inputs); });
  EXPECT_EQ(detail.field, "op");
  EXPECT_EQ(detail.row, 1);
  EXPECT_EQ(detail.step, 2);
  inputs.valid = at::ones({2, 3}, at::kBool);
  inputs.valid[1][2] = false;
  const Evaluation result = Evaluate(inputs);
  EXPECT_TRUE(result.log_probs.tensor().isfinite().all().item<bool>());
}

TEST_F(EvaluatorTest, RefusesWrongShapesNamingTheTensor) {
  const auto acting = [&](auto change) {
    PolicyInputs step = policy_.RandomStep(3);
    change(step);
    return Thrown<ShapeError>(
               [&] { policy_.inference().GetAction(step, NoNoise{}); })
        .tensor;
  };
  EXPECT_EQ(acting([](PolicyInputs& x) {
              x.observations = at::zeros({3, 2, 116});
            }),
            "observations");
  EXPECT_EQ(acting([](PolicyInputs& x) {
              x.observations = at::zeros({3, 115});
            }),
            "observations");
  EXPECT_EQ(acting([](PolicyInputs& x) {
              x.observations = at::zeros({3, 116}, at::kDouble);
            }),
            "observations");
  EXPECT_EQ(acting([](PolicyInputs& x) { x.observations = at::Tensor(); }),
            "observations");
  EXPECT_EQ(acting([](PolicyInputs& x) {
              x.observations = at::zeros({0, 116});
              x.categorical = at::zeros({0, 3}, at::kLong);
            }),
            "observations");
  EXPECT_EQ(acting([](PolicyInputs& x) { x.categorical = at::Tensor(); }),
            "categorical");
  EXPECT_EQ(acting([](PolicyInputs& x) {
              x.categorical = at::zeros({3, 4}, at::kLong);
            }),
            "categorical");
  EXPECT_EQ(acting([](PolicyInputs& x) {
              x.state.h = at::zeros({1, 2, 16});
            }),
            "h");
  EXPECT_EQ(acting([](PolicyInputs& x) { x.state.c = at::Tensor(); }), "c");
  EXPECT_EQ(acting([](PolicyInputs& x) {
              x.action_masks = at::ones({3, 40}, at::kBool);
            }),
            "action_masks");
  EXPECT_EQ(acting([](PolicyInputs& x) {
              x.action_masks = x.action_masks.to(at::kFloat);
            }),
            "action_masks");
  EXPECT_EQ(acting([](PolicyInputs& x) {
              x.conditional_mask = at::ones({3, 6}, at::kBool);
            }),
            "conditional_mask");
  EXPECT_EQ(acting([](PolicyInputs& x) {
              x.conditional_mask = at::ones({3, 6, 4}, at::kBool);
            }),
            "conditional_mask");
  EvaluationInputs inputs = Record(2, 3);
  inputs.reset = at::zeros({2, 2}, at::kBool);
  EXPECT_EQ(Thrown<ShapeError>([&] { Evaluate(inputs); }).tensor, "reset");
  inputs = Record(2, 3);
  inputs.actions = inputs.actions.narrow(2, 0, 7);
  EXPECT_EQ(Thrown<ShapeError>([&] { Evaluate(inputs); }).tensor, "actions");
}

TEST_F(EvaluatorTest, RefusesNonFiniteInputsAndBadIndicesByRow) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float inf = std::numeric_limits<float>::infinity();
  PolicyInputs step = policy_.RandomStep(3);
  step.observations[2][5] = inf;
  ErrorDetail detail = Thrown<NonFiniteError>(
      [&] { policy_.inference().GetAction(step, NoNoise{}); });
  EXPECT_EQ(detail.reason, "NONFINITE_INPUT");
  EXPECT_EQ(detail.tensor, "observations");
  EXPECT_EQ(detail.row, 2);
  step = policy_.RandomStep(3);
  step.state.c[0][1][3] = nan;
  detail = Thrown<NonFiniteError>(
      [&] { policy_.inference().GetAction(step, NoNoise{}); });
  EXPECT_EQ(detail.tensor, "c");
  EXPECT_EQ(detail.row, 1);
  for (const int64_t index : {-2, 13}) {
    step = policy_.RandomStep(3);
    step.categorical[1][2] = index;
    detail = Thrown<InvalidArgumentError>(
        [&] { policy_.inference().GetAction(step, NoNoise{}); });
    EXPECT_EQ(detail.reason, "BAD_BLUEPRINT_INDEX");
    EXPECT_EQ(detail.row, 1);
  }
  EvaluationInputs inputs = Record(2, 3);
  inputs.observations[1][2][0] = nan;
  detail = Thrown<NonFiniteError>([&] { Evaluate(inputs); });
  EXPECT_EQ(detail.row, 1);
  EXPECT_EQ(detail.step, 2);
}

TEST_F(EvaluatorTest, TellsNonFiniteLogitsFromNonFiniteInput) {
  EvaluationInputs inputs = Record(2, 3);
  {
    const c10::NoGradGuard no_grad;
    policy_.module().Parameter("tempo_head.2.bias")[1] =
        std::numeric_limits<float>::infinity();
  }
  const ErrorDetail detail = Thrown<NonFiniteError>([&] { Evaluate(inputs); });
  EXPECT_EQ(detail.reason, "NONFINITE_LOGITS");
  EXPECT_EQ(detail.field, "tempo");
}

TEST_F(EvaluatorTest, RefusesBadFloorsAndBadNoise) {
  SampleOptions options;
  options.floors = FloorSettings{FloorMode::kMixture, {0.1}};
  const PolicyInputs step = policy_.RandomStep(2);
  EXPECT_EQ(Thrown<InvalidArgumentError>([&] {
              policy_.inference().GetAction(step, NoNoise{}, options);
            }).reason,
            "BAD_FLOOR");
  EXPECT_EQ(
      Thrown<ShapeError>([&] {
        policy_.inference().GetAction(step, GivenNoise{at::ones({2, 40})});
      }).tensor,
      "noise");
  EXPECT_EQ(
      Thrown<NonFiniteError>([&] {
        policy_.inference().GetAction(step, GivenNoise{at::zeros({2, 41})});
      }).tensor,
      "noise");
  Thrown<ShapeError>([&] {
    policy_.inference().GetAction(step, CounterKeys{policy_.Keys(3)});
  });
}

// T16
TEST_F(EvaluatorTest, AResetForgetsWhatCameBefore) {
  const int64_t steps = 6;
  EvaluationInputs inputs = Record(3, steps);
  inputs.reset = at::zeros({3, steps}, at::kBool);
  inputs.reset[1][4] = true;
  const Evaluation whole = Evaluate(inputs);
  // The same steps evaluated as an episode of their own.
  EvaluationInputs tail;
  tail.observations = inputs.observations.narrow(1, 4, 2);
  tail.categorical = inputs.categorical.narrow(1, 4, 2);
  tail.actions = inputs.actions.narrow(1, 4, 2);
  tail.action_masks = inputs.action_masks.narrow(1, 4, 2);
  const Evaluation fresh = Evaluate(tail);
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

TEST_F(EvaluatorTest, AnAllFalseResetAgreesWithThePlainPath) {
  EvaluationInputs inputs = Record(3, 5);
  const Evaluation plain = Evaluate(inputs);
  inputs.reset = at::zeros({3, 5}, at::kBool);
  const Evaluation same = Evaluate(inputs);
  EXPECT_TRUE(
      plain.log_probs.tensor().allclose(same.log_probs.tensor(), 1e-5, 1e-6));
  EXPECT_TRUE(plain.values.tensor().allclose(same.values.tensor(), 1e-5, 1e-6));
}

TEST_F(EvaluatorTest, NoGradientCrossesAReset) {
  EvaluationInputs inputs = Record(3, 4);
  inputs.state.h = inputs.state.h.clone().requires_grad_(true);
  inputs.state.c = inputs.state.c.clone().requires_grad_(true);
  inputs.reset = at::zeros({3, 4}, at::kBool);
  inputs.reset[1][0] = true;
  Evaluate(inputs).values.tensor().sum().backward();
  for (const at::Tensor& state : {inputs.state.h, inputs.state.c}) {
    EXPECT_EQ(state.grad()[0][1].abs().max().item<float>(), 0);
    EXPECT_GT(state.grad()[0][0].abs().max().item<float>(), 0);
  }
}

TEST_F(EvaluatorTest, MasksOfOneStepHoldForAllSteps) {
  EvaluationInputs inputs = Record(2, 3);
  inputs.action_masks = at::ones({2, 41}, at::kBool);
  inputs.valid = at::zeros({2, 3}, at::kBool);
  EvaluationInputs repeated = inputs;
  repeated.action_masks = at::ones({2, 3, 41}, at::kBool);
  EvaluationInputs absent = inputs;
  absent.action_masks = at::Tensor();
  const at::Tensor expected = Evaluate(repeated).log_probs.tensor();
  EXPECT_TRUE(Evaluate(inputs).log_probs.tensor().equal(expected));
  EXPECT_TRUE(Evaluate(absent).log_probs.tensor().equal(expected));
}

TEST_F(EvaluatorTest, DropoutActsInTrainingModeOnlyAndIsSeeded) {
  const EvaluationInputs inputs = Record(4, 5);
  const auto contributions = [&] {
    return Evaluate(inputs).contributions.tensor().detach();
  };
  const at::Tensor plain = contributions();
  EXPECT_TRUE(contributions().equal(plain));
  policy_.module().train();
  policy_.module().SeedDropout(5);
  const at::Tensor first = contributions();
  EXPECT_FALSE(first.equal(plain));
  EXPECT_FALSE(contributions().equal(first)) << "a new mask for each call";
  policy_.module().SeedDropout(5);
  EXPECT_TRUE(contributions().equal(first));
  EXPECT_TRUE(EvaluateReference(policy_.module(), inputs)
                  .contributions.unsafe_tensor()
                  .clone()
                  .equal(plain));
}

// T18
TEST(SamplerPropertyTest, SamplerAndEvaluatorAgreeOnRandomRows) {
  for (const PolicySpec& spec : AllTestSpecs()) {
    TestPolicy policy(spec);
    const int64_t rows = spec.slot_ids.size() == 3 ? 10000 : 500;
    const auto [sample, inputs] = policy.SampleAndRecord(rows);
    const Evaluation evaluation = EvaluateActions(policy.module(), inputs);
    const at::Tensor log_probs = sample.log_probs.unsafe_tensor().clone();
    EXPECT_TRUE(evaluation.log_probs.tensor().squeeze(1).allclose(log_probs,
                                                                  1e-5, 1e-5))
        << spec.name;
    EXPECT_TRUE(evaluation.entropies.tensor().squeeze(1).allclose(
        sample.entropies.unsafe_tensor().clone(), 1e-5, 1e-5))
        << spec.name;
    const at::Tensor irrelevant =
        policy.module().layout().Relevance(sample.actions).logical_not();
    EXPECT_EQ(log_probs.mul(irrelevant).abs().max().item<float>(), 0);
    EXPECT_EQ(sample.entropies.unsafe_tensor()
                  .mul(irrelevant)
                  .abs()
                  .max()
                  .item<float>(),
              0);
    EXPECT_LE(log_probs.max().item<float>(), 1e-6);
  }
}

TEST(SamplerPropertyTest, ARowDoesNotDependOnItsBatch) {
  TestPolicy policy(SmallNetworkGrowing(3));
  const PolicyInputs all = policy.RandomStep(33);
  const std::vector<NoiseKey> keys = policy.Keys(33);
  const ActionSample together =
      policy.inference().GetAction(all, CounterKeys{keys});
  for (int64_t row = 0; row < 33; ++row) {
    PolicyInputs one;
    one.observations = all.observations.narrow(0, row, 1);
    one.categorical = all.categorical.narrow(0, row, 1);
    one.state = {all.state.h.narrow(1, row, 1), all.state.c.narrow(1, row, 1)};
    one.action_masks = all.action_masks.narrow(0, row, 1);
    one.conditional_mask = all.conditional_mask.narrow(0, row, 1);
    const ActionSample alone =
        policy.inference().GetAction(one, CounterKeys{{keys[row]}});
    EXPECT_TRUE(alone.actions[0].equal(together.actions[row])) << row;
  }
}

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
