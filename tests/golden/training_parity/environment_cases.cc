#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/env/governor.h"
#include "core/env/hindsight.h"
#include "core/env/preflight.h"
#include "core/env/rent.h"
#include "core/policy/actions.h"
#include "core/policy/signal_tracker.h"
#include "tests/golden/training_parity/cases.h"

namespace esper::testing {
namespace {

using nlohmann::json;

template <typename T>
std::optional<T> Maybe(const json& value) {
  if (value.is_null()) return std::nullopt;
  return value.get<T>();
}

void CheckEffectiveOp(const json& golden, GoldenReport::Case* check) {
  env::TargetSlot target;
  target.enabled = golden.at("slot_enabled");
  target.stage = Maybe<int64_t>(golden.at("stage"));
  target.alpha_mode = golden.at("alpha_mode");
  target.age_epochs = golden.at("age");
  const auto op = static_cast<policy::Op>(golden.at("op").get<int64_t>());
  check->Equal<int64_t>("effective_op",
                        static_cast<int64_t>(env::EffectiveOp(op, target)),
                        golden.at("effective_op"));
}

void CheckHindsight(const json& golden, GoldenReport::Case* check) {
  env::HindsightLedger ledger;
  for (const json& entry : golden.at("ledger")) {
    ledger.Record({entry.at("scaffold"), entry.at("beneficiary"),
                   GoldenNumber(entry.at("boost")), entry.at("epoch")});
  }
  const env::HindsightCredit credit = ledger.Settle(
      golden.at("slot"), GoldenNumber(golden.at("total_improvement")),
      golden.at("epoch"));
  check->Near("credit", credit.credit, GoldenNumber(golden.at("credit")),
              kGoldenTolerance, kGoldenTolerance);
  check->Equal<int64_t>("scaffolds", credit.scaffolds, golden.at("scaffolds"));
  check->Equal<int64_t>("total_delay", credit.total_delay,
                        golden.at("total_delay"));
}

void CheckPreflight(const json& golden, GoldenReport::Case* check) {
  const json& in = golden.at("inputs");
  env::PreflightInputs inputs;
  inputs.op = static_cast<policy::Op>(in.at("operation").get<int64_t>());
  inputs.blueprint_id = Maybe<std::string>(in.at("blueprint_id"));
  inputs.alpha_target = Maybe<double>(in.at("alpha_target"));
  inputs.alpha_steps = Maybe<int64_t>(in.at("alpha_speed_steps"));
  if (!in.at("alpha_curve").is_null()) inputs.alpha_curve = 1;
  inputs.val_loss = GoldenNumber(in.at("val_loss"));
  inputs.val_accuracy = GoldenNumber(in.at("val_accuracy"));
  inputs.seed_stage = Maybe<int64_t>(in.at("seed_stage"));
  inputs.max_seeds = in.at("max_seeds");
  inputs.live_seeds = in.at("active_seed_count");
  inputs.cooldown_epochs_left = in.at("cooldown_epochs_remaining");
  const std::string veto = env::PreflightVeto(inputs);
  check->Equal("approved", veto.empty(), golden.at("approved").get<bool>());
  check->Equal("blocked_factor", veto,
               Maybe<std::string>(golden.at("blocked_factor")).value_or(""));
}

void CheckGovernor(const json& golden, GoldenReport::Case* check) {
  env::Governor::Options options;
  options.random_guess_loss = GoldenNumber(golden.at("random_guess_loss"));
  for (const auto& [name, value] : golden.at("options").items()) {
    if (name == "sensitivity") {
      options.sensitivity = value;
    } else if (name == "absolute_threshold") {
      options.absolute_threshold = value;
    } else if (name == "multiplier") {
      options.multiplier = value;
    } else if (name == "death_penalty") {
      options.penalty = value;
    } else if (name == "history_window") {
      options.history_window = value;
    } else if (name == "min_panics_before_rollback") {
      options.panics_in_a_row = value;
    } else {
      check->Fail(absl::StrCat("unknown option ", name));
      return;
    }
  }
  auto governor = env::Governor::Create(options);
  if (!governor.ok()) {
    check->Fail(governor.status().ToString());
    return;
  }
  const bool rolls_back = golden.at("name").get<std::string>().find(
                              "_rollback") != std::string::npos;
  int step_number = 0;
  for (const json& step : golden.at("steps")) {
    const std::string prefix = absl::StrCat("step ", step_number++, " ");
    const env::GovernorVerdict verdict =
        governor->Check(GoldenNumber(step.at("loss")));
    check->Equal(prefix + "panic", verdict.panic, step.at("panic").get<bool>());
    check->Equal(prefix + "reason",
                 std::string(env::PanicReasonName(verdict.reason)),
                 Maybe<std::string>(step.at("reason")).value_or(""));
    check->Equal<int64_t>(prefix + "consecutive", verdict.anomalies_in_a_row,
                          step.at("consecutive"));
    check->Equal<int64_t>(prefix + "history", governor->history_size(),
                          step.at("history"));
    if (verdict.panic && rolls_back) governor->OnRollback();
  }
  check->Near("punishment", -governor->options().penalty,
              GoldenNumber(golden.at("punishment")), kGoldenTolerance, 0);
}

void CheckTracker(const json& golden, GoldenReport::Case* check) {
  policy::SignalTracker tracker;
  int step_number = 0;
  for (const json& step : golden.at("steps")) {
    policy::SignalTracker::Epoch epoch;
    epoch.epoch = step.at("epoch");
    epoch.val_loss = GoldenNumber(step.at("val_loss"));
    epoch.val_accuracy = GoldenNumber(step.at("val_accuracy"));
    const auto signals = tracker.Update(epoch);
    const auto peek = tracker.Peek(epoch);
    const auto stable = tracker.StableValAccuracy(3);
    if (!signals.ok() || !peek.ok() || !stable.ok()) {
      check->Fail("the tracker refused a step");
      return;
    }
    const std::string prefix = absl::StrCat("step ", step_number++, " ");
    const std::vector<std::pair<const char*, double>> numbers = {
        {"loss_delta", signals->loss_delta},
        {"accuracy_delta", signals->accuracy_delta},
        {"plateau_epochs", static_cast<double>(signals->plateau_epochs)},
        {"host_stabilized", signals->host_stabilized ? 1.0 : 0.0},
        {"best_val_accuracy", signals->best_val_accuracy},
        {"best_val_loss", signals->best_val_loss},
        {"stable_accuracy_3", *stable},
        {"peek_loss_delta", peek->loss_delta},
        {"peek_accuracy_delta", peek->accuracy_delta}};
    for (const auto& [name, value] : numbers) {
      check->Near(prefix + name, value, GoldenNumber(step.at(name)),
                  kGoldenTolerance, kGoldenTolerance);
    }
    CheckSeries(prefix + "loss_history", signals->loss_history,
                step.at("loss_history"), kGoldenTolerance, kGoldenTolerance,
                check);
    CheckSeries(prefix + "accuracy_history", signals->accuracy_history,
                step.at("accuracy_history"), kGoldenTolerance, kGoldenTolerance,
                check);
  }
}

void CheckRentAndShock(const json& golden, GoldenReport::Case* check) {
  env::RentMeter::Options options;
  options.base_slot_rent_ratio =
      GoldenNumber(golden.at("base_slot_rent_ratio"));
  options.host_params_floor = golden.at("host_params_floor");
  env::RentMeter meter(options);
  std::vector<env::RentSlot> slots;
  for (const auto& [id, slot] : golden.at("slots").items()) {
    meter.Remember(id, NumberOr(slot, "prev_alpha", 0),
                   static_cast<int64_t>(NumberOr(slot, "prev_params", 0)));
    env::RentSlot state;
    state.slot_id = id;
    state.live = slot.at("active");
    state.stage = Maybe<int64_t>(slot.at("stage")).value_or(0);
    state.alpha = NumberOr(slot, "alpha", 0);
    state.seed_params =
        static_cast<int64_t>(NumberOr(slot, "seed_param_count", 0));
    state.gate_params = static_cast<int64_t>(NumberOr(slot, "gate_params", 0));
    slots.push_back(state);
  }
  const env::RentAndShock result =
      meter.Measure(slots, golden.at("host_params"));
  const json& expected = golden.at("expected");
  check->Near("effective_seed_params", result.effective_seed_params,
              GoldenNumber(expected.at("effective_seed_params")),
              kGoldenTolerance, kGoldenTolerance);
  check->Near("alpha_delta_sq_sum", result.alpha_delta_sq_sum,
              GoldenNumber(expected.at("alpha_delta_sq_sum")), kGoldenTolerance,
              kGoldenTolerance);
  for (const auto& [id, alpha] : expected.at("prev_alphas").items()) {
    check->Near("alpha of " + id, meter.previous_alpha(id), GoldenNumber(alpha),
                kGoldenTolerance, kGoldenTolerance);
  }
  for (const auto& [id, params] : expected.at("prev_params").items()) {
    check->Equal<int64_t>("params of " + id, meter.previous_params(id), params);
  }
}

}  // namespace

void CheckEnvironment(const std::string& name, const json& file,
                      GoldenReport* report) {
  using CaseCheck = void (*)(const json&, GoldenReport::Case*);
  static const auto& checks = *new std::map<std::string, CaseCheck>{
      {"anomaly", CheckAnomaly},
      {"counterfactual", CheckCounterfactual},
      {"effective_op", CheckEffectiveOp},
      {"env_seeds", CheckEnvironmentSeed},
      {"governor", CheckGovernor},
      {"gradient_health", CheckGradientHealth},
      {"gradient_ratio", CheckGradientRatio},
      {"hindsight_ledger", CheckHindsight},
      {"lstm_health", CheckLstmHealth},
      {"pair_interaction", CheckPairInteraction},
      {"preflight", CheckPreflight},
      {"rent_and_shock", CheckRentAndShock},
      {"tracker", CheckTracker}};
  // Entries of these follow one another in time.
  static const auto& series = *new std::map<std::string, CaseCheck>{
      {"gradient_ema", CheckGradientDrift},
      {"head_collapse", CheckHeadCollapse}};
  for (const auto& [key, cases] : file.items()) {
    if (key == "format") continue;
    const std::string prefix = absl::StrCat(name, "/", key);
    if (const auto it = series.find(key); it != series.end()) {
      RunCase(report, prefix,
              [&](GoldenReport::Case* check) { it->second(cases, check); });
      continue;
    }
    const auto it = checks.find(key);
    if (it == checks.end()) {
      report->Skip(prefix, "this kind of case is not checked yet");
      continue;
    }
    int index = 0;
    for (const json& golden : cases) {
      const std::string case_name = absl::StrCat(prefix, "/", index++);
      if (!DeviationOf(golden).is_null()) {
        report->Skip(case_name, DeviationOf(golden).dump());
        continue;
      }
      RunCase(report, case_name,
              [&](GoldenReport::Case* check) { it->second(golden, check); });
    }
  }
}

}  // namespace esper::testing
