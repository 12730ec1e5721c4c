#include "core/env/reward_config.h"

#include <cmath>
#include <limits>
#include <utility>
#include <variant>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/nearest_name.h"
#include "core/error.h"
#include "nlohmann/json.hpp"

namespace esper::env {
namespace {

constexpr double kBasicPlusDripFraction = 0.7;

absl::Status BadConfig(const std::string& field, const std::string& message) {
  ErrorDetail detail;
  detail.reason = "MALFORMED_REQUEST";
  detail.field = absl::StrCat("reward.", field);
  return MakeStatus(absl::StatusCode::kInvalidArgument, detail,
                    absl::StrCat("Reward field ", field, " ", message, "."));
}

using Member = std::variant<double RewardConfig::*, int64_t RewardConfig::*,
                            bool RewardConfig::*>;

const std::vector<std::pair<std::string, Member>>& Numbers() {
  using C = RewardConfig;
  static const auto& fields = *new std::vector<std::pair<std::string, Member>>{
      {"prune_attribution_cap", &C::prune_attribution_cap},
      {"flush_pending_at_end", &C::flush_pending_at_end},
      {"contribution_weight", &C::contribution_weight},
      {"proxy_confidence_factor", &C::proxy_confidence_factor},
      {"attribution_sigmoid_steepness", &C::attribution_sigmoid_steepness},
      {"improvement_safe_threshold", &C::improvement_safe_threshold},
      {"hacking_ratio_threshold", &C::hacking_ratio_threshold},
      {"escrow_stable_window", &C::escrow_stable_window},
      {"escrow_delta_clip", &C::escrow_delta_clip},
      {"germination_warmup_epochs", &C::germination_warmup_epochs},
      {"germination_discount_floor", &C::germination_discount_floor},
      {"pbrs_weight", &C::pbrs_weight},
      {"epoch_progress_bonus", &C::epoch_progress_bonus},
      {"max_progress_bonus", &C::max_progress_bonus},
      {"gamma", &C::gamma},
      {"rent_weight", &C::rent_weight},
      {"max_rent", &C::max_rent},
      {"rent_host_params_floor", &C::rent_host_params_floor},
      {"base_slot_rent_ratio", &C::base_slot_rent_ratio},
      {"alpha_shock_coef", &C::alpha_shock_coef},
      {"alpha_shock_cap", &C::alpha_shock_cap},
      {"seed_occupancy_cost", &C::seed_occupancy_cost},
      {"free_slots", &C::free_slots},
      {"fossilized_maintenance_cost", &C::fossilized_maintenance_cost},
      {"germinate_cost", &C::germinate_cost},
      {"fossilize_cost", &C::fossilize_cost},
      {"prune_cost", &C::prune_cost},
      {"set_alpha_target_cost", &C::set_alpha_target_cost},
      {"advance_from_training_penalty", &C::advance_from_training_penalty},
      {"germinate_with_seed_penalty", &C::germinate_with_seed_penalty},
      {"fossilize_base_bonus", &C::fossilize_base_bonus},
      {"fossilize_contribution_scale", &C::fossilize_contribution_scale},
      {"invalid_fossilize_penalty", &C::invalid_fossilize_penalty},
      {"fossilize_noncontributing_penalty",
       &C::fossilize_noncontributing_penalty},
      {"fossilize_terminal_scale", &C::fossilize_terminal_scale},
      {"fossilize_quality_ceiling", &C::fossilize_quality_ceiling},
      {"prune_hurting_bonus", &C::prune_hurting_bonus},
      {"prune_acceptable_bonus", &C::prune_acceptable_bonus},
      {"prune_hurting_threshold", &C::prune_hurting_threshold},
      {"min_prune_bonus_age", &C::min_prune_bonus_age},
      {"prune_good_seed_penalty", &C::prune_good_seed_penalty},
      {"prune_fossilized_penalty", &C::prune_fossilized_penalty},
      {"early_prune_penalty", &C::early_prune_penalty},
      {"early_prune_threshold", &C::early_prune_threshold},
      {"auto_prune_penalty", &C::auto_prune_penalty},
      {"terminal_acc_weight", &C::terminal_acc_weight},
      {"sparse_reward_scale", &C::sparse_reward_scale},
      {"basic_acc_delta_weight", &C::basic_acc_delta_weight},
      {"basic_fossilize_base_bonus", &C::basic_fossilize_base_bonus},
      {"basic_contribution_scale", &C::basic_contribution_scale},
      {"basic_fossilize_invalid_penalty", &C::basic_fossilize_invalid_penalty},
      {"basic_fossilize_noncontributing_penalty",
       &C::basic_fossilize_noncontributing_penalty},
      {"param_budget", &C::param_budget},
      {"param_penalty_weight", &C::param_penalty_weight},
      {"drip_fraction", &C::drip_fraction},
      {"max_drip_per_epoch", &C::max_drip_per_epoch},
      {"min_drip_epochs", &C::min_drip_epochs},
      {"negative_drip_ratio", &C::negative_drip_ratio},
      {"disable_pbrs", &C::disable_pbrs},
      {"disable_terminal_reward", &C::disable_terminal_reward},
      {"disable_anti_gaming", &C::disable_anti_gaming},
      {"disable_timing_discount", &C::disable_timing_discount},
  };
  return fields;
}

// The enum fields, by their names' positions.
struct EnumField {
  std::string name;
  std::vector<std::string> values;
  int (*get)(const RewardConfig&);
  void (*set)(RewardConfig*, int);
};

const std::vector<EnumField>& Enums() {
  using C = RewardConfig;
  static const auto& fields = *new std::vector<EnumField>{
      {"reward_mode",
       {"shaped", "escrow", "basic", "basic_plus", "sparse", "minimal",
        "simplified"},
       [](const C& c) { return static_cast<int>(c.mode); },
       [](C* c, int v) { c->mode = static_cast<RewardMode>(v); }},
      {"attribution",
       {"all_slots", "target_slot"},
       [](const C& c) { return static_cast<int>(c.attribution); },
       [](C* c, int v) { c->attribution = static_cast<C::Attribution>(v); }},
      {"basic_gain",
       {"since_start", "last_step"},
       [](const C& c) { return static_cast<int>(c.basic_gain); },
       [](C* c, int v) { c->basic_gain = static_cast<C::BasicGain>(v); }},
      {"contributing",
       {"counterfactual", "since_germination"},
       [](const C& c) { return static_cast<int>(c.contributing); },
       [](C* c, int v) { c->contributing = static_cast<C::Contributing>(v); }},
      {"attribution_formula",
       {"harmonic", "minimum"},
       [](const C& c) { return static_cast<int>(c.attribution_formula); },
       [](C* c, int v) {
         c->attribution_formula = static_cast<C::Formula>(v);
       }},
  };
  return fields;
}

absl::Status ReadNumber(const std::string& name, const nlohmann::json& value,
                        Member member, RewardConfig* config) {
  if (const auto* field = std::get_if<double RewardConfig::*>(&member)) {
    // JSON has no infinity: null stands for "no limit".
    if (value.is_null() && name == "prune_attribution_cap") {
      config->** field = std::numeric_limits<double>::infinity();
      return absl::OkStatus();
    }
    if (!value.is_number()) return BadConfig(name, "must be a number");
    config->** field = value.get<double>();
  } else if (const auto* field =
                 std::get_if<int64_t RewardConfig::*>(&member)) {
    if (!value.is_number_integer()) {
      return BadConfig(name, "must be a whole number");
    }
    config->** field = value.get<int64_t>();
  } else {
    if (!value.is_boolean()) return BadConfig(name, "must be true or false");
    config->*std::get<bool RewardConfig::*>(member) = value.get<bool>();
  }
  return absl::OkStatus();
}

absl::Status ReadEnum(const EnumField& field, const nlohmann::json& value,
                      RewardConfig* config) {
  for (size_t i = 0; i < field.values.size(); ++i) {
    if (!value.is_string() || value != field.values[i]) continue;
    field.set(config, static_cast<int>(i));
    return absl::OkStatus();
  }
  std::string choices;
  for (const std::string& choice : field.values) {
    absl::StrAppend(&choices, choices.empty() ? "" : ", ", choice);
  }
  return BadConfig(field.name, absl::StrCat("must be one of ", choices));
}

absl::Status ReadField(const std::string& name, const nlohmann::json& value,
                       RewardConfig* config) {
  for (const EnumField& field : Enums()) {
    if (field.name == name) return ReadEnum(field, value, config);
  }
  for (const auto& [number, member] : Numbers()) {
    if (number == name) return ReadNumber(name, value, member, config);
  }
  std::vector<std::string> known;
  for (const EnumField& field : Enums()) known.push_back(field.name);
  for (const auto& [number, member] : Numbers()) known.push_back(number);
  return BadConfig(name, absl::StrCat("is unknown; the nearest is ",
                                      NearestName(name, known)));
}

}  // namespace

const char* RewardModeName(RewardMode mode) {
  return Enums()[0].values[static_cast<size_t>(mode)].c_str();
}

absl::StatusOr<RewardMode> RewardModeFromName(const std::string& name) {
  RewardConfig config;
  if (absl::Status status = ReadEnum(Enums()[0], name, &config); !status.ok()) {
    return status;
  }
  return config.mode;
}

RewardConfig RewardConfig::Default(RewardMode mode) {
  RewardConfig config;
  config.mode = mode;
  if (mode == RewardMode::kBasicPlus) {
    config.drip_fraction = kBasicPlusDripFraction;
  }
  return config;
}

RewardConfig RewardConfig::Upstream(RewardMode mode) {
  RewardConfig config = Default(mode);
  config.attribution = Attribution::kTargetSlot;
  config.prune_attribution_cap = std::numeric_limits<double>::infinity();
  config.flush_pending_at_end = false;
  config.basic_gain = BasicGain::kLastStep;
  config.contributing = Contributing::kSinceGermination;
  return config;
}

absl::Status RewardConfig::Validate() const {
  for (const auto& [name, member] : Numbers()) {
    const auto* field = std::get_if<double RewardConfig::*>(&member);
    if (field == nullptr) continue;
    const double value = this->**field;
    if (std::isnan(value) ||
        (std::isinf(value) && *field != &RewardConfig::prune_attribution_cap)) {
      return BadConfig(name, "is not finite");
    }
  }
  if (gamma != kRewardGamma) return BadConfig("gamma", "must be 0.995");
  const auto share = [](double x) { return x >= 0 && x <= 1; };
  if (!share(drip_fraction)) {
    return BadConfig("drip_fraction", "must lie in [0, 1]");
  }
  if (!share(negative_drip_ratio)) {
    return BadConfig("negative_drip_ratio", "must lie in [0, 1]");
  }
  if (max_drip_per_epoch <= 0) {
    return BadConfig("max_drip_per_epoch", "must be positive");
  }
  if (min_drip_epochs < 1) {
    return BadConfig("min_drip_epochs", "must be at least 1");
  }
  if (param_budget <= 0) return BadConfig("param_budget", "must be positive");
  if (param_penalty_weight < 0) {
    return BadConfig("param_penalty_weight", "must not be negative");
  }
  if (sparse_reward_scale <= 0) {
    return BadConfig("sparse_reward_scale", "must be positive");
  }
  if (rent_host_params_floor < 1) {
    return BadConfig("rent_host_params_floor", "must be at least 1");
  }
  if (escrow_stable_window < 1) {
    return BadConfig("escrow_stable_window", "must be at least 1");
  }
  if (prune_attribution_cap < 0) {
    return BadConfig("prune_attribution_cap", "must not be negative");
  }
  if (hacking_ratio_threshold <= 0) {
    return BadConfig("hacking_ratio_threshold", "must be positive");
  }
  if (fossilize_quality_ceiling <= 0) {
    return BadConfig("fossilize_quality_ceiling", "must be positive");
  }
  return absl::OkStatus();
}

absl::StatusOr<RewardConfig> RewardConfigFromJson(const nlohmann::json& json,
                                                  const RewardConfig& base) {
  if (!json.is_object()) return BadConfig("config", "must be an object");
  RewardConfig config = base;
  for (const auto& [name, value] : json.items()) {
    if (absl::Status status = ReadField(name, value, &config); !status.ok()) {
      return status;
    }
  }
  if (config.mode == RewardMode::kBasicPlus &&
      base.mode != RewardMode::kBasicPlus && !json.contains("drip_fraction")) {
    config.drip_fraction = kBasicPlusDripFraction;
  }
  if (absl::Status status = config.Validate(); !status.ok()) return status;
  return config;
}

nlohmann::json RewardConfigToJson(const RewardConfig& config) {
  nlohmann::json json = nlohmann::json::object();
  for (const EnumField& field : Enums()) {
    json[field.name] = field.values[static_cast<size_t>(field.get(config))];
  }
  for (const auto& [name, member] : Numbers()) {
    if (const auto* field = std::get_if<double RewardConfig::*>(&member)) {
      const double value = config.**field;
      json[name] = std::isinf(value) ? nlohmann::json() : nlohmann::json(value);
    } else if (const auto* field =
                   std::get_if<int64_t RewardConfig::*>(&member)) {
      json[name] = config.**field;
    } else {
      json[name] = config.*std::get<bool RewardConfig::*>(member);
    }
  }
  return json;
}

}  // namespace esper::env
