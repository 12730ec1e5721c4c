// T18: what holds for every row that a policy can act on and be trained on.
#include <random>
#include <string>

#include "core/policy/evaluator.h"
#include "core/policy/sampler.h"
#include "gtest/gtest.h"
#include "tests/core/policy/naive_policy.h"
#include "tests/core/policy/test_policy.h"
#include "tests/core/policy/test_specs.h"

namespace esper::policy {
namespace {

constexpr uint32_t kSeed = 20240608;

// The action of each head is allowed by the mask that the rules leave it; a
// head that does not matter has log-probability and entropy 0.
void CheckRows(const PolicySpec& spec, const HeadLayout& layout,
               const PolicyInputs& step, const ActionSample& sample) {
  const at::Tensor masks = step.action_masks.contiguous();
  const at::Tensor log_probs = sample.log_probs.unsafe_tensor().contiguous();
  const at::Tensor entropies = sample.entropies.unsafe_tensor().contiguous();
  const int64_t heads = layout.num_heads();
  for (int64_t n = 0; n < masks.size(0); ++n) {
    const int64_t* action =
        sample.actions.const_data_ptr<int64_t>() + n * heads;
    const std::vector<int64_t> actions(action, action + heads);
    for (int64_t k = 0; k < heads; ++k) {
      const bool* base =
          masks.const_data_ptr<bool>() + n * layout.width() + layout.offset(k);
      std::vector<Mask> conditional;
      if (k == layout.conditional_head()) {
        const int64_t choices = step.conditional_mask.size(1);
        for (int64_t c = 0; c < choices; ++c) {
          const bool* row = step.conditional_mask.const_data_ptr<bool>() +
                            (n * choices + c) * layout.size(k);
          conditional.emplace_back(row, row + layout.size(k));
        }
      }
      const Mask allowed = NaiveMask(spec, k, Mask(base, base + layout.size(k)),
                                     actions, conditional);
      ASSERT_TRUE(allowed[actions[k]]) << "row " << n << " head " << k;
      const float log_prob = log_probs.const_data_ptr<float>()[n * heads + k];
      const float entropy = entropies.const_data_ptr<float>()[n * heads + k];
      ASSERT_LE(log_prob, 1e-6);
      ASSERT_GE(entropy, -1e-6);
      ASSERT_LE(entropy, 1 + 1e-5);
      const int64_t driver = layout.driver(k);
      if (driver < 0 || layout.Relevant(k, actions[driver])) continue;
      ASSERT_EQ(log_prob, 0);
      ASSERT_EQ(entropy, 0);
    }
  }
}

void CheckAgreement(const ActionSample& sample, const Evaluation& evaluation) {
  EXPECT_TRUE(evaluation.log_probs.tensor().squeeze(1).allclose(
      sample.log_probs.unsafe_tensor().clone(), 1e-5, 1e-5));
  EXPECT_TRUE(evaluation.entropies.tensor().squeeze(1).allclose(
      sample.entropies.unsafe_tensor().clone(), 1e-5, 1e-5));
  EXPECT_TRUE(evaluation.values.tensor().squeeze(1).allclose(
      sample.values.unsafe_tensor().clone(), 1e-5, 1e-5));
}

// 10^4 rows of every specification, divided among the kinds of floor.
TEST(SamplerPropertyTest, SamplerAndEvaluatorAgreeOnRandomRows) {
  std::mt19937 random(kSeed);
  for (PolicySpec spec : AllTestSpecs()) {
    for (const FloorMode mode : {FloorMode::kNone, FloorMode::kUpstream,
                                 FloorMode::kExact, FloorMode::kMixture}) {
      SCOPED_TRACE(spec.name + ", " + FloorModeName(mode));
      spec.floor_mode = mode;
      for (HeadSpec& head : spec.heads) head.floor = random() % 300 * 1e-3;
      TestPolicy policy(spec);
      const TestPolicy::Step step = policy.SampleStep(/*batch=*/2500);
      ASSERT_NO_FATAL_FAILURE(
          CheckRows(spec, policy.module().layout(), step.inputs, step.sample));
      CheckAgreement(step.sample,
                     EvaluateActions(policy.module(), step.recorded));
    }
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

}  // namespace
}  // namespace esper::policy
