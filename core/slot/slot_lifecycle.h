#ifndef ESPER_CORE_SLOT_SLOT_LIFECYCLE_H_
#define ESPER_CORE_SLOT_SLOT_LIFECYCLE_H_

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "core/slot/alpha.h"
#include "core/slot/blueprint.h"
#include "core/slot/events.h"
#include "core/slot/gate_synchronizer.h"
#include "core/slot/gates.h"
#include "core/slot/germination.h"
#include "core/slot/lifecycle_result.h"
#include "core/slot/seed.h"
#include "core/slot/seed_slot.h"
#include "core/slot/slot_draft.h"
#include "core/slot/stage.h"

namespace esper::slot {

// Where alpha shall go.
struct AlphaTargetRequest {
  double target = 1;                // In (0, 1].
  int64_t steps = 0;                // Epochs; 0 = at once.
  std::optional<AlphaCurve> curve;  // Absent = as before.
  double steepness = kDefaultSteepness;
  std::optional<AlphaAlgorithm> algorithm;  // Absent = as before.
};

// How a seed shall go.
struct PruneRequest {
  int64_t steps = 0;                // Epochs of the ramp to 0; 0 = at once.
  std::optional<AlphaCurve> curve;  // Absent = as before.
  double steepness = kDefaultSteepness;
  // One of the governor's reasons marks the removal as automatic.
  std::string reason = "policy_prune";
  std::string initiator = "policy";
};

// Germinates, advances, blends and removes the seeds of slots. One service
// serves all slots of a model, with one gate policy.
//
// Every call either takes effect as a whole or changes nothing, and says which
// (LifecycleResult). Events are delivered after the call has taken effect.
// Calls on one slot are serialised by its mutex; calls on different slots may
// run at once. No global random generator is left changed.
//
// With a synchroniser every call, also one that is refused or fails, comes to
// it once before anything changes, so that all ranks of a run act alike or fail
// alike; what a call throws then becomes its error. The slot's mutex is held
// meanwhile: reports of the slot wait, forwards do not.
class SlotLifecycle {
 public:
  // Gates that ticks try by themselves. With all three, nothing is left for
  // an explicit advance before fossilisation.
  struct AutoForward {
    bool g1 = false;  // GERMINATED -> TRAINING
    bool g2 = false;  // TRAINING -> BLENDING
    bool g3 = false;  // BLENDING -> HOLDING
  };

  struct Options {
    const BlueprintRegistry* registry = nullptr;  // Required; must outlive.
    GatePolicy gate_policy{GateProfile::kPermissive};
    AutoForward auto_forward;
    GateSynchronizer* synchronizer = nullptr;  // Null = local; must outlive.
    EventSink* events = nullptr;               // Null = none; must outlive.
    std::function<absl::Time()> clock;         // Empty = wall clock.
  };

  // INVALID_ARGUMENT without a registry.
  static absl::StatusOr<SlotLifecycle> Create(const Options& options);

  // Plants a seed in stage GERMINATED. Refused: SLOT_OCCUPIED. Errors:
  // INVALID_ARGUMENT for an unknown blueprint or blend, a blend that does not
  // fit the algorithm, tempo < 1, a target outside (0, 1], or a module whose
  // output has another shape than its input.
  LifecycleResult Germinate(SeedSlot& slot,
                            const GerminateRequest& request) const;

  // Enters `target`, by default the next stage that is not a failure, if its
  // gate passes. Refused: NO_SEED, ILLEGAL_TRANSITION, GATE_FAILED. Errors:
  // INVALID_ARGUMENT for PRUNED and the cooling stages; the synchroniser's.
  LifecycleResult Advance(SeedSlot& slot,
                          std::optional<SeedStage> target = std::nullopt) const;

  // The policy's FOSSILIZE: HOLDING -> FOSSILIZED, with alpha 1. Refused:
  // NO_SEED, WRONG_STAGE unless HOLDING, GATE_FAILED.
  LifecycleResult Fossilize(SeedSlot& slot) const;

  // Once per epoch, after measurements and decisions: moves alpha, tries the
  // automatic gates, completes a scheduled prune, cools an emptied slot down
  // (7 ticks from prune to empty). An empty slot is left alone (Done).
  LifecycleResult Tick(SeedSlot& slot) const;

  // Sets alpha, clamped to [0, 1], at once; a ramp goes on from its own
  // course. Refused: NO_SEED, COOLING_DOWN. INVALID_ARGUMENT if not finite.
  LifecycleResult SetAlpha(SeedSlot& slot, double alpha) const;

  // Starts a ramp in BLENDING or HOLDING, with another operator if asked; a
  // partial target leads HOLDING back to BLENDING. Zero steps act at once.
  // Refused: NO_SEED, FOSSILIZED, WRONG_STAGE, ALPHA_MOVING. INVALID_ARGUMENT
  // for a target <= 0 or a number that is not finite.
  LifecycleResult SetAlphaTarget(SeedSlot& slot,
                                 const AlphaTargetRequest& request) const;

  // Removes the seed: at once if no steps are asked for, alpha is 0, or the
  // stage is neither BLENDING nor HOLDING; otherwise at the end of a ramp to
  // 0, with the seed frozen. Refused: NO_SEED, FOSSILIZED, COOLING_DOWN,
  // ALPHA_MOVING. INVALID_ARGUMENT if a number is not finite.
  LifecycleResult SchedulePrune(SeedSlot& slot,
                                const PruneRequest& request) const;

  // Removes the seed at once, ramp or not. Refused: NO_SEED, FOSSILIZED,
  // COOLING_DOWN.
  LifecycleResult Prune(SeedSlot& slot, const std::string& reason,
                        const std::string& initiator = "policy") const;

  // The same service, whose calls mark their events with `identity`.
  SlotLifecycle WithIdentity(MutationIdentity identity) const;

  const Options& options() const { return options_; }

 private:
  explicit SlotLifecycle(const Options& options) : options_(options) {}

  // The body of each call: works out a draft and changes nothing else. What it
  // returns short of Done makes the draft void.
  LifecycleResult DraftGermination(const GerminateRequest& request,
                                   SlotDraft& draft) const;
  LifecycleResult DraftAdvance(std::optional<SeedStage> target,
                               SlotDraft& draft) const;
  LifecycleResult DraftFossilization(SlotDraft& draft) const;
  LifecycleResult DraftTick(SlotDraft& draft) const;
  LifecycleResult DraftAutomaticStep(SeedStage target, SlotDraft& draft) const;
  LifecycleResult DraftBlendingTick(SlotDraft& draft) const;
  LifecycleResult DraftCoolingTick(SlotDraft& draft) const;
  LifecycleResult DraftAlpha(double alpha, SlotDraft& draft) const;
  LifecycleResult DraftAlphaTarget(const AlphaTargetRequest& request,
                                   SlotDraft& draft) const;
  LifecycleResult DraftScheduledPrune(const PruneRequest& request,
                                      SlotDraft& draft) const;
  LifecycleResult DraftPrune(const std::string& reason,
                             const std::string& initiator,
                             SlotDraft& draft) const;

  // Gives `seed` another operator: a gate network comes or goes with GATE, and
  // opens nearly if the seed already shows, so that the output hardly moves.
  static absl::Status SwitchAlgorithm(AlphaAlgorithm to, int64_t steps,
                                      SlotDraft& draft);

  // Enters the stage that the draft waits for, if the verdict lets it.
  static LifecycleResult TakeStep(SlotDraft& draft);

  // Under the slot's mutex: runs `body` on a draft, agrees with the other
  // ranks, commits; then delivers the events. `request` hashes what was asked.
  template <typename Body>
  LifecycleResult Run(SeedSlot& slot, Decision decision,
                      const DecisionHash& request, Body body) const;
  uint64_t HashConfig(const SeedSlot::Options& slot,
                      const DecisionHash& request) const;
  absl::Time Now() const;

  void Deliver(std::vector<SlotEvent> events) const;

  Options options_;
  std::optional<MutationIdentity> identity_;
};

// Whether a prune for `reason` counts as automatic: governor_nan,
// governor_lobotomy, governor_divergence, governor_rollback.
bool IsAutomaticPruneReason(const std::string& reason);

inline constexpr int64_t kEmbargoTicks = 5;

}  // namespace esper::slot
#endif  // ESPER_CORE_SLOT_SLOT_LIFECYCLE_H_
