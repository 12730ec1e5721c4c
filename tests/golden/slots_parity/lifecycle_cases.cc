#include <cmath>
#include <memory>
#include <set>
#include <string>

#include "absl/strings/str_join.h"
#include "core/slot/seed_slot.h"
#include "core/slot/slot_lifecycle.h"
#include "tests/core/slot/test_seeds.h"
#include "tests/golden/slots_parity/cases.h"
#include "tests/golden/slots_parity/checks.h"

namespace esper::testing {
namespace {

using nlohmann::json;
using slot::LifecycleResult;
using slot::SeedStage;

constexpr double kTolerance = 1e-9;

json ControllerOf(const slot::AlphaState& alpha) {
  return {{"alpha", alpha.alpha},
          {"alpha_start", alpha.start},
          {"alpha_target", alpha.target},
          {"alpha_mode", static_cast<int>(alpha.mode)},
          {"alpha_curve", static_cast<int>(alpha.curve)},
          {"alpha_steepness", alpha.steepness},
          {"alpha_steps_total", alpha.steps_total},
          {"alpha_steps_done", alpha.steps_done}};
}

// The slot as the file describes one.
json StateOf(const slot::SeedSlot& slot) {
  const auto report = slot.Report();
  if (!report) {
    return {{"stage", nullptr},
            {"alpha", 0.0},
            {"has_seed", false},
            {"isolate_gradients", false}};
  }
  const slot::SeedMetrics& m = report->metrics;
  const bool live = !slot::IsFailureStage(report->stage);
  json state = {
      {"stage", slot::StageName(report->stage)},
      {"previous_stage", slot::StageName(report->previous_stage)},
      {"previous_epochs_in_stage", report->previous_epochs_in_stage},
      {"alpha", report->alpha()},
      {"controller", ControllerOf(report->telemetry.alpha)},
      {"algorithm", slot::AlphaAlgorithmName(report->telemetry.algorithm)},
      {"has_seed", live},
      // Ours owns its gate from birth; the file shows one once it is in use.
      {"has_gate", report->has_gate && m.blending_started},
      {"isolate_gradients", report->isolated},
      {"trainable", live ? json(report->trainable) : json(nullptr)},
      {"epochs_total", m.epochs_total},
      {"epochs_in_stage", m.epochs_in_stage},
      {"initial_acc", m.initial_accuracy},
      {"current_acc", m.current_accuracy},
      {"best_acc", m.best_accuracy},
      {"stage_start_acc", m.stage_start_accuracy},
      {"blending_start_acc", m.blending_start_accuracy},
      {"blending_delta", m.blending_delta()},
      {"current_alpha_metric", m.current_alpha},
      {"alpha_ramp_step", m.alpha_ramp_step},
      {"auto_pruned", m.auto_pruned},
      {"auto_prune_reason", m.auto_prune_reason},
      {"seed_param_count", m.seed_param_count},
      {"host_param_count", m.host_param_count}};
  return state;
}

bool Same(const json& actual, const json& expected) {
  if (expected.is_number() && actual.is_number()) {
    return std::abs(actual.get<double>() - expected.get<double>()) <=
           kTolerance;
  }
  return actual == expected;
}

void CompareState(GoldenReport::Case& test, const std::string& where,
                  const json& actual, const json& expected,
                  const std::set<std::string>& ignored,
                  const std::string& prefix = "") {
  for (const auto& [key, want] : expected.items()) {
    const std::string name = prefix + key;
    if (ignored.count(name) > 0) continue;
    if (want.is_object() && actual.contains(key)) {
      CompareState(test, where, actual[key], want, ignored, name + ".");
    } else if (!actual.contains(key)) {
      test.Fail(where + " lacks " + name);
    } else if (!Same(actual[key], want)) {
      test.Fail(where + " " + name + " is " + actual[key].dump() +
                ", expected " + want.dump());
    }
  }
}

slot::AlphaAlgorithm AlgorithmByName(const std::string& name) {
  for (int number = 1; number <= 3; ++number) {
    const auto algorithm = slot::AlphaAlgorithmFromNumber(number).value();
    if (name == slot::AlphaAlgorithmName(algorithm)) return algorithm;
  }
  throw std::out_of_range("algorithm " + name);
}

slot::AlphaCurve CurveByName(const std::string& name) {
  for (int number = 1; number <= 3; ++number) {
    const auto curve = slot::AlphaCurveFromNumber(number).value();
    if (name == slot::AlphaCurveName(curve)) return curve;
  }
  throw std::out_of_range("curve " + name);
}

template <typename Request>
void ReadRamp(const json& args, Request& request) {
  request.steps = args.value("steps", int64_t{0});
  if (args.contains("curve")) request.curve = CurveByName(args["curve"]);
  request.steepness = args.value("steepness", slot::kDefaultSteepness);
}

// One script and the slot that it drives.
class Script {
 public:
  explicit Script(const json& run) {
    slot::SeedSlot::Options options;
    options.slot_id = "r0c0";
    options.channels = run.at("channels");
    options.host_param_count = run.at("host_params");
    options.topology =
        slot::ParseTopology(run.at("topology").get<std::string>()).value();
    slot_ = MakeSlot(options);
    slot::SlotLifecycle::Options lifecycle;
    lifecycle.gate_policy = slot::GatePolicy(
        run.at("permissive").get<bool>() ? slot::GateProfile::kPermissive
                                         : slot::GateProfile::kStrict);
    for (const json& level : run.at("auto_forward")) {
      if (level == 1) lifecycle.auto_forward.g1 = true;
      if (level == 2) lifecycle.auto_forward.g2 = true;
      if (level == 3) lifecycle.auto_forward.g3 = true;
    }
    lifecycle_.emplace(MakeLifecycle(lifecycle));
  }

  const slot::SeedSlot& slot() const { return *slot_; }

  // Runs the row's call and compares what it returned.
  void Run(GoldenReport::Case& test, const std::string& where, const json& row,
           const std::set<std::string>& ignored) {
    const std::string op = row.at("op");
    const json args = row.value("args", json::object());
    if (op == "init") return;
    if (op == "advance") return Advance(test, where, args, row, ignored);
    const absl::Status status = Call(op, args);
    const json& result = row.value("result", json(nullptr));
    const bool accepted = !row.contains("error") && result != json(false);
    if (ignored.count("result") == 0 && status.ok() != accepted) {
      test.Fail(where + " " + op + " gave " + status.ToString());
    }
  }

 private:
  void Advance(GoldenReport::Case& test, const std::string& where,
               const json& args, const json& row,
               const std::set<std::string>& ignored) {
    std::optional<SeedStage> target;
    if (args.contains("to")) target = StageByName(args["to"]);
    const LifecycleResult result = lifecycle_->Advance(*slot_, target);
    if (!result.gate()) {
      test.Fail(where + " advance gave " + result.status().ToString());
      return;
    }
    const json& want = row.at("result");
    test.Equal(where + " gate", static_cast<int>(result.gate()->level),
               want.at("gate").get<int>());
    test.Equal(where + " passed", result.ok(), want.at("passed").get<bool>());
    if (ignored.count("result.failed") > 0) return;
    test.Equal(where + " failed checks",
               absl::StrJoin(CheckNames(result.gate()->checks_failed), " "),
               absl::StrJoin(CheckNames(want.at("failed")), " "));
  }

  absl::Status Call(const std::string& op, const json& args) {
    if (op == "germinate") return Germinate(args);
    if (op == "accuracy") return slot_->RecordAccuracy(args.at("value"));
    if (op == "contribution") {
      return slot_->RecordContribution(args.at("value"));
    }
    if (op == "health") {
      slot::GradientReading reading = HealthyReading();
      reading.ratio = std::nullopt;
      reading.health = args.at("value").get<double>();
      reading.has_exploding = args.value("exploding", false);
      return slot_->RecordGradients(reading);
    }
    if (op == "step") return lifecycle_->Tick(*slot_).status();
    if (op == "set_alpha") {
      return lifecycle_->SetAlpha(*slot_, args.at("value")).status();
    }
    if (op == "set_alpha_target") {
      slot::AlphaTargetRequest request;
      request.target = args.at("target");
      ReadRamp(args, request);
      if (args.contains("algorithm")) {
        request.algorithm = AlgorithmByName(args["algorithm"]);
      }
      return lifecycle_->SetAlphaTarget(*slot_, request).status();
    }
    if (op == "schedule_prune") {
      slot::PruneRequest request;
      ReadRamp(args, request);
      return lifecycle_->SchedulePrune(*slot_, request).status();
    }
    if (op == "prune") {
      return lifecycle_
          ->Prune(*slot_, args.value("reason", "policy_prune"),
                  args.value("initiator", "policy"))
          .status();
    }
    // The scoped override has its own tests; here it must leave no trace.
    if (op == "force_alpha") return absl::OkStatus();
    throw std::out_of_range("operation " + op);
  }

  absl::Status Germinate(const json& args) {
    slot::GerminateRequest request;
    request.blueprint_id = args.value("blueprint", "norm");
    request.blend_id = args.value("blend", "sigmoid");
    request.tempo = args.value("tempo", int64_t{5});
    request.algorithm = AlgorithmByName(args.value("algorithm", "ADD"));
    if (args.contains("target")) request.alpha_target = args["target"];
    return lifecycle_->Germinate(*slot_, request).status();
  }

  std::shared_ptr<slot::SeedSlot> slot_;
  std::optional<slot::SlotLifecycle> lifecycle_;
};

// D8: the refused germination must not touch the live seed, so its ramp is the
// one that the first call asked for.
void CheckUntouchedRamp(GoldenReport::Case& test, const slot::SeedSlot& slot) {
  const auto report = slot.Report();
  if (!report || report->stage != SeedStage::kBlending) return;
  const slot::AlphaState& alpha = report->telemetry.alpha;
  test.Equal("steps", alpha.steps_total, int64_t{3});
  test.Equal("target", alpha.target, 1.0);
  test.Equal("curve", static_cast<int>(alpha.curve),
             static_cast<int>(slot::AlphaCurve::kSigmoid));
}

void CheckRun(const json& run, GoldenReport* report) {
  GoldenReport::Case test(report,
                          "lifecycle/" + run.at("name").get<std::string>());
  const bool untouched = run.at("deviation") == json("D8");
  if (!run["deviation"].is_null() && !untouched) {
    test.Fail("unknown deviation " + run["deviation"].dump());
    return;
  }
  Script script(run);
  json expected;
  std::set<std::string> ignored;
  int index = 0;
  for (const json& row : run.at("rows")) {
    const std::string where = "row " + std::to_string(index++);
    // A field stays out of the comparison until the file states it anew.
    const json stated_now = row.value("changed", json::object());
    for (const auto& [key, value] : stated_now.items()) {
      for (auto it = ignored.begin(); it != ignored.end();) {
        const bool stated = *it == key || it->rfind(key + ".", 0) == 0;
        it = stated ? ignored.erase(it) : std::next(it);
      }
    }
    ignored.erase("result");
    ignored.erase("result.failed");
    if (row.contains("ignore")) {
      for (const json& field : row["ignore"].at("fields")) {
        ignored.insert(field);
      }
    }
    if (untouched) {
      ignored = {"alpha", "controller", "current_alpha_metric",
                 "alpha_ramp_step"};
    }
    script.Run(test, where, row, ignored);
    if (row.contains("state")) {
      expected = row["state"];
    } else {
      expected.update(row.at("changed"));
    }
    CompareState(test, where, StateOf(script.slot()), expected, ignored);
    if (untouched) CheckUntouchedRamp(test, script.slot());
  }
}

}  // namespace

void CheckLifecycle(const json& file, GoldenReport* report) {
  for (const json& run : file.at("runs")) CheckRun(run, report);
}

}  // namespace esper::testing
