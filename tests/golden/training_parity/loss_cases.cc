#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "core/ppo/losses.h"
#include "tests/golden/training_parity/cases.h"
#include "tests/golden/training_parity/head_tables.h"
#include "tests/golden/training_parity/tensor_checks.h"

namespace esper::testing {
namespace {

using nlohmann::json;
using ppo::LossInputs;
using ppo::LossOptions;

std::vector<double> InHeadOrder(const json& map) {
  std::vector<double> values;
  if (map.is_null()) return values;
  for (const char* head : kHeads) values.push_back(GoldenNumber(map.at(head)));
  return values;
}

LossInputs InputsOf(const tensor::Safetensors& file, const std::string& id,
                    const json& params, const HeadTables& tables) {
  const auto in = [&](const char* name) {
    return Get(file, id + ".in." + name);
  };
  const auto leaf = [&](const char* name) {
    at::Tensor x = in(name);
    if (x.dim() == 2) x = x.t().contiguous();
    return x.clone().set_requires_grad(true);
  };
  LossInputs inputs;
  inputs.log_probs = leaf("new_log_probs");
  inputs.entropies = leaf("entropy");
  inputs.values = leaf("values");
  inputs.q_values = leaf("q_values");
  inputs.old_log_probs = in("old_log_probs").t().contiguous();
  inputs.old_values = in("old_values");
  inputs.advantages = in("advantages");
  inputs.value_targets = in("normalized_returns");
  inputs.relevant = tables.Relevance(in("effective_op"));
  inputs.available = params.at("availability_masks_given").get<bool>()
                         ? tables.Availability(in("op_mask"))
                         : inputs.relevant;
  if (params.at("forced_mask_given").get<bool>()) {
    inputs.forced = in("forced").to(at::kBool);
  }
  return inputs;
}

LossOptions OptionsOf(const json& params) {
  LossOptions options;
  options.clip_ratio = GoldenNumber(params.at("clip_ratio"));
  if (params.at("clip_value").get<bool>()) {
    options.value_clip = GoldenNumber(params.at("value_clip"));
  }
  options.value_coef = GoldenNumber(params.at("value_coef"));
  options.q_coef = GoldenNumber(params.at("q_aux_coef"));
  options.entropy_coef = GoldenNumber(params.at("entropy_coef"));
  options.entropy_multipliers = InHeadOrder(params.at("entropy_coef_per_head"));
  options.entropy_floors = InHeadOrder(params.at("entropy_floor"));
  options.entropy_floor_coefs =
      InHeadOrder(params.at("entropy_floor_penalty_coef"));
  options.policy_mean = ppo::PolicyMean::kUpstream;
  options.entropy_over = ppo::EntropyOver::kUpstream;
  options.statistics_over = ppo::StatisticsOver::kUpstream;
  return options;
}

void CheckTerms(const ppo::LossTerms& terms, const json& expected,
                GoldenReport::Case* check) {
  const double absolute =
      2e-6 * std::max(1.0, std::fabs(GoldenNumber(expected.at("total_loss"))));
  const std::pair<const char*, at::Tensor> named[] = {
      {"policy_loss", terms.policy},
      {"value_loss", terms.value},
      {"q_aux_loss", terms.q},
      {"entropy_loss", terms.entropy},
      {"entropy_floor_penalty", terms.entropy_floor},
      {"total_loss", terms.total}};
  for (const auto& [name, term] : named) {
    check->Near(name, term.defined() ? term.item<double>() : 0.0,
                GoldenNumber(expected.at(name)), 2e-5, absolute);
  }
}

void CheckRatioStatistics(const ppo::RatioStatistics& ratios,
                          const json& params, const json& expected,
                          GoldenReport::Case* check) {
  const auto near = [&](const std::string& name, double actual,
                        const json& value, double absolute) {
    check->Near(name, actual, GoldenNumber(value), 1e-4, absolute);
  };
  near("approx_kl", ratios.approx_kl, expected.at("approx_kl"), 5e-7);
  const std::pair<const char*, double> named[] = {
      {"clip_fraction", ratios.clip_fraction},
      {"clip_fraction_positive", ratios.clip_fraction_above},
      {"clip_fraction_negative", ratios.clip_fraction_below},
      {"ratio_mean", ratios.joint_mean},
      {"ratio_max", ratios.joint_max},
      {"ratio_min", ratios.joint_min},
      {"ratio_std", ratios.joint_deviation}};
  for (const auto& [name, value] : named) {
    near(name, value, expected.at(name), 1e-6);
  }
  for (size_t k = 0; k < 8; ++k) {
    const std::string head = kHeads[k];
    near("head_ratio_max " + head, ratios.head_ratio_max[k],
         expected.at("head_ratio_max").at(head), 1e-6);
    near("head_clip_fraction " + head, ratios.head_clip_fraction[k],
         expected.at("head_clip_fraction").at(head), 1e-6);
  }
  const json& target = params.at("target_kl");
  if (target.is_null()) return;
  check->Equal("early_stop", ratios.approx_kl > 1.5 * GoldenNumber(target),
               expected.at("early_stop").get<bool>());
}

// Of `leaf`, after a backward pass; clears it.
void CheckGradient(at::Tensor leaf, const tensor::Safetensors& file,
                   const std::string& name, GoldenReport::Case* check) {
  at::Tensor expected = Get(file, name);
  if (expected.dim() == 2) expected = expected.t();
  CheckTensor(name, leaf.grad(), expected, 1e-4,
              1e-6 + 1e-5 * LargestOf(expected), check);
  leaf.mutable_grad() = at::Tensor();
}

void CheckCase(const json& golden, const tensor::Safetensors& file,
               const HeadTables& tables, GoldenReport::Case* check) {
  const std::string id = golden.at("id");
  const json& params = golden.at("params");
  const LossInputs inputs = InputsOf(file, id, params, tables);
  const LossOptions options = OptionsOf(params);
  const ppo::LossTerms terms =
      ComputeLoss(inputs, options, ComputeTotals(inputs, options));
  CheckTerms(terms, golden.at("expected"), check);
  at::Tensor joint;
  CheckRatioStatistics(ComputeRatioStatistics(inputs, options, &joint), params,
                       golden.at("expected"), check);
  const auto out = [&](const char* name) {
    return Get(file, id + ".out." + name);
  };
  CheckTensor("joint_ratio", joint, out("joint_ratio"), 1e-4, 1e-6, check);
  CheckTensor("ratios", ppo::Ratios(inputs.log_probs, inputs.old_log_probs).t(),
              out("ratios"), 1e-4, 1e-6, check);
  const auto masks = [&](const char* name, const at::Tensor& actual) {
    if (!actual.t().equal(out(name).to(at::kBool))) {
      check->Fail(absl::StrCat(name, " differ"));
    }
  };
  masks("head_masks", inputs.relevant);
  if (params.at("availability_masks_given").get<bool>()) {
    masks("availability_masks", inputs.available);
  }
  CheckTensor(
      "head_advantages",
      inputs.advantages.unsqueeze(1).mul(inputs.relevant.to(at::kFloat)).t(),
      out("head_advantages"), 1e-5, 2e-5, check);

  terms.entropy.backward({}, /*retain_graph=*/true);
  CheckGradient(inputs.entropies, file, id + ".grad.entropy_loss_wrt_entropy",
                check);
  if (terms.entropy_floor.defined()) {
    terms.entropy_floor.backward({}, /*retain_graph=*/true);
    CheckGradient(inputs.entropies, file,
                  id + ".grad.floor_penalty_wrt_entropy", check);
  }
  terms.total.backward();
  CheckGradient(inputs.log_probs, file, id + ".grad.new_log_probs", check);
  CheckGradient(inputs.entropies, file, id + ".grad.entropy", check);
  CheckGradient(inputs.values, file, id + ".grad.values", check);
  CheckGradient(inputs.q_values, file, id + ".grad.q_values", check);
}

void CheckContributionCase(const json& golden, const tensor::Safetensors& file,
                           GoldenReport::Case* check) {
  const std::string id = golden.at("id");
  const at::Tensor predictions =
      Get(file, id + ".pred").clone().set_requires_grad(true);
  LossInputs inputs;
  inputs.contributions = predictions.flatten(0, 1);
  inputs.contribution_targets = Get(file, id + ".target").flatten(0, 1);
  inputs.contribution_active =
      Get(file, id + ".active")
          .to(at::kBool)
          .logical_and(Get(file, id + ".fresh").to(at::kBool).unsqueeze(2))
          .flatten(0, 1);
  LossOptions options;
  const json& clip = golden.at("clip");
  options.contribution_clip = clip.is_null() ? 0.0 : GoldenNumber(clip);
  ppo::BatchTotals totals;
  totals.contribution_entries = inputs.contribution_active.sum().item<double>();
  const at::Tensor loss = ContributionLoss(inputs, options, totals);
  const double expected = GoldenNumber(golden.at("loss"));
  check->Near("loss", loss.item<double>(), expected, 2e-5,
              2e-6 * std::max(1.0, std::fabs(expected)));
  loss.backward();
  CheckGradient(predictions, file, id + ".grad_pred", check);
}

// Runs `body(case, check)` for every case of a file with tensors.
template <typename Body>
void ForEachCase(const GoldenJson& file, GoldenReport* report, Body body) {
  for (const json& golden : file.content.at("cases")) {
    const std::string name =
        absl::StrCat(file.name, "/", golden.at("id").get<std::string>());
    if (!DeviationOf(golden).is_null()) {
      report->Skip(name, DeviationOf(golden).dump());
      continue;
    }
    RunCase(report, name,
            [&](GoldenReport::Case* check) { body(golden, check); });
  }
}

}  // namespace

void CheckLosses(const GoldenJson& file, GoldenReport* report) {
  const tensor::Safetensors tensors = ReadTensors(file.TensorPath());
  const HeadTables tables;
  ForEachCase(file, report, [&](const json& golden, GoldenReport::Case* check) {
    CheckCase(golden, tensors, tables, check);
  });
}

void CheckContributionLoss(const GoldenJson& file, GoldenReport* report) {
  const tensor::Safetensors tensors = ReadTensors(file.TensorPath());
  ForEachCase(file, report, [&](const json& golden, GoldenReport::Case* check) {
    CheckContributionCase(golden, tensors, check);
  });
}

}  // namespace esper::testing
