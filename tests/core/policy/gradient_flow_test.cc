// T10: which parameters each output of an evaluation trains.
#include <set>
#include <string>
#include <vector>

#include "core/policy/evaluator.h"
#include "core/policy/recurrent_policy.h"
#include "gtest/gtest.h"
#include "tests/core/policy/test_policy.h"
#include "tests/core/policy/test_specs.h"

namespace esper::policy {
namespace {

using Groups = std::set<std::string>;

// "trunk" for all that every output network reads.
std::string GroupOf(const std::string& parameter) {
  const std::string module = parameter.substr(0, parameter.find('.'));
  const bool trunk = module == "feature_net" || module == "lstm" ||
                     module.find("_embedding") != std::string::npos;
  return trunk ? "trunk" : module;
}

bool IsTrained(const at::Tensor& gradient) {
  return gradient.defined() && gradient.abs().max().item<float>() > 0;
}

class GradientFlow {
 public:
  explicit GradientFlow(const PolicySpec& spec)
      : policy_(spec),
        inputs_(policy_.Rollout(/*batch=*/24, /*steps=*/4).second) {}

  Evaluation Evaluate(bool aux_stop_gradient = true) {
    EvaluationOptions options;
    options.aux_stop_gradient = aux_stop_gradient;
    return EvaluateActions(policy_.module(), inputs_, options);
  }

  // Groups with a gradient that is not zero after backward from `output`.
  Groups TrainedBy(const at::Tensor& output) {
    policy_.module().zero_grad();
    output.square().sum().backward();
    Groups groups;
    for (const auto& item : policy_.module().named_parameters()) {
      if (IsTrained(item.value().grad())) groups.insert(GroupOf(item.key()));
    }
    return groups;
  }

  TestPolicy& policy() { return policy_; }

 private:
  TestPolicy policy_;
  const EvaluationInputs inputs_;
};

TEST(GradientFlowTest, EveryOutputTrainsItsOwnParametersAndNoOthers) {
  for (const PolicySpec& spec : AllTestSpecs()) {
    SCOPED_TRACE(spec.name);
    GradientFlow flow(spec);
    for (int64_t k = 0; k < spec.num_heads(); ++k) {
      // With one choice there is nothing to train.
      if (spec.heads[k].size == 1) continue;
      const Groups own = {"trunk", spec.heads[k].name + "_head"};
      EXPECT_EQ(flow.TrainedBy(flow.Evaluate().log_probs.tensor().select(2, k)),
                own);
      EXPECT_EQ(flow.TrainedBy(flow.Evaluate().entropies.tensor().select(2, k)),
                own);
    }
    EXPECT_EQ(flow.TrainedBy(flow.Evaluate().values.tensor()),
              (Groups{"trunk", "state_value_head"}));
    if (!spec.q_head.empty()) {
      EXPECT_EQ(flow.TrainedBy(flow.Evaluate().q_values.tensor()),
                Groups{"q_head"});
    }
    if (spec.contribution_outputs > 0) {
      EXPECT_EQ(flow.TrainedBy(flow.Evaluate().contributions.tensor()),
                Groups{"contribution_predictor"});
      EXPECT_EQ(flow.TrainedBy(flow.Evaluate(/*aux_stop_gradient=*/false)
                                   .contributions.tensor()),
                (Groups{"trunk", "contribution_predictor"}));
    }
  }
}

TEST(GradientFlowTest, TogetherTheyTrainEveryParameter) {
  for (const PolicySpec& spec : AllTestSpecs()) {
    SCOPED_TRACE(spec.name);
    GradientFlow flow(spec);
    const Evaluation evaluation = flow.Evaluate();
    at::Tensor sum = evaluation.log_probs.tensor().square().sum() +
                     evaluation.values.tensor().square().sum();
    for (const DifferentiableTensor& output :
         {evaluation.q_values, evaluation.contributions}) {
      if (output.defined()) sum = sum + output.tensor().square().sum();
    }
    flow.policy().module().zero_grad();
    sum.backward();
    for (const auto& item : flow.policy().module().named_parameters()) {
      // The only choice of a head is certain whatever its network says.
      const bool certain =
          spec.slot_ids.size() == 1 && item.key().rfind("slot_head.", 0) == 0;
      EXPECT_EQ(IsTrained(item.value().grad()), !certain) << item.key();
    }
  }
}

TEST(GradientFlowTest, AHeadThatNeverMatteredGetsNoGradient) {
  TestPolicy policy(SmallNetworkGrowing(3));
  const int64_t op = policy.spec().HeadIndex("op");
  PolicyInputs step = policy.RandomStep(16);
  at::Tensor ops = step.action_masks.narrow(
      1, policy.module().layout().offset(op), policy.spec().heads[op].size);
  ops.fill_(true);
  ops.select(1, 1).fill_(false);  // No GERMINATE, which alone has a tempo.
  const ActionSample sample =
      policy.inference().GetAction(step, CounterKeys{policy.Keys(16)});
  EvaluationInputs inputs;
  inputs.observations = step.observations.unsqueeze(1);
  inputs.categorical = step.categorical.unsqueeze(1);
  inputs.actions = sample.actions.clone().unsqueeze(1);
  inputs.state = step.state;
  // The masks do not matter here, so none are given and none are checked.
  inputs.valid = at::zeros({16, 1}, at::kBool);
  const Evaluation evaluation = EvaluateActions(policy.module(), inputs);
  evaluation.log_probs.tensor().sum().backward();
  for (const at::Tensor& own : policy.module().HeadParameters("tempo")) {
    EXPECT_FALSE(IsTrained(own.grad()));
  }
  EXPECT_TRUE(IsTrained(policy.module().HeadParameters("op")[0].grad()));
}

}  // namespace
}  // namespace esper::policy
