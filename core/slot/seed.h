#ifndef ESPER_CORE_SLOT_SEED_H_
#define ESPER_CORE_SLOT_SEED_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "core/slot/alpha.h"
#include "core/slot/blueprint.h"
#include "core/slot/forward_plan.h"
#include "core/slot/gate_network.h"
#include "core/slot/gates.h"
#include "core/slot/gradient_monitor.h"
#include "core/slot/health_probe.h"
#include "core/slot/metrics.h"
#include "core/slot/report.h"
#include "core/slot/seed_module.h"
#include "core/slot/stage.h"
#include "core/slot/telemetry.h"
#include "core/slot/topology.h"

namespace esper::slot {

// The blend that a germination asks for; the curve of its ramp follows.
enum class BlendId { kLinear, kSigmoid, kGated };

const char* BlendIdName(BlendId id);  // "sigmoid"
absl::StatusOr<BlendId> ParseBlendId(const std::string& name);
AlphaCurve CurveOf(BlendId id);

// Everything that belongs to one seed. Made complete by germination or not at
// all. Lifecycle calls change a copy and put it in place when they succeed;
// copies share networks. Not thread safe.
struct Seed {
  // Identity, constant.
  std::string slot_id;
  std::string seed_id;
  std::string blueprint_id;
  int64_t blueprint_index = 0;
  uint64_t generation = 0;
  Topology topology = Topology::kCnn;
  std::map<std::string, int64_t> blueprint_options;
  InitProfile init_profile = InitProfile::kLive;
  int64_t tempo = 5;        // Epochs of the first ramp, >= 1.
  double alpha_target = 1;  // Of the first ramp, in (0, 1].

  StageMachine stage{SeedStage::kDormant, absl::InfinitePast()};
  AlphaController alpha;  // The only alpha there is.
  AlphaAlgorithm algorithm = AlphaAlgorithm::kAdd;
  BlendId blend_id = BlendId::kSigmoid;
  bool isolated = false;

  SeedMetrics metrics;
  GradientReading gradients;  // The latest that was sampled.
  bool gradients_healthy = true;
  bool output_healthy = true;
  int64_t telemetry_epoch = 0;
  int64_t telemetry_max_epochs = 25;

  std::shared_ptr<SeedModule> module;  // Null once pruned.
  std::shared_ptr<GateNetwork> gate;   // Non-null if and only if GATE and live.
  std::shared_ptr<HealthProbe> probe;
  // See ForwardPlan.
  std::shared_ptr<absl::Mutex> trainability = std::make_shared<absl::Mutex>();
  // Parameters that a downward ramp has frozen and its end will free.
  std::vector<at::Tensor> frozen;

  std::string prune_reason;  // Of a scheduled prune; else empty.
  std::string prune_initiator;
  int64_t cooldown_ticks = 0;  // Ticks spent EMBARGOED.
};

// Parameters of the seed's networks, gate last; empty once pruned.
std::vector<at::Tensor> SeedParameters(const Seed& seed);

// Enters `to` and applies what entering means: isolation, start of the ramp,
// full alpha. False, with nothing changed, if the transition is illegal.
bool EnterStage(Seed& seed, SeedStage to, absl::Time now);

// Freezes the trainable parameters while alpha moves down, and frees exactly
// those when it no longer does. Idempotent. Waits for forward passes that are
// building a graph through the seed; backward passes are the caller's to keep
// away.
void UpdateBlendOutFreeze(Seed& seed);

// Enters PRUNED: networks freed, alpha 0, isolation off, monitor cleared;
// `automatic` marks a removal that no policy asked for. False, with nothing
// changed, if the stage cannot be pruned.
bool ApplyPrune(Seed& seed, bool automatic, const std::string& reason,
                absl::Time now);

// Takes in a gradient reading: average norm, ratio average, health.
void ApplyGradientReading(Seed& seed, const GradientReading& reading);

// Gradients finite and not exploding, output finite, when last looked at.
bool IsHealthy(const Seed& seed);
GateInputs GateInputsOf(const Seed& seed);
SeedTelemetry TelemetryOf(const Seed& seed, absl::Time now);
SlotReport ReportOf(const Seed& seed, absl::Time now);

// Where forward passes find the seed's tensors.
struct PlanTarget {
  at::Device device = at::kCPU;
  at::ScalarType dtype = at::kFloat;
  SteGuard ste_guard = SteGuard::kWarn;
  at::Tensor alpha_buffer;  // See ForwardPlan; the plan aliases it.
};
std::shared_ptr<ForwardPlan> MakeForwardPlan(const Seed& seed,
                                             const PlanTarget& target);

}  // namespace esper::slot
#endif  // ESPER_CORE_SLOT_SEED_H_
