#include "tests/golden/policy_parity/cases.h"

#include <algorithm>
#include <filesystem>
#include <functional>
#include <map>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "tests/golden/policy_parity/golden_file.h"
#include "tests/golden/policy_parity/golden_network.h"
#include "tests/testing/environment_golden.h"
#include "tests/testing/golden_tensors.h"

namespace esper::testing {
namespace {

constexpr char kSuffix[] = ".safetensors";

const std::set<std::string>& NetworkKinds() {
  static const auto& kinds = *new std::set<std::string>{
      "weights", "forward", "get_action", "evaluate", "grads"};
  return kinds;
}

// Files without a network whose checks note what they read.
using TrackedCheck = void (*)(GoldenFile& file, GoldenReport* report);

const std::map<std::string, TrackedCheck>& TrackedKinds() {
  static const auto& kinds = *new std::map<std::string, TrackedCheck>{
      {"distribution", CheckDistribution}, {"heuristic", CheckHeuristic}};
  return kinds;
}

// A file without a network: its check, and the names its tensors may have after
// a prefix such as "s3." (after "peek." and "update." for the tracker).
struct EnvironmentKind {
  void (*check)(const GoldenTensors& file, GoldenReport* report);
  std::set<std::string> names;
};

const std::map<std::string, EnvironmentKind>& EnvironmentKinds() {
  static const auto& kinds = *new std::map<std::string, EnvironmentKind>{
      {"features",
       {CheckFeatures,
        {"max_epochs",
         "epoch",
         "last_action_op",
         "loss_history_len",
         "accuracy_history_len",
         "val_loss",
         "val_accuracy",
         "loss_history",
         "accuracy_history",
         "last_action_success",
         "slot.present",
         "slot.stage",
         "slot.blueprint_index",
         "slot.blend_tempo_epochs",
         "slot.alpha_mode",
         "slot.alpha_steps_total",
         "slot.alpha_steps_done",
         "slot.time_to_target",
         "slot.alpha_algorithm",
         "slot.epochs_in_stage",
         "slot.epochs_total",
         "slot.epochs_since_counterfactual",
         "slot.current_alpha",
         "slot.contribution",
         "slot.contribution_velocity",
         "slot.alpha_target",
         "slot.alpha_velocity",
         "slot.interaction_sum",
         "slot.gradient_norm",
         "slot.gradient_health",
         "slot.gradient_health_prev",
         "slot.has_contribution",
         "slot.has_telemetry",
         "slot.has_gradient_norm",
         "slot.has_gradient_health",
         "slot.has_gradient_health_prev",
         "slot.has_epochs_since_counterfactual",
         "slot.has_vanishing",
         "slot.has_exploding",
         "out.obs",
         "out.blueprint_indices"}}},
      {"masks",
       {CheckMasks,
        {"occupied", "enabled", "stage", "age", "alpha_mode", "total_seeds",
         "max_seeds", "topology", "governor_override", "disable_advance",
         "out.slot", "out.slot_by_op", "out.blueprint", "out.style",
         "out.tempo", "out.alpha_target", "out.alpha_speed", "out.alpha_curve",
         "out.op"}}},
      {"tracker",
       {CheckTracker,
        {"params",
         "in.epoch",
         "in.val_loss",
         "in.val_accuracy",
         "in.num_seeds",
         "in.available_slots",
         "in.seed.id_rank",
         "in.seed.stage",
         "in.seed.alpha",
         "in.seed.epochs_in_stage",
         "in.seed.has_contribution",
         "in.seed.contribution",
         "in.seed.improvement",
         "loss_delta",
         "accuracy_delta",
         "plateau_epochs",
         "host_stabilized",
         "best_val_accuracy",
         "best_val_loss",
         "seed_stage",
         "seed_epochs_in_stage",
         "seed_alpha",
         "seed_improvement",
         "loss_history_len",
         "loss_history",
         "accuracy_history"}}},
  };
  return kinds;
}

// Drops what may come before a name of an environment file.
std::string WithoutPrefix(const std::string& name) {
  const std::string prefix = name.substr(0, name.find('.'));
  const bool slots =
      prefix.size() > 1 && prefix[0] == 's' &&
      prefix.find_first_not_of("0123456789", 1) == std::string::npos;
  if (slots || prefix == "peek" || prefix == "update") {
    return name.substr(prefix.size() + 1);
  }
  return name;
}

void CheckEnvironment(const std::string& path, const std::string& name,
                      const EnvironmentKind& kind, GoldenReport* report) {
  RunCase(report, name + "/names", [&](GoldenReport::Case& test) {
    const GoldenTensors file(path);
    for (const auto& [tensor, value] : file.all()) {
      if (kind.names.count(WithoutPrefix(tensor)) == 0) {
        test.Fail(absl::StrCat(tensor, " was not read"));
      }
    }
    kind.check(file, report);
  });
}

// The kinds of files that each network has.
using Networks = std::map<std::string, std::set<std::string>>;

void CheckNetwork(const std::string& directory, const std::string& name,
                  const std::set<std::string>& kinds, GoldenReport* report) {
  const auto path = [&](const std::string& kind) {
    return absl::StrCat(directory, "/", name, ".", kind, kSuffix);
  };
  std::unique_ptr<GoldenNetwork> network;
  RunCase(report, absl::StrCat(name, ".weights"), [&](GoldenReport::Case&) {
    const GoldenFile any(path(*kinds.begin()));
    network = std::make_unique<GoldenNetwork>(directory, name, any);
  });
  const auto check = [&](const std::string& kind,
                         const std::function<void(GoldenFile&)>& body) {
    if (kinds.count(kind) == 0) return;
    const std::string label = absl::StrCat(name, ".", kind);
    if (network == nullptr) {
      RunCase(report, label, [](GoldenReport::Case& test) {
        test.Fail("its network could not be loaded");
      });
      return;
    }
    RunCase(report, label + "/file", [&](GoldenReport::Case&) {
      GoldenFile file(path(kind));
      body(file);
      file.CheckAllRead(label + "/every tensor read", report);
    });
  };
  const auto label = [&](const std::string& kind) {
    return absl::StrCat(name, ".", kind);
  };
  check("forward", [&](GoldenFile& file) {
    CheckForward(*network, label("forward"), file, report);
  });
  check("get_action", [&](GoldenFile& file) {
    CheckGetAction(*network, label("get_action"), file, report);
  });
  check("evaluate", [&](GoldenFile& file) {
    CheckEvaluate(*network, label("evaluate"), file, report);
  });
  check("grads", [&](GoldenFile& file) {
    GoldenFile inputs(path("evaluate"));
    CheckGradients(*network, label("grads"), inputs, file, report);
  });
}

}  // namespace

void CheckPolicyDirectory(const std::string& directory, GoldenReport* report) {
  std::vector<std::string> files;
  std::error_code error;
  for (const auto& entry :
       std::filesystem::directory_iterator(directory, error)) {
    const std::string name = entry.path().filename();
    if (entry.path().extension() == kSuffix) files.push_back(name);
  }
  std::sort(files.begin(), files.end());
  Networks networks;
  bool known = false;
  for (const std::string& file : files) {
    const std::string stem = file.substr(0, file.size() - sizeof(kSuffix) + 1);
    const size_t dot = stem.rfind('.');
    const std::string kind =
        dot == std::string::npos ? stem : stem.substr(dot + 1);
    const std::string path = absl::StrCat(directory, "/", file);
    if (dot != std::string::npos && NetworkKinds().count(kind) > 0) {
      networks[stem.substr(0, dot)].insert(kind);
    } else if (dot == std::string::npos && TrackedKinds().count(kind) > 0) {
      RunCase(report, kind + "/file", [&](GoldenReport::Case&) {
        GoldenFile vectors(path);
        TrackedKinds().at(kind)(vectors, report);
        vectors.CheckAllRead(kind + "/every tensor read", report);
      });
    } else if (dot == std::string::npos && EnvironmentKinds().count(kind) > 0) {
      CheckEnvironment(path, stem, EnvironmentKinds().at(kind), report);
    } else {
      report->Skip(file, "this kind of file is not handled yet");
      continue;
    }
    known = true;
  }
  for (const auto& [name, kinds] : networks) {
    CheckNetwork(directory, name, kinds, report);
  }
  if (!known) {
    RunCase(report, directory, [](GoldenReport::Case& test) {
      test.Fail("no reference file of a known kind is there");
    });
  }
}

}  // namespace esper::testing
