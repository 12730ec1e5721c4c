#include "ATen/ops/ones.h"
#include "absl/strings/str_cat.h"
#include "c10/core/InferenceMode.h"
#include "core/policy/network_forward.h"
#include "core/policy/sampler.h"
#include "tests/golden/policy_parity/golden_network.h"

namespace esper::testing {
namespace {

using policy::RecurrentState;

struct ActionVariant {
  const char* name;
  bool stochastic, floors, masks, slot_by_op;
};
constexpr ActionVariant kActionVariants[] = {
    {"det_floor", false, true, true, true},
    {"det_nofloor", false, false, true, true},
    {"det_no_slot_by_op", false, true, true, false},
    {"det_nomask", false, true, false, false},
    {"sto_floor", true, true, true, true},
};

RecurrentState TakeState(GoldenFile& file, const std::string& prefix) {
  return {file.Take(prefix + ".h"), file.Take(prefix + ".c")};
}

void CompareState(GoldenReport::Case& test, GoldenFile& file,
                  const std::string& prefix, const RecurrentState& state) {
  CompareOutput(test, prefix + ".h", state.h, file.Take(prefix + ".h"));
  CompareOutput(test, prefix + ".c", state.c, file.Take(prefix + ".c"));
}

void CompareForward(const GoldenNetwork& network, GoldenFile& file,
                    GoldenReport::Case& test) {
  const policy::PolicySpec& spec = network.spec();
  const policy::NetworkWeights& weights = *network.inference().acting().weights;
  const at::Tensor state = file.Take("state");
  const at::Tensor blueprints = file.Take("blueprint_indices");
  const RecurrentState hidden = TakeState(file, "hidden");
  const int64_t batch = state.size(0);
  const int64_t steps = state.size(1);

  const c10::InferenceMode inference;
  const policy::TrunkOutput trunk =
      policy::Trunk(weights, state, blueprints, hidden);
  CompareOutput(test, "embedding_flat", trunk.embeddings,
                file.Take("out.embedding_flat"));
  CompareOutput(test, "features", trunk.features, file.Take("out.features"));
  CompareOutput(test, "lstm_out", trunk.trunk, file.Take("out.lstm_out"));
  CompareState(test, file, "out.hidden_out", trunk.state);

  const at::Tensor rows = trunk.trunk.reshape({-1, spec.hidden_dim});
  const policy::HeadOutput heads = policy::Heads(weights, rows);
  const policy::HeadLayout& layout = network.inference().layout();
  for (int64_t k = 0; k < spec.num_heads(); ++k) {
    const std::string name = "out.logits." + spec.heads[k].name;
    CompareOutput(test, name,
                  heads.logits.narrow(1, layout.offset(k), layout.size(k))
                      .reshape({batch, steps, layout.size(k)}),
                  file.Take(name));
  }
  const at::Tensor expected_value = file.Take("out.state_value");
  CompareOutput(test, "state_value", heads.values.view({batch, steps}),
                expected_value);
  CompareOutput(test, "state_value alone",
                policy::Value(weights, rows).view({batch, steps}),
                expected_value);
  CompareOutput(test, "q_all_ops",
                policy::QAllChoices(weights, rows).view({batch, steps, -1}),
                file.Take("out.q_all_ops"));
  CompareOutput(test, "pred_contributions",
                policy::Contributions(weights, rows, /*stop_gradient=*/true)
                    .view({batch, steps, -1}),
                file.Take("out.pred_contributions"));
  policy::ForwardInputs whole;
  whole.observations = state;
  whole.categorical = blueprints;
  whole.state = hidden;
  whole.action_masks = at::ones({batch, steps, spec.action_width()}, at::kBool);
  const policy::ForwardOutput forward = network.inference().Forward(whole);
  CompareOutput(test, "Forward logits", forward.logits.unsafe_tensor(),
                network.TakeChoices(file, "out.logits."));
  CompareOutput(test, "Forward values", forward.values.unsafe_tensor(),
                expected_value);
  CompareState(test, file, "out.hidden_out", forward.state);
  policy::PolicyInputs first;
  first.observations = state.select(1, 0);
  first.categorical = blueprints.select(1, 0);
  first.state = hidden;
  CompareOutput(
      test, "predict_contributions_t0",
      policy::PredictContributions(network.inference().acting(), first)
          .unsafe_tensor(),
      file.Take("out.predict_contributions_t0"));
}

}  // namespace

void CheckForward(const GoldenNetwork& network, const std::string& name,
                  GoldenFile& file, GoldenReport* report) {
  RunCase(report, name, [&](GoldenReport::Case& test) {
    network.CheckMetadata(test, file);
    CompareForward(network, file, test);
  });
}

void CheckGetAction(const GoldenNetwork& network, const std::string& name,
                    GoldenFile& file, GoldenReport* report) {
  for (const ActionVariant& variant : kActionVariants) {
    const std::string prefix = absl::StrCat(variant.name, ".");
    RunCase(
        report, absl::StrCat(name, "/", variant.name),
        [&](GoldenReport::Case& test) {
          network.CheckMetadata(test, file);
          policy::PolicyInputs inputs;
          inputs.observations = file.Take("state");
          inputs.categorical = file.Take("blueprint_indices");
          inputs.state = TakeState(file, "hidden");
          if (variant.masks) {
            inputs.action_masks = network.TakeChoices(file, "mask.");
          }
          if (variant.slot_by_op) {
            inputs.conditional_mask = file.Take("mask.slot_by_op");
          }
          policy::Noise noise = policy::NoNoise{};
          if (variant.stochastic) {
            noise = policy::GivenNoise{
                network.TakeChoices(file, prefix + "noise.")};
            // How the noise was once made; nothing to check it against.
            if (file.Has(prefix + "torch_seed")) {
              file.Take(prefix + "torch_seed");
            }
          }
          policy::SampleOptions options;
          options.floors = network.Floors(variant.floors);
          options.driver_logits = true;
          const policy::ActionSample sample =
              network.inference().GetAction(inputs, noise, options);
          network.CompareHeads(test, file, prefix + "action.", sample.actions);
          network.CompareHeads(test, file, prefix + "log_prob.",
                               sample.log_probs.unsafe_tensor());
          network.CompareHeads(test, file, prefix + "entropy.",
                               sample.entropies.unsafe_tensor());
          CompareOutput(test, "values", sample.values.unsafe_tensor(),
                        file.Take(prefix + "values"));
          const int64_t op = network.spec().HeadIndex("op");
          CompareOutput(test, "sampled_op", sample.actions.select(1, op),
                        file.Take(prefix + "sampled_op"));
          CompareOutput(test, "op_logits", sample.driver_logits.unsafe_tensor(),
                        file.Take(prefix + "op_logits"));
          CompareState(test, file, prefix + "hidden", sample.next_state);
        });
  }
}

}  // namespace esper::testing
