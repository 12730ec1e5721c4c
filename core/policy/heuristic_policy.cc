#include "core/policy/heuristic_policy.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "core/error.h"

namespace esper::policy {
namespace {

// Penalties below this are forgotten.
constexpr double kSmallestPenalty = 0.1;
constexpr int64_t kNoPruneEpoch = -100;
constexpr int64_t kNoDecayEpoch = -1;
// Plateau epochs, and accuracy points of contribution, of full confidence.
constexpr double kFullConfidence = 5.0;
constexpr double kAlphaTolerance = 1e-6;

absl::Status BadOption(const std::string& field, const std::string& message) {
  ErrorDetail detail;
  detail.reason = "MALFORMED_REQUEST";
  detail.field = field;
  return MakeStatus(absl::StatusCode::kInvalidArgument, detail, message);
}

// Seeds that are done, or being cleaned up, need no decision.
bool NeedsNoDecision(int64_t stage) {
  return stage == kStageFossilized || stage == kStagePruned ||
         stage == kStageEmbargoed || stage == kStageResetting;
}

bool IsManagedStage(int64_t stage) {
  return stage == kStageGerminated || stage == kStageTraining ||
         stage == kStageBlending || stage == kStageHolding;
}

HeuristicDecision Decision(Op op, const std::string& reason,
                           const HeuristicSeed* seed = nullptr) {
  HeuristicDecision decision;
  decision.op = op;
  decision.reason = reason;
  if (seed != nullptr) decision.seed_id = seed->id;
  return decision;
}

absl::Status CheckNumbers(const HeuristicPolicy::Options& options) {
  const std::pair<const char*, int64_t> counts[] = {
      {"plateau_epochs", options.plateau_epochs},
      {"min_epochs_before_germinate", options.min_epochs_before_germinate},
      {"min_epochs_before_prune", options.min_epochs_before_prune},
      {"embargo_epochs", options.embargo_epochs},
      {"max_log_entries", options.max_log_entries}};
  for (const auto& [field, value] : counts) {
    if (value >= 0) continue;
    return BadOption(field, absl::StrCat(field, " is ", value,
                                         "; it must not be negative."));
  }
  const std::pair<const char*, double> numbers[] = {
      {"prune_drop", options.prune_drop},
      {"min_fossilize_improvement", options.min_fossilize_improvement},
      {"prune_penalty", options.prune_penalty},
      {"penalty_decay", options.penalty_decay},
      {"penalty_threshold", options.penalty_threshold},
      {"ransom_contribution", options.ransom_contribution},
      {"ransom_improvement", options.ransom_improvement}};
  for (const auto& [field, value] : numbers) {
    if (std::isfinite(value)) continue;
    return BadOption(field, absl::StrCat(field, " is not finite."));
  }
  if (options.prune_penalty < 0) {
    return BadOption("prune_penalty", "prune_penalty must not be negative.");
  }
  if (options.penalty_decay < 0 || options.penalty_decay > 1) {
    return BadOption("penalty_decay", "penalty_decay must be in [0, 1].");
  }
  return absl::OkStatus();
}

absl::Status CheckRotation(const std::string& topology,
                           const std::vector<std::string>& rotation) {
  if (rotation.empty()) {
    return BadOption("rotation", "The blueprint rotation is empty.");
  }
  const std::vector<int64_t>& known = TopologyBlueprints(topology);
  for (const std::string& id : rotation) {
    if (std::find(known.begin(), known.end(), BlueprintIndex(id)) !=
        known.end()) {
      continue;
    }
    return BadOption("rotation",
                     absl::StrCat("Blueprint \"", id, "\" of the rotation is",
                                  " none of topology \"", topology, "\"."));
  }
  return absl::OkStatus();
}

}  // namespace

std::string HeuristicDecision::ActionName() const {
  if (op != Op::kGerminate) return OpName(op);
  return absl::StrCat("GERMINATE_", absl::AsciiStrToUpper(blueprint_id));
}

std::vector<std::string> HeuristicActions(const std::string& topology) {
  std::vector<std::string> actions = {OpName(Op::kWait)};
  for (int64_t blueprint : TopologyBlueprints(topology)) {
    actions.push_back(absl::StrCat(
        "GERMINATE_", absl::AsciiStrToUpper(BlueprintId(blueprint))));
  }
  for (Op op : {Op::kFossilize, Op::kPrune, Op::kAdvance}) {
    actions.emplace_back(OpName(op));
  }
  return actions;
}

const std::vector<std::string>& HeuristicPolicy::UpstreamRotation() {
  static const auto& rotation = *new std::vector<std::string>{
      "conv_light", "conv_heavy", "attention", "norm", "depthwise"};
  return rotation;
}

const std::vector<std::string>& HeuristicPolicy::DefaultRotation(
    const std::string& topology) {
  static const auto& transformer = *new std::vector<std::string>{
      "mlp_small", "mlp", "attention", "norm", "lora"};
  static const auto& none = *new std::vector<std::string>;
  if (topology == "cnn") return UpstreamRotation();
  return topology == "transformer" ? transformer : none;
}

absl::StatusOr<HeuristicPolicy> HeuristicPolicy::Create(
    const Options& options) {
  if (TopologyBlueprints(options.topology).empty()) {
    return BadOption("topology",
                     absl::StrCat("Topology \"", options.topology,
                                  "\" is neither cnn nor transformer."));
  }
  HeuristicPolicy policy(options);
  absl::Status status = CheckRotation(options.topology, policy.rotation_);
  if (status.ok()) status = CheckNumbers(options);
  if (!status.ok()) return status;
  return policy;
}

HeuristicPolicy::HeuristicPolicy(Options options)
    : options_(std::move(options)),
      rotation_(options_.rotation.has_value()
                    ? *options_.rotation
                    : DefaultRotation(options_.topology)) {
  Reset();
}

void HeuristicPolicy::Reset() {
  rotation_index_ = 0;
  germination_count_ = 0;
  last_prune_epoch_ = kNoPruneEpoch;
  last_decay_epoch_ = kNoDecayEpoch;
  penalties_.clear();
  log_.clear();
}

HeuristicDecision HeuristicPolicy::Decide(
    const TrainingSignals& signals, const std::vector<HeuristicSeed>& seeds) {
  DecayPenalties(signals.epoch);
  std::vector<const HeuristicSeed*> live;
  for (const HeuristicSeed& seed : seeds) {
    if (!NeedsNoDecision(seed.stage)) live.push_back(&seed);
  }
  HeuristicDecision decision =
      live.empty() ? DecideGermination(signals) : DecideManagement(live);
  if (decision.op == Op::kPrune) {
    last_prune_epoch_ = signals.epoch;
    const auto pruned =
        std::find_if(live.begin(), live.end(), [&](const HeuristicSeed* seed) {
          return seed->id == decision.seed_id;
        });
    penalties_[(*pruned)->blueprint_id] += options_.prune_penalty;
  }
  log_.push_back({signals.epoch, decision});
  while (static_cast<int64_t>(log_.size()) > options_.max_log_entries) {
    log_.pop_front();
  }
  return decision;
}

void HeuristicPolicy::DecayPenalties(int64_t epoch) {
  if (epoch <= last_decay_epoch_) return;
  last_decay_epoch_ = epoch;
  for (auto it = penalties_.begin(); it != penalties_.end();) {
    it->second *= options_.penalty_decay;
    it = it->second < kSmallestPenalty ? penalties_.erase(it) : std::next(it);
  }
}

HeuristicDecision HeuristicPolicy::DecideGermination(
    const TrainingSignals& signals) {
  const int64_t since_prune = signals.epoch - last_prune_epoch_;
  if (since_prune < options_.embargo_epochs) {
    return Decision(Op::kWait, absl::StrCat("embargo: ", since_prune, " of ",
                                            options_.embargo_epochs,
                                            " epochs since the last prune"));
  }
  if (!signals.host_stabilized) {
    return Decision(Op::kWait, "the host is not stable yet");
  }
  if (signals.epoch < options_.min_epochs_before_germinate) {
    return Decision(Op::kWait,
                    absl::StrCat("epoch ", signals.epoch, " is before epoch ",
                                 options_.min_epochs_before_germinate));
  }
  if (signals.available_slots <= 0) {
    return Decision(Op::kWait, "no slot is free");
  }
  if (signals.plateau_epochs < options_.plateau_epochs) {
    return Decision(Op::kWait, "the host still improves");
  }
  HeuristicDecision decision = Decision(
      Op::kGerminate,
      absl::StrCat("no progress for ", signals.plateau_epochs, " epochs"));
  decision.blueprint_id = NextBlueprint();
  decision.confidence = std::min(
      1.0, static_cast<double>(signals.plateau_epochs) / kFullConfidence);
  ++germination_count_;
  return decision;
}

HeuristicDecision HeuristicPolicy::DecideManagement(
    const std::vector<const HeuristicSeed*>& live) const {
  std::optional<HeuristicDecision> first;
  for (const HeuristicSeed* seed : live) {
    if (!IsManagedStage(seed->stage)) continue;
    HeuristicDecision decision = Manage(*seed);
    if (options_.manage == Options::Manage::kFirst ||
        decision.op != Op::kWait) {
      return decision;
    }
    if (!first.has_value()) first = std::move(decision);
  }
  return first.value_or(Decision(Op::kWait, "no seed needs a decision"));
}

HeuristicDecision HeuristicPolicy::Manage(const HeuristicSeed& seed) const {
  if (seed.stage == kStageGerminated) {
    return Decision(Op::kAdvance, "germinated, so it can train", &seed);
  }
  if (seed.stage == kStageHolding) return ManageHolding(seed);
  if (IsFailing(seed)) {
    return Decision(Op::kPrune,
                    absl::StrCat("failing: ", seed.improvement,
                                 " points since its stage began"),
                    &seed);
  }
  if (seed.stage == kStageTraining) {
    return Decision(Op::kAdvance, "trains without harm", &seed);
  }
  const bool blended =
      seed.alpha_target >= 1.0 - kAlphaTolerance &&
      seed.alpha_mode == kAlphaModeHold &&
      std::abs(seed.alpha - seed.alpha_target) <= kAlphaTolerance;
  return blended ? Decision(Op::kAdvance, "fully blended", &seed)
                 : Decision(Op::kWait, "is being blended", &seed);
}

HeuristicDecision HeuristicPolicy::ManageHolding(
    const HeuristicSeed& seed) const {
  if (!seed.contribution.has_value()) {
    return Decision(Op::kWait, "its contribution is not measured", &seed);
  }
  const double contribution = *seed.contribution;
  if (seed.total_improvement.has_value() &&
      contribution > options_.ransom_contribution &&
      *seed.total_improvement < options_.ransom_improvement) {
    return Decision(
        Op::kPrune,
        absl::StrCat("ransomware: contributes ", contribution,
                     " points while the host lost ", -*seed.total_improvement),
        &seed);
  }
  if (contribution > options_.min_fossilize_improvement) {
    HeuristicDecision decision =
        Decision(Op::kFossilize,
                 absl::StrCat("contributes ", contribution, " points"), &seed);
    decision.confidence = std::min(1.0, contribution / kFullConfidence);
    return decision;
  }
  return Decision(Op::kPrune,
                  absl::StrCat("contributes only ", contribution, " points"),
                  &seed);
}

bool HeuristicPolicy::IsFailing(const HeuristicSeed& seed) const {
  return seed.epochs_in_stage >= options_.min_epochs_before_prune &&
         seed.improvement < -options_.prune_drop;
}

std::string HeuristicPolicy::NextBlueprint() {
  const auto n = static_cast<int64_t>(rotation_.size());
  const int64_t start = rotation_index_;
  for (int64_t i = 0; i < n; ++i) {
    const std::string& next = rotation_[rotation_index_++ % n];
    if (Penalty(next) < options_.penalty_threshold) return next;
  }
  // All are penalised: by least penalty, then name.
  std::vector<std::string> sorted = rotation_;
  std::sort(sorted.begin(), sorted.end(),
            [this](const std::string& a, const std::string& b) {
              return std::make_pair(Penalty(a), a) <
                     std::make_pair(Penalty(b), b);
            });
  rotation_index_ = start + 1;
  return sorted[start % n];
}

double HeuristicPolicy::Penalty(const std::string& blueprint_id) const {
  const auto it = penalties_.find(blueprint_id);
  return it == penalties_.end() ? 0 : it->second;
}

}  // namespace esper::policy
