#include <cstdint>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/env/control_schedule.h"
#include "core/env/data.h"
#include "core/env/episode_policy.h"
#include "core/nearest_name.h"
#include "core/env/report_views.h"
#include "core/policy/heuristic_policy.h"
#include "core/slot/topology.h"

namespace esper::env {
namespace {

using policy::ActionHead;
using policy::FactoredAction;
using policy::Op;

class NeverGrow : public EpisodePolicy {
 public:
  void Reset(const Episode&) override {}
  FactoredAction Act(const Episode&) override { return FactoredAction(); }
};

// One of the true entries, by a uniform 64-bit number; `fallback` if there is
// none.
int64_t Pick(const std::vector<bool>& allowed, uint64_t draw,
             int64_t fallback) {
  std::vector<int64_t> entries;
  for (size_t i = 0; i < allowed.size(); ++i) {
    if (allowed[i]) entries.push_back(static_cast<int64_t>(i));
  }
  return entries.empty() ? fallback : entries[draw % entries.size()];
}

class RandomLegal : public EpisodePolicy {
 public:
  void Reset(const Episode& episode) override { seed_ = episode.config().seed; }

  FactoredAction Act(const Episode& episode) override {
    const policy::ActionMask& mask = episode.observation().mask;
    const uint64_t key =
        StreamKey(StreamPurpose::kAction, seed_, episode.steps());
    const auto op = static_cast<Op>(Pick(
        mask.HeadMask(ActionHead::kOp),
        StreamBits(key, static_cast<uint64_t>(ActionHead::kOp)), /*WAIT*/ 0));
    auto choices = FactoredAction().ToIndices();
    choices[static_cast<size_t>(ActionHead::kOp)] = static_cast<int64_t>(op);
    for (int h = 0; h < policy::kNumActionHeads; ++h) {
      const auto head = static_cast<ActionHead>(h);
      if (head == ActionHead::kOp || !IsRelevantHead(head, op)) continue;
      std::vector<bool> allowed;
      if (head == ActionHead::kSlot) {
        for (int slot = 0; slot < mask.num_slots; ++slot) {
          allowed.push_back(mask.AllowsSlot(op, slot));
        }
      } else {
        allowed = mask.HeadMask(head);
      }
      choices[h] = Pick(allowed, StreamBits(key, h), choices[h]);
    }
    return FactoredAction::FromIndices(choices, mask.num_slots).value();
  }

 private:
  uint64_t seed_ = 0;
};

class Heuristic : public EpisodePolicy {
 public:
  void Reset(const Episode& episode) override {
    policy::HeuristicPolicy::Options options;
    options.topology = slot::TopologyName(episode.config().task->host.topology);
    rules_ = policy::HeuristicPolicy::Create(options).value();
  }

  FactoredAction Act(const Episode& episode) override {
    const std::vector<std::string>& slot_ids = episode.config().task->slot_ids;
    const policy::HeuristicDecision decision =
        rules_.Decide(episode.signals(), Seeds(episode.reports(), slot_ids));
    FactoredAction action;
    action.op = decision.op;
    if (decision.op == Op::kGerminate) {
      action.slot = FirstSlot(episode.observation().mask, decision.op);
      action.blueprint = policy::BlueprintIndex(decision.blueprint_id);
    } else if (decision.op != Op::kWait) {
      action.slot = SlotOf(decision.seed_id, episode.reports(), slot_ids);
    }
    return action.slot < 0 ? FactoredAction() : action;
  }

 private:
  static std::vector<policy::HeuristicSeed> Seeds(
      const SlotReports& reports, const std::vector<std::string>& slot_ids) {
    std::vector<policy::HeuristicSeed> seeds;
    for (const std::string& id : slot_ids) {
      const slot::SlotReport* report = FindReport(reports, id);
      if (report == nullptr) continue;
      const slot::AlphaState& alpha = report->telemetry.alpha;
      policy::HeuristicSeed seed;
      seed.id = report->seed_id;
      seed.blueprint_id = report->blueprint_id;
      seed.stage = static_cast<int64_t>(report->stage);
      seed.epochs_in_stage = report->metrics.epochs_in_stage;
      seed.alpha = alpha.alpha;
      seed.alpha_target = alpha.target;
      seed.alpha_mode = static_cast<int64_t>(alpha.mode);
      seed.improvement = report->metrics.improvement_since_stage_start();
      seed.contribution = report->metrics.contribution;
      seed.total_improvement = report->metrics.total_improvement();
      seeds.push_back(std::move(seed));
    }
    return seeds;
  }

  // -1 if no slot allows it.
  static int64_t FirstSlot(const policy::ActionMask& mask, Op op) {
    for (int slot = 0; slot < mask.num_slots; ++slot) {
      if (mask.AllowsSlot(op, slot)) return slot;
    }
    return -1;
  }

  static int64_t SlotOf(const std::string& seed_id, const SlotReports& reports,
                        const std::vector<std::string>& slot_ids) {
    for (size_t i = 0; i < slot_ids.size(); ++i) {
      const slot::SlotReport* report = FindReport(reports, slot_ids[i]);
      if (report != nullptr && report->seed_id == seed_id) {
        return static_cast<int64_t>(i);
      }
    }
    return -1;
  }

  policy::HeuristicPolicy rules_;
};

}  // namespace

std::vector<std::string> BaselineNames() {
  return {"heuristic", "never_grow", "random_legal"};
}

absl::StatusOr<std::unique_ptr<EpisodePolicy>> MakeBaseline(
    const std::string& name) {
  if (name == "never_grow") return std::make_unique<NeverGrow>();
  if (name == "random_legal") return std::make_unique<RandomLegal>();
  if (name == "heuristic") return std::make_unique<Heuristic>();
  return absl::InvalidArgumentError(
      absl::StrCat("unknown baseline \"", name, "\"; the nearest is \"",
                   NearestName(name, BaselineNames()), "\""));
}

}  // namespace esper::env
