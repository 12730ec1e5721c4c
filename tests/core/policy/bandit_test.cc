// T17: a policy that is trained as the contract says learns; that the opposite
// cannot even be built is the target acting_numbers_do_not_train.
#include <memory>

#include "ATen/ops/full.h"
#include "ATen/ops/zeros.h"
#include "c10/core/GradMode.h"
#include "core/policy/evaluator.h"
#include "core/policy/inference_policy.h"
#include "core/policy/loss_builder.h"
#include "core/policy/recurrent_policy.h"
#include "gtest/gtest.h"
#include "tests/core/policy/test_policy.h"
#include "tests/core/policy/test_specs.h"

namespace esper::policy {
namespace {

constexpr int64_t kBatch = 64;
constexpr int64_t kGoodOp = 5;

// A bandit: whatever is observed, the good op pays 1 and the others nothing.
class Bandit {
 public:
  Bandit() : policy_(SmallNetworkGrowing(2)) {
    op_ = policy_.spec().HeadIndex("op");
  }

  // Share of the good op in one batch acted by the present weights; then one
  // step of plain gradient descent on the clipped surrogate.
  double Update(uint64_t round, double learning_rate) {
    const auto acting =
        *InferencePolicy::Create(policy_.spec(), policy_.module().StateDict(),
                                 static_cast<int64_t>(round) + 1);
    PolicyInputs step;
    step.observations = policy_.Normal({kBatch, 85});
    step.categorical = at::full({kBatch, 2}, -1, at::kLong);
    std::vector<NoiseKey> keys;
    for (uint64_t row = 0; row < kBatch; ++row) keys.push_back({row, round});
    const ActionSample sample = acting->GetAction(step, CounterKeys{keys});

    EvaluationInputs inputs;
    inputs.observations = step.observations.unsqueeze(1);
    inputs.categorical = step.categorical.unsqueeze(1);
    inputs.actions = sample.actions.clone().unsqueeze(1);
    const Evaluation evaluation = EvaluateActions(policy_.module(), inputs);
    const ImportanceRatios ratios =
        ImportanceRatio(evaluation.log_probs, policy_.Recorded(sample));
    const at::Tensor reward =
        sample.actions.select(1, op_).eq(kGoodOp).to(at::kFloat);
    const at::Tensor advantages =
        at::zeros({kBatch, 1, policy_.spec().num_heads()});
    advantages.select(2, op_).select(1, 0).copy_(reward - reward.mean());
    policy_.module().zero_grad();
    LossBuilder(policy_.module())
        .AddPolicyTerm("policy", PolicyLoss(ratios.ratios, advantages), {"op"})
        .Backward();
    const c10::NoGradGuard no_grad;
    for (at::Tensor parameter : policy_.module().parameters()) {
      if (parameter.grad().defined()) {
        parameter.sub_(parameter.grad(), learning_rate);
      }
    }
    return reward.mean().item<double>();
  }

 private:
  TestPolicy policy_;
  int64_t op_ = 0;
};

TEST(BanditTest, ATrainedPolicyFindsTheOneGoodOp) {
  Bandit bandit;
  double first = 0;
  double last = 0;
  for (uint64_t round = 0; round < 150; ++round) {
    const double share = bandit.Update(round, /*learning_rate=*/2.0);
    if (round == 0) first = share;
    if (round >= 140) last += share / 10;
  }
  EXPECT_LT(first, 0.5) << "there is something to learn";
  EXPECT_GT(last, 0.9);
}

TEST(BanditTest, WithoutStepsNothingIsLearnt) {
  Bandit bandit;
  double share = 0;
  for (uint64_t round = 0; round < 20; ++round) {
    share += bandit.Update(round, /*learning_rate=*/0) / 20;
  }
  EXPECT_LT(share, 0.5);
}

}  // namespace
}  // namespace esper::policy
