// Initialisation, state dicts, policy files and snapshots.
#include "core/policy/recurrent_policy.h"

#include <cmath>
#include <limits>
#include <thread>

#include "ATen/CPUGeneratorImpl.h"
#include "ATen/ops/eye.h"
#include "ATen/ops/full.h"
#include "ATen/ops/ones.h"
#include "ATen/ops/zeros.h"
#include "core/error.h"
#include "core/policy/inference_policy.h"
#include "core/policy/parameter_list.h"
#include "core/policy/policy_io.h"
#include "gtest/gtest.h"
#include "tests/core/policy/test_policy.h"
#include "tests/core/policy/test_specs.h"
#include "tests/testing/status_matchers.h"

namespace esper::policy {
namespace {

using ::esper::testing::Refused;
using ::esper::testing::StatusIs;
using tensor::NamedTensors;

constexpr absl::StatusCode kInvalid = absl::StatusCode::kInvalidArgument;

at::Tensor& Entry(NamedTensors& state, const std::string& name) {
  for (auto& [key, value] : state) {
    if (key == name) return value;
  }
  throw std::out_of_range(name);
}

void ExpectOrthogonal(const at::Tensor& weight, double gain,
                      const std::string& name) {
  const bool wide = weight.size(0) < weight.size(1);
  const at::Tensor product =
      wide ? weight.mm(weight.t()) : weight.t().mm(weight);
  const at::Tensor expected = at::eye(product.size(0)).mul(gain * gain);
  EXPECT_LT(product.sub(expected).abs().max().item<float>(), 1e-5) << name;
}

TEST(RecurrentPolicyTest, InitialisesByItsRules) {
  const PolicySpec spec = SmallNetworkGrowing(3, /*layers=*/2);
  const RecurrentPolicy policy(spec, /*init_seed=*/3);
  for (const ParameterInfo& info : ListParameters(spec)) {
    const at::Tensor value = policy.Parameter(info.name).detach();
    switch (info.kind) {
      case ParameterKind::kOrthogonal:
        ExpectOrthogonal(value, info.gain, info.name);
        break;
      case ParameterKind::kZero:
        EXPECT_EQ(value.abs().max().item<float>(), 0) << info.name;
        break;
      case ParameterKind::kOne:
        EXPECT_TRUE(value.eq(1).all().item<bool>()) << info.name;
        break;
      case ParameterKind::kLstmBias: {
        at::Tensor expected = at::zeros({64});
        expected.narrow(0, 16, 16).fill_(1 + std::log(2.0));
        EXPECT_TRUE(value.equal(expected)) << info.name;
        break;
      }
      case ParameterKind::kEmbedding:
        EXPECT_NEAR(value.std().item<float>(), 0.02, 0.006);
        break;
      case ParameterKind::kNullIndex:
        EXPECT_EQ(value.item<int64_t>(), 13);
        break;
      case ParameterKind::kLogStd:
        ADD_FAILURE() << info.name << " of a policy without Gaussian heads";
        break;
    }
  }
}

TEST(RecurrentPolicyTest, GivesEveryLayerItsGain) {
  std::map<std::string, double> gains;
  for (const ParameterInfo& info : ListParameters(SmallNetworkGrowing(3))) {
    gains[info.name] = info.gain;
  }
  const double hidden = std::sqrt(2.0);
  EXPECT_DOUBLE_EQ(gains["feature_net.0.weight"], hidden);
  EXPECT_DOUBLE_EQ(gains["lstm.input_proj.weight"], hidden);
  EXPECT_DOUBLE_EQ(gains["lstm.layers.0.weight_hh_l0"], 1);
  EXPECT_DOUBLE_EQ(gains["blueprint_head.2.weight"], hidden);
  EXPECT_DOUBLE_EQ(gains["blueprint_head.4.weight"], 0.01);
  EXPECT_DOUBLE_EQ(gains["op_head.2.weight"], 0.01);
  EXPECT_DOUBLE_EQ(gains["state_value_head.8.weight"], 0.1);
  EXPECT_DOUBLE_EQ(gains["q_head.8.weight"], 0.1);
  EXPECT_DOUBLE_EQ(gains["contribution_predictor.6.weight"], 0.1);
}

TEST(RecurrentPolicyTest, HasUpstreamsSizeAndNames) {
  const PolicySpec spec = PolicySpec::NetworkGrowing();
  int64_t elements = 0;
  std::vector<std::string> names;
  for (const ParameterInfo& info : ListParameters(spec)) {
    if (info.kind == ParameterKind::kNullIndex) continue;
    int64_t size = 1;
    for (const int64_t dim : info.shape) size *= dim;
    elements += size;
    names.push_back(info.name);
  }
  EXPECT_EQ(elements, 4006502);
  ASSERT_EQ(names.size(), 77);
  EXPECT_EQ(names[7], "lstm.layers.0.bias_hh_l0");
  EXPECT_EQ(names[36], "op_head.2.weight");
  EXPECT_EQ(names[38], "blueprint_embedding.embedding.weight");
  // The module tree spells the same names.
  const RecurrentPolicy policy(SmallNetworkGrowing(3), 1);
  for (const auto& item : policy.named_parameters()) {
    EXPECT_TRUE(policy.Parameter(item.key()).is_same(item.value()));
  }
  EXPECT_EQ(policy.named_parameters().size() + 1, policy.StateDict().size());
  EXPECT_TRUE(policy.named_buffers().contains("blueprint_embedding._null_idx"));
}

TEST(RecurrentPolicyTest, IsAFunctionOfItsSeed) {
  const PolicySpec spec = SmallNetworkGrowing(3);
  const NamedTensors a = RecurrentPolicy(spec, 4).StateDict();
  const NamedTensors b = RecurrentPolicy(spec, 4).StateDict();
  NamedTensors c = RecurrentPolicy(spec, 5).StateDict();
  for (size_t i = 0; i < a.size(); ++i) {
    EXPECT_TRUE(a[i].second.equal(b[i].second)) << a[i].first;
  }
  EXPECT_FALSE(Entry(c, "op_head.0.weight").equal(a[10].second));
}

TEST(RecurrentPolicyTest, LoadsAllOrNothing) {
  const PolicySpec spec = SmallNetworkGrowing(3);
  RecurrentPolicy policy(spec, 1);
  const NamedTensors before = policy.StateDict();
  const NamedTensors other = RecurrentPolicy(spec, 2).StateDict();

  NamedTensors missing = other;
  missing.pop_back();
  EXPECT_THAT(policy.LoadStateDict(missing), Refused(kInvalid, "BAD_SHAPE"));
  NamedTensors surplus = other;
  surplus.emplace_back("extra", at::ones({1}));
  EXPECT_THAT(policy.LoadStateDict(surplus), Refused(kInvalid, "BAD_SHAPE"));
  NamedTensors twice = other;
  twice.push_back(twice.back());
  EXPECT_THAT(policy.LoadStateDict(twice), Refused(kInvalid, "BAD_SHAPE"));
  NamedTensors shape = other;
  Entry(shape, "op_head.2.bias") = at::zeros({7});
  EXPECT_THAT(policy.LoadStateDict(shape), Refused(kInvalid, "BAD_SHAPE"));
  EXPECT_EQ(DetailOf(policy.LoadStateDict(shape))->tensor, "op_head.2.bias");
  NamedTensors dtype = other;
  Entry(dtype, "op_head.2.bias") = at::zeros({6}, at::kDouble);
  EXPECT_THAT(policy.LoadStateDict(dtype), Refused(kInvalid, "BAD_SHAPE"));
  NamedTensors null_index = other;
  Entry(null_index, "blueprint_embedding._null_idx") =
      at::full({}, 12, at::kLong);
  EXPECT_THAT(policy.LoadStateDict(null_index), Refused(kInvalid, "BAD_SHAPE"));
  NamedTensors nan = other;
  Entry(nan, "q_head.8.bias") =
      at::full({1}, std::numeric_limits<float>::quiet_NaN());
  EXPECT_THAT(policy.LoadStateDict(nan), Refused(kInvalid, "NONFINITE_INPUT"));

  const NamedTensors unchanged = policy.StateDict();
  for (size_t i = 0; i < before.size(); ++i) {
    EXPECT_TRUE(unchanged[i].second.equal(before[i].second));
  }
  ASSERT_OK(policy.LoadStateDict(other));
  const NamedTensors loaded = policy.StateDict();
  for (size_t i = 0; i < other.size(); ++i) {
    EXPECT_TRUE(loaded[i].second.equal(other[i].second));
  }
  EXPECT_TRUE(policy.Parameter("op_head.2.weight").requires_grad());
}

TEST(RecurrentPolicyTest, InitialStateMayEnterTraining) {
  const RecurrentPolicy policy(SmallNetworkGrowing(3, 2), 1);
  const RecurrentState state = policy.InitialState(5);
  EXPECT_EQ(state.h.sizes().vec(), (std::vector<int64_t>{2, 5, 16}));
  EXPECT_FALSE(state.c.is_inference());
}

TEST(PolicyIoTest, GivesBackSpecificationAndWeights) {
  for (const PolicySpec& spec : AllTestSpecs()) {
    const RecurrentPolicy policy(spec, 3);
    const std::string path = ::testing::TempDir() + "/policy.safetensors";
    ASSERT_OK(WritePolicy(path, spec, policy.StateDict(), {{"note", "x"}}));
    const auto file = ReadPolicy(path);
    ASSERT_OK(file);
    EXPECT_TRUE(file->spec == spec) << spec.name;
    EXPECT_EQ(file->metadata.at("note"), "x");
    const NamedTensors expected = policy.StateDict();
    ASSERT_EQ(file->weights.size(), expected.size());
    for (size_t i = 0; i < expected.size(); ++i) {
      EXPECT_EQ(file->weights[i].first, expected[i].first);
      EXPECT_TRUE(file->weights[i].second.equal(expected[i].second));
    }
  }
}

TEST(PolicyIoTest, DerivesTheConfigurationFromShapes) {
  for (const int slots : {1, 5}) {
    for (const int64_t layers : {1, 3}) {
      const PolicySpec spec = SmallNetworkGrowing(slots, layers);
      tensor::Safetensors file;
      for (const auto& [name, value] : RecurrentPolicy(spec, 3).StateDict()) {
        // As a compiled upstream network names its weights.
        file.tensors.emplace_back("_orig_mod." + name, value);
      }
      const auto imported = ImportPolicy(file);
      ASSERT_OK(imported);
      EXPECT_TRUE(imported->spec == spec);
      file.metadata["slot_ids"] = slots == 1 ? "r3c1" : "a,b,c,d,e";
      EXPECT_EQ(ImportPolicy(file)->spec.slot_ids[0],
                slots == 1 ? "r3c1" : "a");
      file.metadata["slot_ids"] = "r0c0,r0c1";
      EXPECT_THAT(ImportPolicy(file), Refused(kInvalid, "BAD_SHAPE"));
    }
  }
}

TEST(PolicyIoTest, RefusesFilesOfAnotherGenerationOrPolicy) {
  const PolicySpec spec = SmallNetworkGrowing(3);
  tensor::Safetensors file;
  file.tensors = RecurrentPolicy(spec, 3).StateDict();
  const auto failed_precondition = absl::StatusCode::kFailedPrecondition;

  tensor::Safetensors old = file;
  for (auto& [name, value] : old.tensors) {
    if (name.rfind("state_value_head.", 0) == 0) name = name.substr(6);
  }
  EXPECT_THAT(ImportPolicy(old), Refused(failed_precondition, "SPEC_MISMATCH"));
  tensor::Safetensors version = file;
  version.metadata["value_head_schema_version"] = "1";
  EXPECT_THAT(ImportPolicy(version),
              Refused(failed_precondition, "SPEC_MISMATCH"));
  tensor::Safetensors other = file;
  other.metadata["policy_spec"] = PlainDiscrete().ToJson();
  EXPECT_THAT(ImportPolicy(other), Refused(kInvalid, "BAD_SHAPE"));
  tensor::Safetensors wide = file;
  Entry(wide.tensors, "feature_net.0.weight") = at::ones({24, 129});
  EXPECT_THAT(ImportPolicy(wide), Refused(kInvalid, "BAD_SHAPE"));
  tensor::Safetensors vector = file;
  Entry(vector.tensors, "slot_head.2.weight") = at::ones({3});
  EXPECT_THAT(ImportPolicy(vector), Refused(kInvalid, "BAD_SHAPE"));
  EXPECT_THAT(ImportPolicy({}), Refused(kInvalid, "BAD_SHAPE"));
}

TEST(InferencePolicyTest, RefusesBadWeightsSpecificationsAndStatistics) {
  const PolicySpec spec = SmallNetworkGrowing(3);
  const NamedTensors weights = RecurrentPolicy(spec, 1).StateDict();
  PolicySpec bad = spec;
  bad.hidden_dim = 0;
  EXPECT_THAT(InferencePolicy::Create(bad, weights, 1),
              Refused(kInvalid, "BAD_SPEC"));
  EXPECT_THAT(InferencePolicy::Create(spec, {}, 1), StatusIs(kInvalid));
  for (const ObservationNormalizer& normalizer :
       {ObservationNormalizer{at::zeros({5}), at::ones({5})},
        ObservationNormalizer{at::zeros({116}), at::Tensor()},
        ObservationNormalizer{at::zeros({116}), at::full({116}, -1.0)},
        ObservationNormalizer{
            at::full({116}, std::numeric_limits<double>::infinity()),
            at::ones({116})}}) {
    EXPECT_THAT(InferencePolicy::Create(spec, weights, 1, normalizer),
                Refused(kInvalid, "BAD_SHAPE"));
  }
}

TEST(InferencePolicyTest, NormalizesRawObservations) {
  TestPolicy policy(SmallNetworkGrowing(3));
  const PolicySpec& spec = policy.spec();
  ObservationNormalizer normalizer;
  normalizer.mean = policy.Normal({116}).to(at::kDouble);
  normalizer.variance = policy.Normal({116}).square().to(at::kDouble);
  normalizer.variance[3] = 0.0;  // A constant feature.
  const auto normalized =
      InferencePolicy::Create(spec, policy.module().StateDict(), 9, normalizer);
  ASSERT_OK(normalized);
  PolicyInputs step = policy.RandomStep(6);
  step.observations[0][3] = 1000;
  const ActionSample sample =
      (*normalized)->GetAction(step, CounterKeys{policy.Keys(6)});
  PolicyInputs by_hand = step;
  by_hand.observations = step.observations.to(at::kDouble)
                             .sub(normalizer.mean)
                             .div(normalizer.variance.add(1e-4).sqrt())
                             .clamp(-10, 10)
                             .to(at::kFloat);
  EXPECT_EQ(by_hand.observations[0][3].item<float>(), 10);
  const ActionSample expected =
      policy.inference().GetAction(by_hand, CounterKeys{policy.Keys(6)});
  EXPECT_TRUE(sample.actions.equal(expected.actions));
  EXPECT_TRUE(sample.values.unsafe_tensor().allclose(
      expected.values.unsafe_tensor(), 1e-4, 1e-5));
  EXPECT_EQ(sample.policy_version, 9);
  EXPECT_EQ(sample.spec_digest, spec.Digest());
  EXPECT_TRUE((*normalized)
                  ->GetValue(step)
                  .unsafe_tensor()
                  .allclose(sample.values.unsafe_tensor(), 1e-5, 1e-6));
  step.observations[1][2] = std::numeric_limits<float>::infinity();
  EXPECT_THROW((*normalized)->GetAction(step, NoNoise{}), NonFiniteError);
}

TEST(InferencePolicyTest, ActsFromManyThreadsAtOnce) {
  TestPolicy policy(SmallNetworkGrowing(3));
  const PolicyInputs step = policy.RandomStep(4);
  const CounterKeys keys{policy.Keys(4)};
  const ActionSample expected = policy.inference().GetAction(step, keys);
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int call = 0; call < 20; ++call) {
        const ActionSample sample = policy.inference().GetAction(step, keys);
        EXPECT_TRUE(sample.actions.equal(expected.actions));
        EXPECT_TRUE(sample.next_state.h.equal(expected.next_state.h));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace esper::policy
