#ifndef ESPER_CORE_SLOT_GATES_H_
#define ESPER_CORE_SLOT_GATES_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "core/slot/alpha.h"
#include "core/slot/stage.h"

namespace esper::slot {

// Numbers are wire contracts; 4 is retired.
enum class GateLevel : int { kG0 = 0, kG1 = 1, kG2 = 2, kG3 = 3, kG5 = 5 };

const char* GateLevelName(GateLevel level);  // "G2"

// How much a gate asks for. Strict is the library's default, permissive the
// training environment's: it leaves the judgement of merit to the policy.
enum class GateProfile { kStrict, kPermissive };

struct GateThresholds {
  double min_improvement = 0.5;              // Accuracy points; G2 strict.
  int64_t min_blending_epochs = 10;          // G2; G3 strict.
  double min_gradient_ratio = 0.10;          // G2 strict.
  double min_gradient_health = 0.7;          // G2 permissive.
  double min_contribution = 1.0;             // Accuracy points; G5 strict.
  double alpha_tolerance = kAlphaTolerance;  // G3.
  // Judge strict G2 by the measured contribution instead of the accuracy
  // gained since the stage began, which host training moves as well.
  bool improvement_from_contribution = false;
};

// What gates look at. Absent = never measured.
struct GateInputs {
  std::string seed_id;
  std::string blueprint_id;
  SeedStage stage = SeedStage::kDormant;
  int64_t epochs_in_stage = 0;
  double improvement_since_stage_start = 0;  // Accuracy points.
  std::optional<double> contribution;        // Accuracy points.
  std::optional<double> gradient_ratio;
  std::optional<double> gradient_health;
  bool exploding = false;
  AlphaState alpha;
  bool healthy = true;
};

// A verdict. Check ids carry printed numbers ("gradient_health_0.93"); those
// are for people, decisions never read them.
struct GateResult {
  GateLevel level = GateLevel::kG0;
  bool passed = false;
  double score = 0;  // In [0, 1].
  std::vector<std::string> checks_passed;
  std::vector<std::string> checks_failed;
  std::string message;
  absl::Time at = absl::InfinitePast();
};

// Decides whether a seed may enter a stage. Pure: same inputs, same verdict.
// A number that is not finite fails its check.
class GatePolicy {
 public:
  explicit GatePolicy(GateProfile profile = GateProfile::kStrict,
                      const GateThresholds& thresholds = {})
      : profile_(profile), thresholds_(thresholds) {}

  // INVALID_ARGUMENT if no gate guards `target`. `now` stamps the result.
  absl::StatusOr<GateResult> Evaluate(SeedStage target,
                                      const GateInputs& inputs,
                                      absl::Time now) const;

  GateProfile profile() const { return profile_; }
  const GateThresholds& thresholds() const { return thresholds_; }

 private:
  GateResult EvaluateG0(const GateInputs& inputs) const;
  GateResult EvaluateG1(const GateInputs& inputs) const;
  GateResult EvaluateG2(const GateInputs& inputs) const;
  GateResult EvaluateG3(const GateInputs& inputs) const;
  GateResult EvaluateG5(const GateInputs& inputs) const;

  GateProfile profile_;
  GateThresholds thresholds_;
};

// The gate in front of `target`; absent if none.
std::optional<GateLevel> GateOf(SeedStage target);

}  // namespace esper::slot
#endif  // ESPER_CORE_SLOT_GATES_H_
