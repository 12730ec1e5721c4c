// Acting and training never share a type: the tests T1 to T9 and T15 of the
// contract between them.
#include "core/policy/gradient_contract.h"

#include <sstream>
#include <thread>
#include <type_traits>

#include "ATen/CPUGeneratorImpl.h"
#include "ATen/ops/randn.h"
#include "ATen/ops/zeros.h"
#include "c10/core/GradMode.h"
#include "c10/core/InferenceMode.h"
#include "core/error.h"
#include "core/policy/evaluator.h"
#include "core/policy/inference_policy.h"
#include "core/policy/loss_builder.h"
#include "core/policy/recurrent_policy.h"
#include "gtest/gtest.h"
#include "spdlog/sinks/ostream_sink.h"
#include "spdlog/spdlog.h"
#include "tests/core/policy/test_policy.h"
#include "tests/core/policy/test_specs.h"

namespace esper::policy {
namespace {

// T2: wrong combinations do not compile.
using Ratio = decltype(&ImportanceRatio);
static_assert(
    std::is_invocable_v<Ratio, DifferentiableTensor, BehaviourTensor>);
static_assert(
    !std::is_invocable_v<Ratio, BehaviourTensor, DifferentiableTensor>);
static_assert(!std::is_invocable_v<Ratio, BehaviourTensor, BehaviourTensor>);
static_assert(
    !std::is_invocable_v<Ratio, DifferentiableTensor, DifferentiableTensor>);
static_assert(!std::is_invocable_v<Ratio, at::Tensor, at::Tensor>);
static_assert(!std::is_invocable_v<Ratio, at::Tensor, BehaviourTensor>);
static_assert(!std::is_invocable_v<Ratio, DifferentiableTensor, at::Tensor>);
using Policy = decltype(&PolicyLoss);
static_assert(
    std::is_invocable_v<Policy, DifferentiableTensor, at::Tensor, double>);
static_assert(
    !std::is_invocable_v<Policy, BehaviourTensor, at::Tensor, double>);
static_assert(!std::is_invocable_v<Policy, at::Tensor, at::Tensor, double>);
static_assert(!std::is_invocable_v<Policy, DifferentiableTensor,
                                   DifferentiableTensor, double>);
using Value = decltype(&ValueLoss);
static_assert(!std::is_invocable_v<Value, BehaviourTensor, at::Tensor>);
static_assert(!std::is_invocable_v<Value, at::Tensor, at::Tensor>);
using Entropy = decltype(&EntropyLoss);
static_assert(!std::is_invocable_v<Entropy, BehaviourTensor>);
static_assert(!std::is_invocable_v<Entropy, at::Tensor>);
static_assert(!std::is_convertible_v<BehaviourTensor, at::Tensor>);
static_assert(!std::is_constructible_v<at::Tensor, BehaviourTensor>);
static_assert(!std::is_convertible_v<BehaviourTensor, DifferentiableTensor>);
static_assert(!std::is_constructible_v<DifferentiableTensor, BehaviourTensor>);
static_assert(!std::is_constructible_v<DifferentiableTensor, at::Tensor>);
static_assert(!std::is_constructible_v<BehaviourTensor, DifferentiableTensor>);

class GradientContractTest : public ::testing::Test {
 protected:
  TestPolicy policy_{SmallNetworkGrowing(3)};
};

// Runs `body`, which must throw GradientContractError, and returns it.
template <typename Body>
GradientContractError Violation(Body body) {
  try {
    body();
  } catch (const GradientContractError& error) {
    return error;
  }
  ADD_FAILURE() << "nothing was thrown";
  return GradientContractError({}, "");
}

// T1
TEST_F(GradientContractTest, ActingRefusesEveryInputThatRequiresAGradient) {
  auto generator = at::make_generator<at::CPUGeneratorImpl>(3);
  const at::Tensor before = generator.get_state();
  for (const std::string name : {"observations", "h", "c"}) {
    PolicyInputs inputs = policy_.RandomStep(4);
    at::Tensor& tensor = name == "observations" ? inputs.observations
                         : name == "h"          ? inputs.state.h
                                                : inputs.state.c;
    tensor.requires_grad_(true);
    const auto error = Violation([&] {
      policy_.inference().GetAction(inputs, GeneratorNoise{generator});
    });
    EXPECT_EQ(error.detail().tensor, name);
    EXPECT_EQ(error.reason(), "INFERENCE_ONLY");
    const std::string message = error.what();
    EXPECT_NE(message.find("GetAction"), std::string::npos);
    EXPECT_NE(message.find("inference only"), std::string::npos);
    EXPECT_NE(message.find("EvaluateActions"), std::string::npos);
    EXPECT_EQ(Violation([&] { policy_.inference().GetValue(inputs); })
                  .detail()
                  .tensor,
              name);
  }
  EXPECT_TRUE(generator.get_state().equal(before));
  policy_.inference().GetAction(policy_.RandomStep(4),
                                GeneratorNoise{generator});
  EXPECT_FALSE(generator.get_state().equal(before)) << "the check can fail";
}

// T3
TEST_F(GradientContractTest, EveryResultOfActingIsAnInferenceTensor) {
  SampleOptions options;
  options.driver_logits = true;
  options.q_values = true;
  const ActionSample sample = policy_.inference().GetAction(
      policy_.RandomStep(4), CounterKeys{policy_.Keys(4)}, options);
  for (const BehaviourTensor& x :
       {sample.log_probs, sample.entropies, sample.values, sample.driver_logits,
        sample.q_values}) {
    at::Tensor raw = x.unsafe_tensor();
    EXPECT_TRUE(raw.is_inference());
    EXPECT_FALSE(raw.requires_grad());
    EXPECT_THROW(raw.requires_grad_(true), c10::Error);
  }
  EXPECT_TRUE(sample.next_state.h.is_inference());
  EXPECT_TRUE(sample.next_state.c.is_inference());
  EXPECT_TRUE(sample.actions.is_inference());
}

TEST_F(GradientContractTest, NoWeightOfASnapshotCanGetAGradient) {
  const NetworkWeights& weights = *policy_.inference().acting().weights;
  EXPECT_TRUE(weights.first_layers.weight.is_inference());
  at::Tensor weight = weights.lstm[0].weight_hh;
  EXPECT_FALSE(weight.requires_grad());
  EXPECT_THROW(weight.requires_grad_(true), c10::Error);
  // A copy: training the module does not move it.
  const at::Tensor before = weight.clone();
  const c10::NoGradGuard no_grad;
  policy_.module().Parameter("lstm.layers.0.weight_hh_l0").add_(1);
  EXPECT_TRUE(weight.equal(before));
}

// T4
TEST_F(GradientContractTest, AMixedLossIsRefusedBeforeAnyGradient) {
  const auto [sample, inputs] = policy_.SampleAndRecord(4);
  const Evaluation evaluation = EvaluateActions(policy_.module(), inputs);
  LossBuilder builder(policy_.module());
  builder
      .AddPolicyTerm("policy", sample.log_probs.unsafe_tensor().clone().mean(),
                     {"op", "slot"})
      .AddTerm("value", ValueLoss(evaluation.values, at::zeros({4, 1})));
  const auto error = Violation([&] { builder.Backward(); });
  EXPECT_EQ(error.detail().field, "policy");
  EXPECT_EQ(error.reason(), "NOT_DIFFERENTIABLE");
  for (const at::Tensor& parameter : policy_.module().parameters()) {
    EXPECT_FALSE(parameter.grad().defined());
  }
}

// T5
TEST_F(GradientContractTest, ACloneThatRequiresAGradientIsFoundOut) {
  const auto [sample, inputs] = policy_.SampleAndRecord(4);
  const Evaluation evaluation = EvaluateActions(policy_.module(), inputs);
  at::Tensor clone = sample.log_probs.unsafe_tensor().clone();
  clone.requires_grad_(true);
  LossBuilder builder(policy_.module());
  builder.AddPolicyTerm("policy", clone.exp().mean(), {"op", "slot"})
      .AddTerm("value", ValueLoss(evaluation.values, at::zeros({4, 1})));
  const auto error = Violation([&] { builder.Backward(); });
  EXPECT_EQ(error.reason(), "POLICY_TERM_MISSING");
  EXPECT_NE(std::string(error.what()).find("op, slot"), std::string::npos);
  for (const at::Tensor& parameter : policy_.module().parameters()) {
    EXPECT_FALSE(parameter.grad().defined());
  }
}

TEST_F(GradientContractTest, AnHonestLossTrainsEveryHeadItNames) {
  const auto [sample, inputs] = policy_.SampleAndRecord(64);
  const Evaluation evaluation = EvaluateActions(policy_.module(), inputs);
  const ImportanceRatios ratios =
      ImportanceRatio(evaluation.log_probs, policy_.Recorded(sample));
  LossBuilder builder(policy_.module());
  builder
      .AddPolicyTerm("policy", PolicyLoss(ratios.ratios, at::randn({64, 1, 8})),
                     {"op", "slot", "blueprint"})
      .AddTerm("value", ValueLoss(evaluation.values, at::zeros({64, 1})), 0.5)
      .AddTerm("entropy", EntropyLoss(evaluation.entropies), 0.01);
  const LossBuilder::Report report = builder.Backward();
  EXPECT_TRUE(std::isfinite(report.loss));
  EXPECT_TRUE(report.zero_gradient_heads.empty());
  EXPECT_GT(policy_.module()
                .Parameter("op_head.2.weight")
                .grad()
                .abs()
                .max()
                .item<float>(),
            0);
  EXPECT_EQ(ratios.version_lag, -1) << "the sample is of version 1";
}

TEST_F(GradientContractTest, AnAllZeroGradientIsReportedButLegal) {
  const auto [sample, inputs] = policy_.SampleAndRecord(4);
  const Evaluation evaluation = EvaluateActions(policy_.module(), inputs);
  LossBuilder builder(policy_.module());
  builder.AddPolicyTerm("policy", evaluation.log_probs.tensor().mul(0).sum(),
                        {"op"});
  EXPECT_EQ(builder.Backward().zero_gradient_heads,
            std::vector<std::string>{"op"});
}

// T6
TEST_F(GradientContractTest, EvaluatingWithoutAGradientIsRefused) {
  const EvaluationInputs inputs = policy_.SampleAndRecord(4).second;
  const auto refused = [&] {
    return Violation([&] { EvaluateActions(policy_.module(), inputs); })
        .reason();
  };
  const auto reference = [&] {
    return EvaluateReference(policy_.module(), inputs).log_probs.numel();
  };
  {
    const c10::InferenceMode inference;
    EXPECT_EQ(refused(), "NOT_DIFFERENTIABLE");
    EXPECT_EQ(reference(), 4 * 8);
  }
  {
    const c10::NoGradGuard no_grad;
    EXPECT_EQ(refused(), "NOT_DIFFERENTIABLE");
    EXPECT_EQ(reference(), 4 * 8);
  }
  for (at::Tensor parameter : policy_.module().parameters()) {
    parameter.requires_grad_(false);
  }
  EXPECT_EQ(refused(), "NOT_DIFFERENTIABLE");
  EXPECT_EQ(reference(), 4 * 8);
}

// T7
TEST_F(GradientContractTest, EvaluatingRefusesInferenceTensorsByName) {
  const auto [sample, recorded] = policy_.SampleAndRecord(4);
  EvaluationInputs hidden = recorded;
  hidden.state = sample.next_state;
  EXPECT_EQ(Violation([&] { EvaluateActions(policy_.module(), hidden); })
                .detail()
                .tensor,
            "h");
  EvaluationInputs actions = recorded;
  actions.actions = sample.actions.unsqueeze(1);
  EXPECT_EQ(Violation([&] { EvaluateActions(policy_.module(), actions); })
                .detail()
                .tensor,
            "actions");
  EXPECT_NO_THROW(EvaluateReference(policy_.module(), actions));
}

// T8
TEST_F(GradientContractTest, OneFrozenHeadWarnsOnce) {
  const EvaluationInputs inputs = policy_.SampleAndRecord(2).second;
  for (at::Tensor parameter : policy_.module().HeadParameters("op")) {
    parameter.requires_grad_(false);
  }
  std::ostringstream log;
  const auto previous = spdlog::default_logger();
  spdlog::set_default_logger(std::make_shared<spdlog::logger>(
      "test", std::make_shared<spdlog::sinks::ostream_sink_mt>(log)));
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&] {
      for (int call = 0; call < 13; ++call) {
        const Evaluation result = EvaluateActions(policy_.module(), inputs);
        EXPECT_FALSE(result.trainable[7]);
        EXPECT_TRUE(result.trainable[0]);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  spdlog::set_default_logger(previous);
  const std::string text = log.str();
  const size_t first = text.find("frozen");
  EXPECT_NE(first, std::string::npos);
  EXPECT_EQ(text.find("frozen", first + 1), std::string::npos) << text;
  EXPECT_NE(text.find("op"), std::string::npos);
}

// T9, the float32 half
TEST(RatioTest, IsOneBeforeAnyTraining) {
  for (const FloorMode mode :
       {FloorMode::kNone, FloorMode::kUpstream, FloorMode::kMixture}) {
    for (const int64_t layers : {1, 2}) {
      PolicySpec spec = SmallNetworkGrowing(3, layers);
      spec.floor_mode = mode;
      for (HeadSpec& head : spec.heads) head.floor = 0.05;
      TestPolicy policy(spec);
      const TestPolicy::Step step = policy.SampleStep(16);
      const Evaluation evaluation =
          EvaluateActions(policy.module(), step.recorded);
      const at::Tensor ratios =
          ImportanceRatio(evaluation.log_probs, policy.Recorded(step.sample))
              .ratios.tensor();
      // Acting packs its weights and sums in another order.
      EXPECT_LT(ratios.sub(1).abs().max().item<float>(), 1e-4)
          << FloorModeName(mode);
      // With tensors, too: evaluating streams packed recurrent weights.
      const ActionSample sample =
          GetAction(policy.inference().acting(), step.inputs,
                    CounterKeys{policy.Keys(16)});
      EXPECT_TRUE(sample.actions.equal(step.sample.actions));
      const at::Tensor again =
          ImportanceRatio(evaluation.log_probs, policy.Recorded(sample))
              .ratios.tensor();
      EXPECT_LT(again.sub(1).abs().max().item<float>(), 1e-5)
          << FloorModeName(mode);
      EXPECT_LT(evaluation.values.tensor()
                    .squeeze(1)
                    .sub(sample.values.unsafe_tensor().clone())
                    .abs()
                    .max()
                    .item<float>(),
                1e-5);
    }
  }
}

TEST(RatioTest, IsOneOverWholeEpisodesActedStepByStep) {
  TestPolicy policy(SmallNetworkGrowing(3, /*layers=*/2));
  const auto [log_probs, inputs] = policy.Rollout(/*batch=*/5, /*steps=*/20);
  const Evaluation evaluation = EvaluateActions(policy.module(), inputs);
  EXPECT_LT(evaluation.log_probs.tensor()
                .sub(log_probs)
                .exp()
                .sub(1)
                .abs()
                .max()
                .item<float>(),
            1e-4);
}

TEST_F(GradientContractTest, RatioRefusesAnotherSpecificationOrOtherFloors) {
  const auto [sample, inputs] = policy_.SampleAndRecord(4);
  EvaluationOptions options;
  options.floors = *policy_.spec().FloorsFrom(FloorMode::kMixture, {});
  const Evaluation other = EvaluateActions(policy_.module(), inputs, options);
  const BehaviourTensor behaviour = policy_.Recorded(sample);
  EXPECT_EQ(
      Violation([&] { ImportanceRatio(other.log_probs, behaviour); }).reason(),
      "SPEC_MISMATCH");
  const Evaluation same = EvaluateActions(policy_.module(), inputs);
  auto origin = std::make_shared<BehaviourOrigin>(behaviour.origin());
  origin->spec_digest = "another";
  const auto foreign = BehaviourTensor::FromRecorded(behaviour.unsafe_tensor(),
                                                     std::move(origin));
  EXPECT_EQ(
      Violation([&] { ImportanceRatio(same.log_probs, foreign); }).reason(),
      "SPEC_MISMATCH");
  EXPECT_THROW(ImportanceRatio(same.log_probs, sample.log_probs), ShapeError);
}

TEST_F(GradientContractTest, RecordedNumbersCannotRequireAGradient) {
  EXPECT_EQ(Violation([&] {
              BehaviourTensor::FromRecorded(at::zeros({2}).requires_grad_(true),
                                            nullptr);
            }).reason(),
            "NOT_DIFFERENTIABLE");
}

// T15
TEST_F(GradientContractTest, DeterministicActingDrawsNothing) {
  const auto global = at::detail::getDefaultCPUGenerator();
  const at::Tensor before = global.get_state();
  const PolicyInputs inputs = policy_.RandomStep(8);
  const at::Tensor after_inputs = global.get_state();
  const ActionSample a = policy_.inference().GetAction(inputs, NoNoise{});
  const ActionSample b = policy_.inference().GetAction(inputs, NoNoise{});
  policy_.inference().GetAction(inputs, CounterKeys{policy_.Keys(8)});
  const RecurrentPolicy fresh(policy_.spec(), /*init_seed=*/5);
  EXPECT_TRUE(global.get_state().equal(after_inputs));
  EXPECT_TRUE(before.equal(after_inputs)) << "test inputs draw from their own";
  EXPECT_TRUE(a.actions.equal(b.actions));
  // A deterministic row among sampled ones takes the same choices.
  auto keys = policy_.Keys(8);
  for (NoiseKey& key : keys) key.deterministic = true;
  EXPECT_TRUE(policy_.inference()
                  .GetAction(inputs, CounterKeys{keys})
                  .actions.equal(a.actions));
}

}  // namespace
}  // namespace esper::policy
