#include <map>
#include <optional>
#include <set>
#include <string>

#include "absl/strings/str_cat.h"
#include "core/env/hindsight.h"
#include "core/env/loss_reward.h"
#include "core/env/reward.h"
#include "core/env/reward_terms.h"
#include "core/policy/actions.h"
#include "tests/golden/training_parity/cases.h"

namespace esper::testing {
namespace {

using nlohmann::json;

std::optional<double> Maybe(const json& object, const std::string& key) {
  const auto it = object.find(key);
  if (it == object.end() || it->is_null()) return std::nullopt;
  return GoldenNumber(*it);
}

int64_t Integer(const json& object, const std::string& key) {
  return static_cast<int64_t>(NumberOr(object, key, 0));
}

policy::Op OpOf(const std::string& name) {
  for (int op = 0; op < policy::kNumOps; ++op) {
    if (name == policy::OpName(static_cast<policy::Op>(op))) {
      return static_cast<policy::Op>(op);
    }
  }
  throw std::runtime_error("unknown op " + name);
}

std::optional<env::SeedInfo> SeedOf(const json& info) {
  if (info.is_null()) return std::nullopt;
  env::SeedInfo seed;
  seed.stage = info.at("stage");
  seed.epochs_in_stage = info.at("epochs_in_stage");
  seed.previous_stage = info.at("previous_stage");
  seed.previous_epochs_in_stage = info.at("previous_epochs_in_stage");
  seed.age_epochs = info.at("seed_age_epochs");
  seed.improvement_since_stage_start =
      NumberOr(info, "improvement_since_stage_start", 0);
  seed.total_improvement = NumberOr(info, "total_improvement", 0);
  seed.interaction_sum = NumberOr(info, "interaction_sum", 0);
  return seed;
}

env::RewardInputs InputsOf(const json& inputs) {
  env::RewardInputs result;
  result.op = OpOf(inputs.value("action", "WAIT"));
  result.epoch = Integer(inputs, "epoch");
  result.max_epochs = Integer(inputs, "max_epochs");
  result.val_acc = NumberOr(inputs, "val_acc", 0);
  result.val_loss = NumberOr(inputs, "val_loss", 0);
  result.acc_delta = NumberOr(inputs, "acc_delta", 0);
  result.loss_delta = Maybe(inputs, "loss_delta");
  result.stable_val_acc = Maybe(inputs, "stable_val_acc");
  result.committed_val_acc = Maybe(inputs, "committed_val_acc");
  result.host_params = Integer(inputs, "host_params");
  result.total_params = Integer(inputs, "total_params");
  result.effective_seed_params = Maybe(inputs, "effective_seed_params");
  result.alpha_delta_sq_sum = NumberOr(inputs, "alpha_delta_sq_sum", 0);
  result.n_active = Integer(inputs, "n_active_seeds");
  result.n_fossilized = Integer(inputs, "num_fossilized_seeds");
  result.n_contributing = Integer(inputs, "num_contributing_fossilized");
  result.fossilized_params = Integer(inputs, "fossilized_seed_params");

  env::SlotRewardInputs slot;
  slot.slot_id = inputs.value("slot_id", "");
  slot.seed_id = inputs.value("seed_id", "");
  slot.seed = SeedOf(inputs.at("seed_info"));
  slot.contribution = Maybe(inputs, "seed_contribution");
  slot.acc_at_germination = Maybe(inputs, "acc_at_germination");
  slot.escrow_credit = NumberOr(inputs, "escrow_credit_prev", 0);
  if (slot.seed.has_value()) {
    result.counterfactual_improvement =
        Maybe(inputs.at("seed_info"), "counterfactual_total_improvement");
  }
  result.slots.push_back(slot);

  for (const json& open :
       inputs.value("fossilized_drip_states", json::array())) {
    env::DripState drip;
    drip.seed_id = open.at("seed_id");
    drip.scale = GoldenNumber(open.at("drip_scale"));
    drip.paid = NumberOr(open, "drip_paid_before", 0);
    result.drips.push_back(drip);
  }
  const json contributions =
      inputs.value("fossilized_contributions", json::object());
  for (const auto& [seed_id, value] : contributions.items()) {
    result.drip_contributions[seed_id] = GoldenNumber(value);
  }
  return result;
}

// What the reference calls the parts, with the signs it gives them.
std::map<std::string, double> Components(const env::RewardConfig& config,
                                         const env::RewardBreakdown& reward) {
  std::map<std::string, double> parts = {{"total_reward", reward.total()},
                                         {"pbrs_bonus", reward.pbrs}};
  switch (config.mode) {
    case env::RewardMode::kBasic:
    case env::RewardMode::kBasicPlus:
      parts["compute_rent"] = reward.rent;
      parts["fossilize_terminal_bonus"] = reward.fossilize;
      parts["drip_this_epoch"] = reward.drip;
      return parts;
    case env::RewardMode::kShaped:
    case env::RewardMode::kEscrow:
      break;
    default:
      return {{"total_reward", reward.total()}};
  }
  parts["bounded_attribution"] = reward.attribution;
  parts["attribution_discount"] = reward.attribution_discount;
  parts["ratio_penalty"] = reward.ratio_penalty;
  parts["timing_discount"] = reward.timing_discount;
  parts["blending_warning"] = reward.blending_warning;
  parts["holding_warning"] = reward.holding_warning;
  parts["synergy_bonus"] = reward.synergy;
  parts["compute_rent"] = reward.rent;
  parts["growth_ratio"] = reward.growth_ratio;
  parts["alpha_shock"] = reward.alpha_shock;
  parts["occupancy_rent"] = -reward.occupancy_rent;
  parts["fossilized_rent"] = -reward.fossilized_rent;
  parts["action_shaping"] = reward.op_shaping;
  parts["terminal_bonus"] = reward.terminal;
  if (config.mode == env::RewardMode::kEscrow) {
    const env::RewardBreakdown::Escrow& escrow = reward.escrow.begin()->second;
    parts["escrow_credit_target"] = escrow.target;
    parts["escrow_delta"] = escrow.delta;
    parts["escrow_credit_next"] = escrow.next;
  }
  return parts;
}

void CompareDrips(const json& expected, const env::RewardBreakdown& reward,
                  GoldenReport::Case* check) {
  const json& state = expected.value("new_drip_state", json());
  check->Equal("new_drip", reward.new_drip.has_value(), !state.is_null());
  if (reward.new_drip.has_value() && !state.is_null()) {
    const env::DripState& drip = *reward.new_drip;
    check->Equal("seed_id", drip.seed_id,
                 state.at("seed_id").get<std::string>());
    check->Equal("slot_id", drip.slot_id,
                 state.at("slot_id").get<std::string>());
    check->Equal<int64_t>("fossilize_epoch", drip.fossilize_epoch,
                          state.at("fossilize_epoch"));
    check->Equal<int64_t>("max_epochs", drip.max_epochs,
                          state.at("max_epochs"));
    check->Near("drip_total", drip.total, GoldenNumber(state.at("drip_total")),
                kGoldenTolerance, kGoldenTolerance);
    check->Near("drip_scale", drip.scale, GoldenNumber(state.at("drip_scale")),
                kGoldenTolerance, kGoldenTolerance);
    check->Near("drip_paid", drip.paid, GoldenNumber(state.at("drip_paid")),
                kGoldenTolerance, kGoldenTolerance);
  }
  if (!expected.contains("drip_paid_after")) return;
  const json& paid = expected.at("drip_paid_after");
  check->Equal("open drips", reward.drips.size(), paid.size());
  for (size_t i = 0; i < std::min(paid.size(), reward.drips.size()); ++i) {
    const json& value =
        paid.is_object() ? paid.at(reward.drips[i].seed_id) : paid.at(i);
    check->Near("drip_paid_after", reward.drips[i].paid,
                GoldenNumber(value.is_object() ? value.at("drip_paid") : value),
                kGoldenTolerance, kGoldenTolerance);
  }
}

void CheckRewardCase(const json& golden, GoldenReport::Case* check) {
  const json& inputs = golden.at("inputs");
  const auto config = env::RewardConfigFromJson(inputs.at("config"),
                                                env::RewardConfig::Upstream());
  const auto reward =
      config.ok() ? env::ComputeReward(*config, InputsOf(inputs))
                  : absl::StatusOr<env::RewardBreakdown>(config.status());
  if (golden.contains("error")) {
    if (reward.ok()) check->Fail("was accepted");
    return;
  }
  if (!reward.ok()) {
    check->Fail(reward.status().ToString());
    return;
  }
  const json& expected = golden.at("expected");
  check->Near("reward", reward->total(), GoldenNumber(expected.at("reward")),
              kGoldenTolerance, kGoldenTolerance);
  const json& components = expected.at("components");
  for (const auto& [name, value] : Components(*config, *reward)) {
    check->Near(name, value, GoldenNumber(components.at(name)),
                kGoldenTolerance, kGoldenTolerance);
  }
  CompareDrips(expected, *reward, check);
}

env::RewardConfig::Formula FormulaOf(const std::string& name) {
  return name == "minimum" ? env::RewardConfig::Formula::kMinimum
                           : env::RewardConfig::Formula::kHarmonic;
}

// `value` of one row of a helper table.
double HelperValue(const std::string& table, const json& row) {
  const env::RewardConfig config = env::RewardConfig::Upstream();
  if (table == "synergy") {
    return env::SynergyBonus(GoldenNumber(row.at("interaction_sum")));
  }
  if (table == "hindsight") {
    return env::ScaffoldCredit(GoldenNumber(row.at("boost")),
                               GoldenNumber(row.at("improvement")),
                               GoldenNumber(row.at("weight")));
  }
  if (table == "timing") {
    return env::TimingDiscount(row.at("epoch"), row.at("warmup"),
                               GoldenNumber(row.at("floor")));
  }
  if (table == "attributed") {
    return env::AttributedContribution(FormulaOf(row.at("formula")),
                                       GoldenNumber(row.at("progress")),
                                       GoldenNumber(row.at("contribution")));
  }
  if (table == "seed_potential") {
    return row.at("active") == 0
               ? 0.0
               : env::SeedPotential(config, row.at("stage"), row.at("epochs"));
  }
  return env::PotentialShaping(config, *SeedOf(row.at("seed_info")));
}

}  // namespace

void CheckRewards(const std::string& name, const json& file,
                  GoldenReport* report) {
  for (const json& golden : file.at("cases")) {
    const std::string case_name = absl::StrCat(
        name, "/", golden.at("inputs").value("name", std::string("unnamed")));
    if (golden.contains("deviation")) {
      report->Skip(case_name, golden.at("deviation").dump());
      continue;
    }
    GoldenReport::Case check(report, case_name);
    CheckRewardCase(golden, &check);
  }
}

void CheckLossRewards(const std::string& name, const json& file,
                      GoldenReport* report) {
  for (const auto& [preset, fields] : file.at("presets").items()) {
    GoldenReport::Case check(report, absl::StrCat(name, "/presets/", preset));
    const auto config = env::LossRewardConfig::Preset(preset);
    if (!config.ok()) {
      check.Fail(config.status().ToString());
      continue;
    }
    const std::map<std::string, double> ours = {
        {"loss_delta_weight", config->loss_delta_weight},
        {"max_loss_delta", config->max_loss_delta},
        {"regression_penalty_scale", config->regression_penalty_scale},
        {"typical_loss_delta_std", config->typical_loss_delta_std},
        {"compute_rent_weight", config->compute_rent_weight},
        {"max_rent_penalty", config->max_rent_penalty},
        {"grace_epochs", static_cast<double>(config->grace_epochs)},
        {"stage_potential_weight", config->stage_potential_weight},
        {"baseline_loss", config->baseline_loss},
        {"target_loss", config->target_loss},
        {"terminal_loss_weight", config->terminal_loss_weight},
        {"achievable_range", config->baseline_loss - config->target_loss}};
    for (const auto& [field, value] : fields.items()) {
      check.Near(field, ours.at(field), GoldenNumber(value), kGoldenTolerance,
                 kGoldenTolerance);
    }
  }
  int index = 0;
  for (const json& golden : file.at("cases")) {
    GoldenReport::Case check(report, absl::StrCat(name, "/", index++));
    const json& inputs = golden.at("inputs");
    const auto config = env::LossRewardConfig::Preset(inputs.at("preset"));
    if (!config.ok()) {
      check.Fail(config.status().ToString());
      continue;
    }
    const auto reward = env::ComputeLossReward(*config, InputsOf(inputs));
    if (!reward.ok()) {
      check.Fail(reward.status().ToString());
      continue;
    }
    check.Near("reward", reward->total(),
               GoldenNumber(golden.at("expected").at("reward")),
               kGoldenTolerance, kGoldenTolerance);
  }
}

void CheckRewardHelpers(const std::string& name, const json& file,
                        GoldenReport* report) {
  const env::RewardConfig upstream = env::RewardConfig::Upstream();
  for (const auto& [table, content] : file.items()) {
    if (table == "format") continue;
    const std::string prefix = absl::StrCat(name, "/", table);
    if (table == "default_config") {
      GoldenReport::Case check(report, prefix);
      const json ours = env::RewardConfigToJson(upstream);
      for (const auto& [field, value] : content.items()) {
        check.Equal(field, ours.value(field, json()).dump(), value.dump());
      }
    } else if (table == "stage_potentials") {
      GoldenReport::Case check(report, prefix);
      for (int64_t stage = 0; stage <= policy::kStageResetting; ++stage) {
        if (stage == 5) continue;
        check.Near(policy::StageName(stage), env::StagePotential(stage),
                   GoldenNumber(content.at(policy::StageName(stage))), 0, 0);
      }
    } else if (table == "intervention_costs") {
      GoldenReport::Case check(report, prefix);
      for (const auto& [op, cost] : content.items()) {
        check.Near(op, env::OpCost(upstream, OpOf(op)), GoldenNumber(cost), 0,
                   0);
      }
    } else {
      static const auto& tables =
          *new std::set<std::string>{"synergy",    "hindsight",      "timing",
                                     "attributed", "seed_potential", "pbrs"};
      if (tables.count(table) == 0) {
        GoldenReport::Case(report, prefix).Fail("is not a known table");
        continue;
      }
      int row_number = 0;
      for (const json& row : content) {
        GoldenReport::Case check(report,
                                 absl::StrCat(prefix, "/", row_number++));
        check.Near("value", HelperValue(table, row),
                   GoldenNumber(row.at("value")), kGoldenTolerance,
                   kGoldenTolerance);
      }
    }
  }
}

}  // namespace esper::testing
