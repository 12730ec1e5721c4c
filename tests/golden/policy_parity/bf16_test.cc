// T9, the bfloat16 half: how far acting in bf16 may be from acting in fp32,
// over the reference vectors. docs/policy.md states the same bounds.

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/policy/inference_policy.h"
#include "core/tensor/safetensors.h"
#include "gtest/gtest.h"
#include "tests/golden/policy_parity/golden_file.h"
#include "tests/golden/policy_parity/golden_network.h"

namespace esper::testing {
namespace {

constexpr char kDirectory[] = "tests/golden/policy";
// Of the log-probability of the action taken, nats: log(1.05), so that the ratio
// of two policies that should be equal is within 5e-2 of 1.
constexpr double kLogProbBound = 4.88e-2;
// Of V, in reward units, over 1 + |V|.
constexpr double kValueBound = 2e-2;
// Share of heads whose sampled choice differs.
constexpr double kFlipBound = 5e-3;

struct Differences {
  double log_prob = 0;
  double value = 0;
  int64_t choices = 0;
  int64_t flipped = 0;

  void Add(const Differences& other) {
    log_prob = std::max(log_prob, other.log_prob);
    value = std::max(value, other.value);
    choices += other.choices;
    flipped += other.flipped;
  }
};

double Largest(const at::Tensor& x) {
  return x.numel() == 0 ? 0 : x.abs().max().item<double>();
}

class Bf16Test : public ::testing::TestWithParam<std::string> {
 protected:
  Bf16Test()
      : file_(
            absl::StrCat(kDirectory, "/", GetParam(), ".evaluate.safetensors")),
        network_(kDirectory, GetParam(), file_) {
    bf16_ = policy::InferencePolicy::Create(
                network_.spec(), network_.module().StateDict(),
                /*policy_version=*/1, {}, std::nullopt,
                policy::InferencePrecision::kBf16)
                .value();
  }

  // The recorded episodes step by step, each precision with a recurrent state
  // of its own, so that what rounding does to the state adds up.
  Differences Compare(const policy::SampleOptions& options, uint64_t seed) {
    const at::Tensor state = file_.Take("state");
    const at::Tensor blueprints = file_.Take("blueprint_indices");
    const at::Tensor masks = network_.TakeChoices(file_, "mask.");
    const at::Tensor reset = file_.Take("reset");
    const int64_t rows = state.size(0);
    policy::RecurrentState exact = {file_.Take("hidden.h"),
                                    file_.Take("hidden.c")};
    policy::RecurrentState rounded = exact;
    Differences worst;
    for (int64_t t = 0; t < state.size(1); ++t) {
      policy::PolicyInputs inputs;
      inputs.observations = state.select(1, t);
      inputs.categorical = blueprints.select(1, t);
      inputs.action_masks = masks.select(1, t);
      policy::CounterKeys keys;
      for (int64_t row = 0; row < rows; ++row) {
        keys.keys.push_back({seed + row, static_cast<uint64_t>(t)});
      }
      const auto step = [&](const policy::InferencePolicy& policy,
                            policy::RecurrentState* hidden) {
        const at::Tensor begin = reset.select(1, t).view({1, -1, 1});
        inputs.state = {hidden->h.masked_fill(begin, 0),
                        hidden->c.masked_fill(begin, 0)};
        const policy::ActionSample sample =
            policy.GetAction(inputs, keys, options);
        *hidden = sample.next_state;
        return sample;
      };
      const policy::ActionSample a = step(network_.inference(), &exact);
      const policy::ActionSample b = step(*bf16_, &rounded);
      const at::Tensor same = a.actions.eq(b.actions);
      // A head is compared where the whole row chose the same: its mask may
      // depend on its driver.
      const at::Tensor row = same.all(1, /*keepdim=*/true);
      Differences now;
      now.log_prob = Largest(a.log_probs.unsafe_tensor()
                                 .sub(b.log_probs.unsafe_tensor())
                                 .mul(row));
      const at::Tensor value = a.values.unsafe_tensor();
      now.value =
          Largest(value.sub(b.values.unsafe_tensor()).div(value.abs().add(1)));
      now.choices = same.numel();
      now.flipped = same.logical_not().sum().item<int64_t>();
      worst.Add(now);
    }
    return worst;
  }

  GoldenFile file_;
  GoldenNetwork network_;
  std::shared_ptr<const policy::InferencePolicy> bf16_;
};

TEST_P(Bf16Test, StaysWithinTheStatedBounds) {
  Differences worst;
  for (const bool floors : {false, true}) {
    policy::SampleOptions options;
    options.floors = network_.Floors(floors);
    for (uint64_t seed = 0; seed < 400; seed += 100) {
      worst.Add(Compare(options, seed));
    }
  }
  const double flipped = static_cast<double>(worst.flipped) / worst.choices;
  RecordProperty("log_prob", absl::StrCat(worst.log_prob));
  RecordProperty("value", absl::StrCat(worst.value));
  RecordProperty("flipped", absl::StrCat(flipped));
  EXPECT_LE(worst.log_prob, kLogProbBound);
  EXPECT_LE(worst.value, kValueBound);
  EXPECT_LE(flipped, kFlipBound) << worst.flipped << " of " << worst.choices;
  // It is another arithmetic, not fp32 under another name.
  EXPECT_GT(worst.log_prob, 0);
}

INSTANTIATE_TEST_SUITE_P(Networks, Bf16Test,
                         ::testing::Values("default512", "deep3", "small5"),
                         [](const ::testing::TestParamInfo<std::string>& info) {
                           return info.param;
                         });

}  // namespace
}  // namespace esper::testing
