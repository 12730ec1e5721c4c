#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "core/policy/heuristic_policy.h"
#include "tests/golden/policy_parity/golden_network.h"

namespace esper::testing {
namespace {

constexpr double kTolerance = 1e-12;

using policy::HeuristicDecision;
using policy::HeuristicPolicy;
using policy::HeuristicSeed;

std::vector<std::string> List(const GoldenFile& file, const std::string& key) {
  return absl::StrSplit(file.Text(key), ',');
}

// "0=WAIT,1=..." -> names by number.
std::vector<std::string> ActionNames(const GoldenFile& file) {
  std::vector<std::string> names;
  for (const std::string& entry : List(file, "actions")) {
    names.push_back(entry.substr(entry.find('=') + 1));
  }
  return names;
}

// One sequence of decisions against one policy.
class HeuristicSequence {
 public:
  HeuristicSequence(GoldenFile& file, int64_t sequence,
                    GoldenReport::Case& test)
      : file_(file), k_(sequence), test_(test) {}

  void Run(HeuristicPolicy policy) {
    const std::vector<std::string> names = ActionNames(file_);
    const std::vector<std::string> columns = List(file_, "penalty_columns");
    const int64_t steps = file_.Take("in.epoch").size(1);
    for (int64_t t = 0; t < steps; ++t) {
      const std::vector<HeuristicSeed> seeds = SeedsAt(t, columns);
      const HeuristicDecision decision = policy.Decide(SignalsAt(t), seeds);
      const std::string at = absl::StrCat("step ", t, " ");
      test_.Equal(at + "action", decision.ActionName(),
                  names.at(static_cast<size_t>(Count("out.action", t))));
      test_.Equal(at + "target", Position(seeds, decision.seed_id),
                  Count("out.target", t));
      test_.Near(at + "confidence", decision.confidence,
                 file_.Take("out.confidence")[k_][t].item<double>(), 0,
                 kTolerance);
      CompareState(at, t, policy, columns);
    }
  }

 private:
  int64_t Count(const std::string& name, int64_t t) {
    return file_.Take(name)[k_][t].item<int64_t>();
  }
  double OfSeed(const std::string& name, int64_t t, int64_t i) {
    return file_.Take("in.seed." + name)[k_][t][i].item<double>();
  }
  int64_t CountOfSeed(const std::string& name, int64_t t, int64_t i) {
    return static_cast<int64_t>(OfSeed(name, t, i));
  }

  policy::TrainingSignals SignalsAt(int64_t t) {
    policy::TrainingSignals signals;
    signals.epoch = Count("in.epoch", t);
    signals.plateau_epochs = Count("in.plateau_epochs", t);
    signals.host_stabilized = Count("in.host_stabilized", t) != 0;
    signals.available_slots = Count("in.available_slots", t);
    return signals;
  }

  // Blueprints are numbered from 1 as in the flat action set.
  std::vector<HeuristicSeed> SeedsAt(
      int64_t t, const std::vector<std::string>& blueprints) {
    std::vector<HeuristicSeed> seeds(
        static_cast<size_t>(Count("in.num_seeds", t)));
    for (size_t i = 0; i < seeds.size(); ++i) {
      const auto n = static_cast<int64_t>(i);
      HeuristicSeed& seed = seeds[i];
      seed.id = absl::StrCat("seed_", i);
      seed.blueprint_id = blueprints.at(
          static_cast<size_t>(CountOfSeed("blueprint", t, n) - 1));
      seed.stage = CountOfSeed("stage", t, n);
      seed.epochs_in_stage = CountOfSeed("epochs_in_stage", t, n);
      seed.alpha = OfSeed("alpha", t, n);
      seed.alpha_target = OfSeed("alpha_target", t, n);
      seed.alpha_mode = CountOfSeed("alpha_mode", t, n);
      seed.improvement = OfSeed("improvement", t, n);
      if (OfSeed("has_contribution", t, n) != 0) {
        seed.contribution = OfSeed("contribution", t, n);
      }
      if (OfSeed("has_total_improvement", t, n) != 0) {
        seed.total_improvement = OfSeed("total_improvement", t, n);
      }
    }
    return seeds;
  }

  static int64_t Position(const std::vector<HeuristicSeed>& seeds,
                          const std::string& id) {
    for (size_t i = 0; i < seeds.size(); ++i) {
      if (seeds[i].id == id) return static_cast<int64_t>(i);
    }
    return -1;
  }

  void CompareState(const std::string& at, int64_t t,
                    const HeuristicPolicy& policy,
                    const std::vector<std::string>& columns) {
    test_.Equal(at + "blueprint_index", policy.rotation_index(),
                Count("out.blueprint_index", t));
    test_.Equal(at + "germination_count", policy.germination_count(),
                Count("out.germination_count", t));
    test_.Equal(at + "last_prune_epoch", policy.last_prune_epoch(),
                Count("out.last_prune_epoch", t));
    for (size_t i = 0; i < columns.size(); ++i) {
      const auto found = policy.penalties().find(columns[i]);
      test_.Near(absl::StrCat(at, "penalty of ", columns[i]),
                 found == policy.penalties().end() ? 0.0 : found->second,
                 file_.Take("out.penalties")[k_][t][static_cast<int64_t>(i)]
                     .item<double>(),
                 0, kTolerance);
    }
  }

  GoldenFile& file_;
  const int64_t k_;
  GoldenReport::Case& test_;
};

}  // namespace

void CheckHeuristic(GoldenFile& file, GoldenReport* report) {
  RunCase(report, "heuristic/actions", [&](GoldenReport::Case& test) {
    if (policy::HeuristicActions(file.Text("topology")) != ActionNames(file)) {
      test.Fail("the flat action set is another");
    }
  });
  HeuristicPolicy::Options options;
  options.topology = file.Text("topology");
  options.rotation = List(file, "rotation");
  for (int64_t k = 0; k < file.Take("in.epoch").size(0); ++k) {
    RunCase(report, absl::StrCat("heuristic/", k),
            [&](GoldenReport::Case& test) {
              auto policy = HeuristicPolicy::Create(options);
              if (!policy.ok()) {
                test.Fail(policy.status().ToString());
                return;
              }
              HeuristicSequence(file, k, test).Run(*std::move(policy));
            });
  }
}

}  // namespace esper::testing
