#include <memory>
#include <string>

#include "ATen/TensorOperators.h"
#include "ATen/ops/full_like.h"
#include "ATen/ops/randn.h"
#include "ATen/ops/zeros_like.h"
#include "core/error.h"
#include "core/policy/evaluator.h"
#include "core/policy/loss_builder.h"
#include "core/policy/recurrent_policy.h"
#include "core/ppo/learner.h"
#include "core/ppo/learner_core.h"
#include "gtest/gtest.h"
#include "tests/core/ppo/learner_fixture.h"
#include "tests/testing/status_matchers.h"

// What a learner refuses to step on, and gradients that come from outside.
namespace esper::ppo {
namespace {

using ::esper::testing::Refused;
constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr auto kPrecondition = absl::StatusCode::kFailedPrecondition;

TEST(LearnerGradientTest, StopsAboveTheDivergenceLimitAndAccumulatesNothing) {
  const auto learner = MakeLearner();
  const auto episodes = Episodes(*learner);
  PpoOptions options = FirstPass();
  OptimStepOptions step;
  step.learning_rate = 0.05;
  bool stopped = false;
  for (int pass = 0; pass < 20 && !stopped; ++pass) {
    const auto report = learner->ForwardBackward(episodes, options);
    ASSERT_OK(report);
    stopped = report->kl_stop;
    EXPECT_EQ(stopped, report->approx_kl > 1.5 * 0.015);
    EXPECT_EQ(learner->has_gradient(), !stopped);
    if (!stopped) {
      ASSERT_OK(learner->OptimStep(step));
    }
    options.update_statistics = false;
  }
  EXPECT_TRUE(stopped);
}

TEST(LearnerGradientTest, RefusesAStepWithoutAGradient) {
  const auto learner = MakeLearner();
  EXPECT_THAT(learner->OptimStep({}),
              Refused(kPrecondition, "NOT_DIFFERENTIABLE"));
}

TEST(LearnerGradientTest, DropsAGradientThatOverflowed) {
  const auto learner = MakeLearner();
  const auto episodes = Episodes(*learner);
  const NamedTensors before = learner->Weights();
  // Each is finite, their sum is not.
  for (int i = 0; i < 8; ++i) {
    auto evaluation = learner->Evaluate(episodes, /*keep_graph=*/true);
    ASSERT_OK(evaluation);
    Cotangents cotangents;
    cotangents.values = at::full_like((*evaluation)->Numbers().values, 2e36);
    ASSERT_OK(learner->AccumulateGradients(**evaluation, cotangents));
  }
  const auto step = learner->OptimStep({});
  ASSERT_OK(step);
  EXPECT_FALSE(step->stepped);
  EXPECT_EQ(step->nonfinite_tensor.substr(0, 17), "state_value_head.");
  EXPECT_FALSE(learner->has_gradient());
  ExpectSame(learner->Weights(), before);
}

TEST(LearnerGradientTest, DropsStepsThatAreNotFiniteAndEndsAfterThree) {
  LearnerConfig config = TestConfig();
  const auto learner = MakeLearner(config);
  const auto episodes = Episodes(*learner);
  const LearnerState before = learner->Save();
  const auto poison = [&] {
    ASSERT_OK(learner->ForwardBackward(episodes, {}));
    LearnerState state = learner->Save();
    for (auto& [name, tensor] : state.tensors) {
      if (name == "gradient.op_head.0.bias") tensor[0].fill_(3e38f);
      if (name == "gradient.op_head.2.bias") tensor[0].fill_(3e38f);
    }
    ASSERT_OK(learner->Restore(state));
  };
  for (int i = 0; i < 2; ++i) {
    poison();
    // The squares of these entries overflow Adam's second moment.
    const auto step = learner->OptimStep({1e38, std::nullopt});
    ASSERT_OK(step);
    EXPECT_FALSE(step->stepped);
    EXPECT_EQ(step->nonfinite_tensor, "update");
    EXPECT_EQ(step->weights_change_l2, 0);
    EXPECT_FALSE(learner->has_gradient());
    EXPECT_EQ(learner->optimizer_steps(), 0);
    ExpectSame(learner->Save().tensors, before.tensors);
  }
  poison();
  EXPECT_THAT(learner->OptimStep({1e38, std::nullopt}),
              Refused(kPrecondition, "TRAINING_DIVERGED"));
  ExpectSame(learner->Save().tensors, before.tensors);
  // A good step ends the row.
  ASSERT_OK(learner->ForwardBackward(episodes, {}));
  ASSERT_OK(learner->OptimStep({}));
  poison();
  ASSERT_OK(learner->OptimStep({1e38, std::nullopt}));
}

TEST(LearnerGradientTest, SkipsAPassWhoseOutputsAreNotFinite) {
  const auto learner = MakeLearner();
  const auto episodes = Episodes(*learner, {20, 20});
  LearnerState state = learner->Save();
  for (auto& [name, tensor] : state.tensors) {
    if (name == "weights.state_value_head.8.weight") tensor.fill_(3e38f);
  }
  ASSERT_OK(learner->Restore(state));
  const NamedTensors before = learner->Weights();
  for (int i = 0; i < 2; ++i) {
    const auto report = learner->ForwardBackward(episodes, FirstPass());
    ASSERT_OK(report);
    EXPECT_TRUE(report->skipped_nonfinite);
    EXPECT_FALSE(report->accumulated);
    EXPECT_EQ(report->nonfinite_term, "value");
    EXPECT_FALSE(learner->has_gradient());
    EXPECT_EQ(learner->transitions_trained(), 0);
    EXPECT_EQ(learner->value_sigma(), 1.0);
    ExpectSame(learner->Weights(), before);
  }
  EXPECT_THAT(learner->ForwardBackward(episodes, FirstPass()),
              Refused(kPrecondition, "TRAINING_DIVERGED"));
}

TEST(LearnerGradientTest, CotangentsOfTheLossGiveTheGradientOfTheLoss) {
  // The client's own loss, differentiated by hand, against autograd's.
  const auto learner = MakeLearner();
  const auto episodes = Episodes(*learner);
  auto evaluation = learner->Evaluate(episodes, /*keep_graph=*/true);
  ASSERT_OK(evaluation);
  const EvaluationNumbers numbers = (*evaluation)->Numbers();
  Cotangents cotangents;
  cotangents.trains_policy = true;
  cotangents.log_probs = at::randn(numbers.log_probs.sizes());
  cotangents.values = at::randn(numbers.values.sizes());
  const auto norm = learner->AccumulateGradients(**evaluation, cotangents);
  ASSERT_OK(norm);
  EXPECT_GT(*norm, 0);
  const NamedTensors actual = learner->Gradients();

  policy::RecurrentPolicy network(learner->spec(), 0);
  ASSERT_OK(network.LoadStateDict(learner->Weights()));
  network.eval();
  for (const Trajectory& row : episodes) {
    policy::EvaluationInputs inputs;
    inputs.observations = row.observations.unsqueeze(0);
    inputs.categorical = row.categorical.unsqueeze(0);
    inputs.actions = row.actions.unsqueeze(0);
    inputs.action_masks = row.action_masks.unsqueeze(0);
    inputs.state = {row.initial_h.unsqueeze(1), row.initial_c.unsqueeze(1)};
    const policy::Evaluation now = policy::EvaluateActions(network, inputs);
    const int64_t b = &row - episodes.data(), n = row.length();
    const auto part = [b, n](const at::Tensor& x) {
      return x.slice(0, b, b + 1).slice(1, 0, n);
    };
    ((now.log_probs.tensor() * part(cotangents.log_probs)).sum() +
     (now.values.tensor() * part(cotangents.values)).sum())
        .backward();
  }
  NamedTensors expected;
  for (const auto& item : network.named_parameters()) {
    const at::Tensor& gradient = item.value().grad();
    expected.emplace_back(item.key(), gradient.defined()
                                          ? gradient
                                          : at::zeros_like(item.value()));
  }
  EXPECT_LT(RelativeDifference(actual, expected), 1e-4);
  // Used once.
  EXPECT_FALSE((*evaluation)->differentiable());
  EXPECT_THAT(learner->AccumulateGradients(**evaluation, cotangents),
              Refused(kPrecondition, "NOT_DIFFERENTIABLE"));
}

TEST(LearnerGradientTest, RefusesCotangentsThatCannotTrain) {
  const auto learner = MakeLearner();
  const auto episodes = Episodes(*learner);
  Cotangents cotangents;
  auto reference = learner->Evaluate(episodes, /*keep_graph=*/false);
  ASSERT_OK(reference);
  cotangents.values = at::zeros_like((*reference)->Numbers().values);
  EXPECT_THAT(learner->AccumulateGradients(**reference, cotangents),
              Refused(kPrecondition, "NOT_DIFFERENTIABLE"));

  auto open = learner->Evaluate(episodes, /*keep_graph=*/true);
  ASSERT_OK(open);
  const auto refused = [&](const char* reason) {
    EXPECT_THAT(learner->AccumulateGradients(**open, cotangents),
                Refused(kInvalid, reason));
    EXPECT_TRUE((*open)->differentiable());
    EXPECT_FALSE(learner->has_gradient());
  };
  cotangents.trains_policy = true;
  refused("POLICY_TERM_MISSING");
  cotangents.trains_policy = false;
  cotangents.values = at::Tensor();
  refused("MALFORMED_REQUEST");
  cotangents.values = at::randn({2, 2});
  refused("BAD_SHAPE");
  cotangents.values = at::full_like((*open)->Numbers().values, kNan);
  refused("NONFINITE_INPUT");
  // NaN in padding is nobody's mistake.
  cotangents.values = at::zeros_like((*open)->Numbers().values);
  cotangents.values.masked_fill_((*open)->Numbers().valid.logical_not(), kNan);
  ASSERT_OK(learner->AccumulateGradients(**open, cotangents));

  open = learner->Evaluate(episodes, /*keep_graph=*/true);
  ASSERT_OK(open);
  const auto other = MakeLearner();
  cotangents.values.fill_(1.0f);
  EXPECT_THAT(other->AccumulateGradients(**open, cotangents),
              Refused(kPrecondition, "NOT_DIFFERENTIABLE"));
  ASSERT_OK(learner->OptimStep({}));
  EXPECT_THAT(learner->AccumulateGradients(**open, cotangents),
              Refused(kPrecondition, "EVALUATION_EXPIRED"));
}

TEST(LearnerGradientTest, AFrozenHeadTakesNoCotangent) {
  const auto episodes = Episodes(*MakeLearner());
  LearnerCore core(SmallSpec(), TestConfig(), /*init_seed=*/3);
  core.Publish(/*version=*/1);
  const int64_t frozen = 1;
  const std::string& head = core.spec.heads[frozen].name;
  for (at::Tensor& parameter : core.network->HeadParameters(head)) {
    parameter.requires_grad_(false);
  }
  const auto open = core.Evaluate(episodes, /*keep_graph=*/true);
  EXPECT_FALSE(open->Numbers().trainable[frozen].item<bool>());
  EXPECT_EQ(open->Numbers().trainable.sum().item<int64_t>(),
            core.spec.num_heads() - 1);

  for (const bool entropies : {false, true}) {
    Cotangents cotangents;
    at::Tensor& of_heads =
        entropies ? cotangents.entropies : cotangents.log_probs;
    of_heads = at::full_like(open->Numbers().log_probs, 1);
    try {
      core.AccumulateGradients(*open, cotangents);
      FAIL() << "a frozen head was asked to learn";
    } catch (const InvalidArgumentError& error) {
      EXPECT_EQ(error.reason(), "UNTRAINED_OUTPUT");
      EXPECT_EQ(error.detail().field, head);
      EXPECT_EQ(error.detail().tensor, entropies ? "entropies" : "log_probs");
    }
    EXPECT_FALSE(core.has_gradient());
  }
  // Zeros for the frozen head are nobody's mistake.
  Cotangents others;
  others.trains_policy = true;
  others.log_probs = at::full_like(open->Numbers().log_probs, 1);
  others.log_probs.select(2, frozen).zero_();
  EXPECT_GT(core.AccumulateGradients(*open, others), 0);
}

TEST(LearnerGradientTest, ALossOfActingNumbersIsRefusedNamingThePolicyTerm) {
  // The silent mistake: the policy term made from what acting returned, the
  // value term from the evaluation. Backward alone would succeed.
  const auto learner = MakeLearner();
  const auto episodes = Episodes(*learner, {5});
  policy::RecurrentPolicy network(learner->spec(), 0);
  policy::EvaluationInputs inputs;
  inputs.observations = episodes[0].observations.unsqueeze(0);
  inputs.categorical = episodes[0].categorical.unsqueeze(0);
  inputs.actions = episodes[0].actions.unsqueeze(0);
  inputs.action_masks = episodes[0].action_masks.unsqueeze(0);
  const policy::Evaluation now = policy::EvaluateActions(network, inputs);
  auto origin = std::make_shared<policy::BehaviourOrigin>();
  const auto recorded = policy::BehaviourTensor::FromRecorded(
      episodes[0].behaviour_log_probs, origin);
  const at::Tensor detached = recorded.unsafe_tensor().mean();
  const auto expect_refusal = [&](const at::Tensor& policy_term,
                                  const char* reason, const char* word) {
    policy::LossBuilder builder(network);
    builder.AddTerm("value", now.values.tensor().square().mean());
    try {
      builder.AddPolicyTerm("policy", policy_term, {"op", "slot"});
      builder.Backward();
      FAIL() << "the mixed loss was accepted";
    } catch (const GradientContractError& error) {
      EXPECT_EQ(error.reason(), reason);
      EXPECT_NE(std::string(error.what()).find(word), std::string::npos)
          << error.what();
    }
    for (const at::Tensor& parameter : network.parameters()) {
      EXPECT_FALSE(parameter.grad().defined());
    }
  };
  expect_refusal(detached, "NOT_DIFFERENTIABLE", "policy");
  const at::Tensor disguised =
      recorded.unsafe_tensor().clone().set_requires_grad(true);
  expect_refusal(disguised.mean(), "POLICY_TERM_MISSING", "op");
}

}  // namespace
}  // namespace esper::ppo
