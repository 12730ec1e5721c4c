#include "core/policy/packed_policy.h"

#include <random>
#include <string>

#include "ATen/CPUGeneratorImpl.h"
#include "ATen/ops/ones_like.h"
#include "ATen/ops/zeros_like.h"
#include "core/error.h"
#include "core/policy/packed_acting.h"
#include "gtest/gtest.h"
#include "tests/core/policy/test_policy.h"
#include "tests/core/policy/test_specs.h"

namespace esper::policy {
namespace {

std::vector<PolicySpec> EverySpec() {
  std::vector<PolicySpec> specs = AllTestSpecs();
  for (PolicySpec& spec : GaussianTestSpecs()) specs.push_back(spec);
  PolicySpec projected = SmallNetworkGrowing(2, /*layers=*/2);
  projected.feature_dim = 40;
  projected.hidden_dim = 8;
  projected.name = "projected";
  specs.push_back(projected);
  return specs;
}

at::Tensor Raw(const BehaviourTensor& x) {
  return x.defined() ? x.unsafe_tensor() : at::Tensor();
}

void ExpectClose(const at::Tensor& actual, const at::Tensor& expected,
                 const std::string& what) {
  ASSERT_EQ(actual.defined(), expected.defined()) << what;
  if (!actual.defined()) return;
  ASSERT_EQ(actual.sizes(), expected.sizes()) << what;
  EXPECT_TRUE(actual.allclose(expected, 1e-4, 2e-5))
      << what << ": " << actual.sub(expected).abs().max().item<float>();
}

// Every result of acting, of the packed policy and of the sampler of tensors.
void ExpectSame(const ActionSample& actual, const ActionSample& expected) {
  EXPECT_TRUE(actual.actions.equal(expected.actions));
  ExpectClose(actual.continuous_actions, expected.continuous_actions,
              "continuous");
  ExpectClose(Raw(actual.log_probs), Raw(expected.log_probs), "log_probs");
  ExpectClose(Raw(actual.entropies), Raw(expected.entropies), "entropies");
  ExpectClose(Raw(actual.values), Raw(expected.values), "values");
  ExpectClose(Raw(actual.driver_logits), Raw(expected.driver_logits),
              "driver_logits");
  ExpectClose(Raw(actual.q_values), Raw(expected.q_values), "q_values");
  ExpectClose(actual.next_state.h, expected.next_state.h, "h");
  ExpectClose(actual.next_state.c, expected.next_state.c, "c");
  EXPECT_EQ(actual.policy_version, expected.policy_version);
  EXPECT_EQ(actual.spec_digest, expected.spec_digest);
  EXPECT_EQ(actual.log_probs.origin().floors,
            expected.log_probs.origin().floors);
}

TEST(PackedPolicyTest, ActsAsTheSamplerOfTensorsDoes) {
  std::mt19937 random(20240702);
  for (PolicySpec spec : EverySpec()) {
    for (const FloorMode mode : {FloorMode::kNone, FloorMode::kUpstream,
                                 FloorMode::kExact, FloorMode::kMixture}) {
      SCOPED_TRACE(spec.name + ", " + FloorModeName(mode));
      spec.floor_mode = mode;
      for (HeadSpec& head : spec.heads) {
        if (head.kind == HeadKind::kGaussian) continue;
        head.floor = random() % 3 == 0 ? 0 : random() % 400 * 1e-3;
      }
      TestPolicy policy(spec);
      const ActingPolicy& reference = policy.inference().acting();
      SampleOptions options;
      options.driver_logits = true;
      options.q_values = true;
      PolicyInputs inputs = policy.RandomStep(/*batch=*/150);
      std::vector<NoiseKey> keys = policy.Keys(150);
      for (NoiseKey& key : keys) key.deterministic = random() % 4 == 0;
      const CounterKeys counter{keys};
      ExpectSame(policy.inference().GetAction(inputs, counter, options),
                 GetAction(reference, inputs, counter, options));
      ExpectSame(policy.inference().GetAction(inputs, NoNoise{}, options),
                 GetAction(reference, inputs, NoNoise{}, options));
      const auto generator = [] {
        return GeneratorNoise{at::make_generator<at::CPUGeneratorImpl>(3)};
      };
      inputs.conditional_mask = at::Tensor();
      ExpectSame(policy.inference().GetAction(inputs, generator(), options),
                 GetAction(reference, inputs, generator(), options));
      inputs.action_masks = at::Tensor();
      inputs.state = {};
      ExpectSame(policy.inference().GetAction(inputs, counter, options),
                 GetAction(reference, inputs, counter, options));
      ExpectClose(Raw(policy.inference().GetValue(inputs)),
                  Raw(GetValue(reference, inputs)), "value");
    }
  }
}

PolicyInputs RowsOf(const PolicyInputs& all, int64_t begin, int64_t rows) {
  const auto take = [&](const at::Tensor& x, int64_t dim) {
    return x.defined() ? x.narrow(dim, begin, rows) : x;
  };
  PolicyInputs inputs;
  inputs.observations = take(all.observations, 0);
  inputs.categorical = take(all.categorical, 0);
  inputs.action_masks = take(all.action_masks, 0);
  inputs.conditional_mask = take(all.conditional_mask, 0);
  inputs.state = {take(all.state.h, 1), take(all.state.c, 1)};
  return inputs;
}

// Bit by bit, whatever the number of rows: an action depends on its episode,
// never on who shares its batch.
void ExpectBatchInvariance(const PolicySpec& spec,
                           InferencePrecision precision) {
  constexpr int64_t kRows = 64;
  TestPolicy policy(spec);
  const auto acting = InferencePolicy::Create(spec, policy.module().StateDict(),
                                              1, {}, std::nullopt, precision)
                          .value();
  const PolicyInputs all = policy.RandomStep(kRows);
  const std::vector<NoiseKey> keys = policy.Keys(kRows);
  const ActionSample expected = acting->GetAction(all, CounterKeys{keys});
  for (int64_t rows = 1; rows < kRows; ++rows) {
    for (const int64_t begin : {int64_t{0}, kRows - rows}) {
      const ActionSample sample = acting->GetAction(
          RowsOf(all, begin, rows),
          CounterKeys{{keys.begin() + begin, keys.begin() + begin + rows}});
      const auto same = [&](const at::Tensor& x, const at::Tensor& y, int dim) {
        return x.equal(y.narrow(dim, begin, rows));
      };
      ASSERT_TRUE(same(sample.actions, expected.actions, 0)) << rows;
      ASSERT_TRUE(same(Raw(sample.log_probs), Raw(expected.log_probs), 0));
      ASSERT_TRUE(same(Raw(sample.values), Raw(expected.values), 0));
      ASSERT_TRUE(same(sample.next_state.h, expected.next_state.h, 1));
      ASSERT_TRUE(same(sample.next_state.c, expected.next_state.c, 1));
    }
  }
}

TEST(PackedPolicyTest, ARowGivesTheSameBitsInEveryBatch) {
  ExpectBatchInvariance(SmallNetworkGrowing(3, /*layers=*/2),
                        InferencePrecision::kFp32);
  ExpectBatchInvariance(Hybrid(), InferencePrecision::kFp32);
}

TEST(PackedPolicyTest, ARowGivesTheSameBitsInEveryBatchInBf16) {
  if (HasBf16Products()) GTEST_SKIP() << "oneDNN chooses blocks by batch.";
  ExpectBatchInvariance(SmallNetworkGrowing(3), InferencePrecision::kBf16);
}

TEST(PackedPolicyTest, RefusesWhatTheSamplerOfTensorsRefuses) {
  TestPolicy policy(SmallNetworkGrowing(3));
  const auto refusal = [&](const PolicyInputs& inputs) -> std::string {
    std::string results[2];
    for (const bool packed : {false, true}) {
      try {
        const CounterKeys keys{policy.Keys(4)};
        packed ? policy.inference().GetAction(inputs, keys)
               : GetAction(policy.inference().acting(), inputs, keys);
      } catch (const Error& error) {
        results[packed] = error.what();
      }
    }
    EXPECT_EQ(results[0], results[1]);
    return results[1];
  };
  const PolicyInputs good = policy.RandomStep(4);
  EXPECT_EQ(refusal(good), "");
  PolicyInputs bad = good;
  bad.observations = good.observations.clone();
  bad.observations[2][1] = NAN;
  EXPECT_NE(refusal(bad), "");
  bad = good;
  bad.state.c = good.state.c.clone();
  bad.state.c[0][3][1] = INFINITY;
  EXPECT_NE(refusal(bad), "");
  bad = good;
  bad.categorical = good.categorical.clone();
  bad.categorical[1][0] = 99;
  EXPECT_NE(refusal(bad), "");
  bad = good;
  bad.action_masks = at::zeros_like(good.action_masks);
  EXPECT_NE(refusal(bad), "");
  bad = good;
  bad.conditional_mask = at::zeros_like(good.conditional_mask);
  bad.action_masks = at::ones_like(good.action_masks);
  refusal(bad);
}

}  // namespace
}  // namespace esper::policy
