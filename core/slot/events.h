#ifndef ESPER_CORE_SLOT_EVENTS_H_
#define ESPER_CORE_SLOT_EVENTS_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <variant>

#include "core/slot/alpha.h"
#include "core/slot/gates.h"
#include "core/slot/stage.h"

namespace esper::slot {

// A seed was planted.
struct SeedGerminated {
  int64_t trainable_params = 0;
  double alpha = 0;
  int64_t tempo = 0;  // Epochs of the blend.
  AlphaCurve curve = AlphaCurve::kLinear;
};

// A seed entered another stage, or the slot became empty (`to` is DORMANT).
struct SeedStageChanged {
  SeedStage from = SeedStage::kUnknown;
  SeedStage to = SeedStage::kUnknown;
  double alpha = 0;
  double accuracy_delta = 0;    // Total improvement; 0 while cooling down.
  int64_t epochs_in_stage = 0;  // In the stage left.
  AlphaCurve curve = AlphaCurve::kLinear;
  // Zero and false before the first telemetry of the seed.
  double gradient_ratio = 0;
  bool has_vanishing = false;
  bool has_exploding = false;
};

struct SeedGateEvaluated {
  SeedStage target = SeedStage::kUnknown;
  GateResult result;
};

struct SeedFossilized {
  double improvement = 0;
  int64_t params_added = 0;
  double alpha = 0;
  int64_t epochs_total = 0;
  std::optional<double> contribution;
  double blending_delta = 0;
};

struct SeedPruned {
  std::string reason;
  double improvement = 0;
  bool auto_pruned = false;
  int64_t epochs_total = 0;
  std::optional<double> contribution;
  double blending_delta = 0;
  std::string initiator;
};

// The blend operator of a live seed changed.
struct SeedAlgorithmChanged {
  AlphaAlgorithm from = AlphaAlgorithm::kAdd;
  AlphaAlgorithm to = AlphaAlgorithm::kAdd;
  double alpha = 0;
};

// Which decision of which search brought a change about. Carried along, never
// read.
struct MutationIdentity {
  std::string proposal_id;
  std::string verdict_id;
  std::string mutation_id;
  std::string rng_stream;
  uint64_t rng_seed = 0;
};

// Something that happened to a slot.
struct SlotEvent {
  int64_t env_id = -1;  // Filled in by the owner of the sink.
  std::string slot_id;
  std::string seed_id;
  std::string blueprint_id;
  // Of the call that caused it, if that has one; never for a gate's verdict.
  std::optional<MutationIdentity> identity;
  std::variant<SeedGerminated, SeedStageChanged, SeedGateEvaluated,
               SeedFossilized, SeedPruned, SeedAlgorithmChanged>
      payload;
};

// Hears of events, on the thread of the lifecycle call that caused them, after
// that call has taken effect and without any lock held. It cannot fail: nothing
// that observes a seed may stop it.
class EventSink {
 public:
  virtual ~EventSink() = default;
  virtual void OnEvent(const SlotEvent& event) noexcept = 0;
};

// Calls a function; logs and swallows what it throws.
class CallbackEventSink : public EventSink {
 public:
  using Callback = std::function<void(const SlotEvent&)>;
  explicit CallbackEventSink(Callback callback)
      : callback_(std::move(callback)) {}

  void OnEvent(const SlotEvent& event) noexcept override;

 private:
  const Callback callback_;
};

}  // namespace esper::slot
#endif  // ESPER_CORE_SLOT_EVENTS_H_
