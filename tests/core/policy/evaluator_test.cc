// What evaluation and acting refuse and how they agree: T13, T14 and the checks
// of inputs.
#include "core/policy/evaluator.h"

#include <cmath>
#include <limits>
#include <vector>

#include "ATen/ops/ones.h"
#include "ATen/ops/zeros.h"
#include "core/error.h"
#include "core/policy/sampler.h"
#include "gtest/gtest.h"
#include "tests/core/policy/test_policy.h"
#include "tests/core/policy/test_specs.h"

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
  EXPECT_EQ(acting([](PolicyInputs& x) {
              x.conditional_mask = x.conditional_mask.to(at::kMeta);
            }),
            "conditional_mask")
      << "on another device";
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

TEST_F(EvaluatorTest, FiniteWeightsCanOverflowWhenActing) {
  {
    const c10::NoGradGuard no_grad;
    policy_.module().Parameter("style_head.2.weight").fill_(3e38f);
  }
  const auto huge =
      InferencePolicy::Create(policy_.spec(), policy_.module().StateDict(), 1);
  ASSERT_TRUE(huge.ok()) << huge.status();
  try {
    (*huge)->GetAction(policy_.RandomStep(3), NoNoise{});
    FAIL() << "nothing was thrown";
  } catch (const NonFiniteError& error) {
    EXPECT_EQ(error.reason(), "NONFINITE_LOGITS");
    EXPECT_EQ(error.code(), absl::StatusCode::kInternal);
    EXPECT_EQ(error.detail().field, "style");
    const std::string message = error.what();
    for (const char* part : {"min", "max", "NaN", "infinite"}) {
      EXPECT_NE(message.find(part), std::string::npos) << message;
    }
  }
}

TEST_F(EvaluatorTest, RefusesBadFloorsAndBadNoise) {
  SampleOptions options;
  options.floors = FloorSettings{FloorMode::kMixture, {0.1}};
  const PolicyInputs step = policy_.RandomStep(2);
  EXPECT_EQ(Thrown<InvalidArgumentError>([&] {
              policy_.inference().GetAction(step, NoNoise{}, options);
            }).reason,
            "BAD_FLOOR");
  for (const double floor : {-0.1, 1.0, std::nan("")}) {
    options.floors =
        FloorSettings{FloorMode::kMixture, std::vector<double>(8, floor)};
    EXPECT_EQ(Thrown<InvalidArgumentError>([&] {
                policy_.inference().GetAction(step, NoNoise{}, options);
              }).reason,
              "BAD_FLOOR");
    EvaluationOptions evaluation;
    evaluation.floors = options.floors;
    const EvaluationInputs inputs = Record(2, 2);
    EXPECT_EQ(Thrown<InvalidArgumentError>([&] {
                EvaluateActions(policy_.module(), inputs, evaluation);
              }).reason,
              "BAD_FLOOR");
  }
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

}  // namespace
}  // namespace esper::policy
