#ifndef ESPER_CORE_POLICY_HEURISTIC_POLICY_H_
#define ESPER_CORE_POLICY_HEURISTIC_POLICY_H_

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "core/policy/actions.h"
#include "core/policy/signal_tracker.h"

namespace esper::policy {

// What the heuristic needs to know of one seed.
struct HeuristicSeed {
  std::string id;
  std::string blueprint_id;  // "conv_light".
  int64_t stage = kStageUnknown;
  int64_t epochs_in_stage = 0;
  double alpha = 0;
  double alpha_target = 0;
  int64_t alpha_mode = kAlphaModeHold;
  double improvement = 0;  // Since its stage began, accuracy points.
  std::optional<double> contribution;       // Accuracy points.
  std::optional<double> total_improvement;  // Since germination.
};

struct HeuristicDecision {
  Op op = Op::kWait;
  std::string blueprint_id;  // Of a GERMINATE; empty otherwise.
  std::string seed_id;       // The seed it is about; empty if there is none.
  std::string reason;        // For people.
  double confidence = 1.0;   // In [0, 1].

  // "WAIT", "GERMINATE_CONV_LIGHT", ...: an entry of HeuristicActions().
  std::string ActionName() const;
};

// The flat action set of a topology by number: WAIT, one GERMINATE for each
// blueprint, FOSSILIZE, PRUNE, ADVANCE. Only WAIT, FOSSILIZE, PRUNE and ADVANCE
// for a string that is no topology.
std::vector<std::string> HeuristicActions(const std::string& topology);

// Grows a network by fixed rules: germinates on plateaus, one seed at a time,
// advances it while it does not fail, keeps it if it contributes and prunes it
// otherwise. A blueprint whose seeds were pruned is left out for a while. Uses
// no network and no random numbers: the baseline of learnt policies.
//
// Not thread safe; a value that belongs to one episode. Copies are
// independent.
class HeuristicPolicy {
 public:
  struct Options {
    std::string topology = "cnn";             // "cnn" or "transformer".
    int64_t plateau_epochs = 3;               // Before germination.
    int64_t min_epochs_before_germinate = 5;  // Host epochs.
    int64_t min_epochs_before_prune = 5;      // Epochs in stage.
    // A seed whose improvement since its stage began is below minus this
    // fails; accuracy points.
    double prune_drop = 2.0;
    // A contribution must be above this to fossilise; accuracy points.
    double min_fossilize_improvement = 0.5;
    int64_t embargo_epochs = 5;  // Without germination after a prune.
    // Blueprints to germinate in turn; absent: DefaultRotation(topology).
    std::optional<std::vector<std::string>> rotation;
    double prune_penalty = 2.0;        // Added to a pruned seed's blueprint.
    double penalty_decay = 0.5;        // Factor per epoch, in [0, 1].
    double penalty_threshold = 3.0;    // Blueprints at or above are skipped.
    double ransom_contribution = 0.1;  // A seed that contributes more while
    double ransom_improvement = 0.0;   // the host improved less is pruned.
    // Which live seeds get decisions. `kFirst`: the first one alone, so while
    // it waits the others do too. `kAll`: the first one that need not wait.
    enum class Manage { kFirst, kAll };
    Manage manage = Manage::kFirst;
    int64_t max_log_entries = 1000;  // The oldest are dropped; >= 0.
  };

  struct LogEntry {
    int64_t epoch = 0;
    HeuristicDecision decision;
  };

  // Upstream's one rotation, which cnn can grow.
  static const std::vector<std::string>& UpstreamRotation();
  // The rotation of each topology: upstream's for "cnn", blueprints of like
  // cost for "transformer". Empty for another string.
  static const std::vector<std::string>& DefaultRotation(
      const std::string& topology);

  // INVALID_ARGUMENT (MALFORMED_REQUEST), naming the field: unknown topology,
  // an empty rotation, a blueprint that the topology does not have, negative
  // epochs, log size or penalties, a decay outside [0, 1], a number that is not
  // finite.
  static absl::StatusOr<HeuristicPolicy> Create(const Options& options);

  // With default options, for "cnn".
  HeuristicPolicy() : HeuristicPolicy(Options()) {}

  // Decides about one epoch and remembers it. Of `signals` it reads epoch,
  // plateau_epochs, host_stabilized and available_slots. `seeds`: those of the
  // whole model in the order of the slots, cool-down included.
  HeuristicDecision Decide(const TrainingSignals& signals,
                           const std::vector<HeuristicSeed>& seeds);

  // Back to the state after construction.
  void Reset();

  int64_t rotation_index() const { return rotation_index_; }  // Not wrapped.
  int64_t germination_count() const { return germination_count_; }
  int64_t last_prune_epoch() const { return last_prune_epoch_; }
  // By blueprint id; absent is 0.
  const std::map<std::string, double>& penalties() const { return penalties_; }
  const std::deque<LogEntry>& log() const { return log_; }  // Oldest first.
  const Options& options() const { return options_; }

 private:
  explicit HeuristicPolicy(Options options);

  void DecayPenalties(int64_t epoch);
  HeuristicDecision DecideGermination(const TrainingSignals& signals);
  HeuristicDecision DecideManagement(
      const std::vector<const HeuristicSeed*>& live) const;
  HeuristicDecision Manage(const HeuristicSeed& seed) const;
  HeuristicDecision ManageHolding(const HeuristicSeed& seed) const;
  bool IsFailing(const HeuristicSeed& seed) const;
  std::string NextBlueprint();
  double Penalty(const std::string& blueprint_id) const;

  Options options_;
  std::vector<std::string> rotation_;
  int64_t rotation_index_ = 0;
  int64_t germination_count_ = 0;
  int64_t last_prune_epoch_ = 0;
  int64_t last_decay_epoch_ = 0;
  std::map<std::string, double> penalties_;
  std::deque<LogEntry> log_;
};

}  // namespace esper::policy
#endif  // ESPER_CORE_POLICY_HEURISTIC_POLICY_H_
