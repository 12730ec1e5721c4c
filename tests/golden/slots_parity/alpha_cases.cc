#include <string>

#include "core/slot/alpha.h"
#include "tests/golden/slots_parity/cases.h"

namespace esper::testing {
namespace {

using nlohmann::json;
using slot::AlphaController;
using slot::AlphaCurve;
using slot::AlphaState;

constexpr double kTolerance = 1e-9;

AlphaCurve CurveByName(const std::string& name) {
  for (const AlphaCurve curve :
       {AlphaCurve::kLinear, AlphaCurve::kCosine, AlphaCurve::kSigmoid}) {
    if (name == slot::AlphaCurveName(curve)) return curve;
  }
  throw std::out_of_range("curve " + name);
}

AlphaState StateOf(const json& object) {
  AlphaState state;
  const auto number = [&](const char* key, double fallback) {
    return object.contains(key) ? GoldenNumber(object[key]) : fallback;
  };
  state.alpha = number("alpha", state.alpha);
  state.start = number("alpha_start", state.start);
  state.target = number("alpha_target", state.target);
  state.steepness = number("alpha_steepness", state.steepness);
  state.mode = static_cast<slot::AlphaMode>(object.value("alpha_mode", 0));
  state.curve = static_cast<AlphaCurve>(object.value("alpha_curve", 1));
  state.steps_total = object.value("alpha_steps_total", int64_t{0});
  state.steps_done = object.value("alpha_steps_done", int64_t{0});
  return state;
}

void Compare(GoldenReport::Case& test, const std::string& where,
             const AlphaState& state, const json& expected,
             bool phantom_ramp = false) {
  const AlphaState want = StateOf(expected);
  test.Near(where + " alpha", state.alpha, want.alpha, 0, kTolerance);
  test.Near(where + " start", state.start, want.start, 0, kTolerance);
  test.Near(where + " target", state.target, want.target, 0, kTolerance);
  test.Near(where + " steepness", state.steepness, want.steepness, 0,
            kTolerance);
  test.Equal(where + " mode", static_cast<int>(state.mode),
             static_cast<int>(want.mode));
  test.Equal(where + " curve", static_cast<int>(state.curve),
             static_cast<int>(want.curve));
  test.Equal(where + " total", state.steps_total,
             phantom_ramp ? int64_t{0} : want.steps_total);
  test.Equal(where + " done", state.steps_done, want.steps_done);
}

void CheckTrajectory(const json& run, GoldenReport* report) {
  GoldenReport::Case test(report, "alpha/" + run.at("name").get<std::string>());
  // The product leaves no ramp behind when the target is where alpha is.
  const bool phantom =
      run.at("deviation").is_string() && run["deviation"] == "D18";
  AlphaController controller;
  bool ramped = false;
  int index = 0;
  for (const json& row : run.at("rows")) {
    const std::string where = "row " + std::to_string(index++);
    const std::string event = row.at("event");
    if (event == "init") {
      AlphaState state;
      state.alpha = GoldenNumber(row.at("alpha"));
      controller = AlphaController::FromState(state).value();
    } else if (event == "state") {
      controller = AlphaController::FromState(StateOf(row.at("state"))).value();
    } else if (event == "retarget") {
      std::optional<AlphaCurve> curve;
      std::optional<double> steepness;
      if (!row.at("curve").is_null()) {
        curve = CurveByName(row["curve"].get<std::string>());
      }
      if (!row.at("steepness").is_null()) {
        steepness = GoldenNumber(row["steepness"]);
      }
      const absl::Status status = controller.Retarget(
          GoldenNumber(row.at("target")), row.at("steps"), curve, steepness);
      test.Equal(where + " accepted", status.ok(), row.at("error").is_null());
      ramped = status.ok();
    } else if (event == "step") {
      test.Equal(where + " reached", controller.Step(),
                 row.at("reached").get<bool>());
    } else {
      test.Fail("unknown event " + event);
    }
    Compare(test, where, controller.state(), row.at("state"),
            phantom && ramped);
  }
}

}  // namespace

void CheckAlphaController(const json& file, GoldenReport* report) {
  for (const json& run : file.at("cases")) CheckTrajectory(run, report);

  int index = 0;
  for (const json& row : file.at("constructor_clamping")) {
    GoldenReport::Case test(report,
                            "alpha/clamping " + std::to_string(index++));
    const auto controller =
        AlphaController::FromState(StateOf(row.at("given")));
    if (!controller.ok()) {
      test.Fail(controller.status().ToString());
      continue;
    }
    Compare(test, "clamped", controller->state(), row.at("state"));
  }

  {
    GoldenReport::Case test(report, "alpha/resume");
    const json& resume = file.at("resume");
    auto controller =
        AlphaController::FromState(StateOf(resume.at("saved"))).value();
    int step = 0;
    for (const json& row : resume.at("continued")) {
      const std::string where = "step " + std::to_string(step++);
      test.Equal(where + " reached", controller.Step(),
                 row.at("reached").get<bool>());
      Compare(test, where, controller.state(), row.at("state"));
    }
  }

  index = 0;
  for (const json& row : file.at("curve_progress")) {
    GoldenReport::Case test(report, "alpha/curve " + std::to_string(index++));
    test.Near("progress",
              slot::CurveProgress(CurveByName(row.at("curve")),
                                  GoldenNumber(row.at("steepness")),
                                  GoldenNumber(row.at("t"))),
              GoldenNumber(row.at("progress")), 0, kTolerance);
  }
}

}  // namespace esper::testing
