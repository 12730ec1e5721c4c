#ifndef ESPER_CORE_SLOT_COUNTERFACTUAL_H_
#define ESPER_CORE_SLOT_COUNTERFACTUAL_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/slot/shapley.h"

// What each seed is worth to the network now: which settings of the slots'
// alphas to measure, and what follows from the measured accuracies. Plain
// numbers; core/host/counterfactual_eval.h does the measuring.
namespace esper::slot {

// One slot as the plan needs to know it.
struct SlotSetting {
  std::string slot;     // "r0c1".
  bool active = false;  // Stage takes part in forward; false if empty.
  bool fossilized = false;
  double alpha = 0;  // Current, in [0, 1].
};

// The distinct settings to measure in one validation pass.
//
// A configuration is a set of eligible slots that stay on, each at its current
// alpha, while the other eligible slots are at alpha 0: bit i of the mask
// stands for slots()[i]. Slots that are not eligible are left alone. No mask
// occurs twice, and the first is always the network as it is (all on).
//
// With n eligible slots the plan holds all 2^n sets for n <= `lattice_limit`,
// else the full set, the empty set, each slot alone off, each slot alone on
// (2n + 2), the fossilised slots alone if that is another set, and the sets
// that sampled Shapley values need if they are asked for.
//
// An immutable value.
class CounterfactualPlan {
 public:
  struct Options {
    // Measure fossilised slots too (their contribution earns drip rewards).
    bool include_fossilized = false;
    int lattice_limit = 4;  // In [1, 12].
    // Rings of slots to sample Shapley values from above the lattice limit, in
    // [0, 1000]; each needs up to n (n - 3) sets more (ShapleySample). A
    // standard error needs two. Where all 2^n sets, n <= 12, cost no more than
    // the rings, the plan holds those instead.
    int shapley_cycles = 0;
    uint64_t shapley_seed = 0;
    // At most so many sets, >= 1: rings that do not fit are left out as a
    // whole, as is a lattice. The 2n + 2 sets above, and the fossilised slots
    // alone, are always held.
    std::optional<int64_t> max_configurations;
  };

  // Eligible are the active slots with alpha > 0, and fossilised ones only if
  // asked for; they are put into numeric order of (row, column).
  // INVALID_ARGUMENT for an alpha that is not finite or outside [0, 1], a slot
  // given twice, an option outside its range, or more than 63 eligible slots.
  static absl::StatusOr<CounterfactualPlan> Create(
      const std::vector<SlotSetting>& slots, const Options& options);
  static absl::StatusOr<CounterfactualPlan> Create(
      const std::vector<SlotSetting>& slots) {
    return Create(slots, Options());
  }

  const std::vector<SlotSetting>& slots() const { return slots_; }
  int num_slots() const { return static_cast<int>(slots_.size()); }
  const std::vector<uint64_t>& masks() const { return masks_; }
  int num_configurations() const { return static_cast<int>(masks_.size()); }
  bool complete_lattice() const { return complete_lattice_; }
  // Players are indices into slots(); without rings unless asked for.
  const ShapleySample& shapley_sample() const { return shapley_sample_; }

  // Alpha of slots()[slot] in a configuration.
  double Alpha(int configuration, int slot) const {
    return masks_[configuration] >> slot & 1 ? slots_[slot].alpha : 0.0;
  }

  // Index into masks(); empty if the plan does not hold that set.
  std::optional<int> Find(uint64_t mask) const;

  uint64_t all_on() const { return masks_[0]; }
  uint64_t committed() const { return committed_; }  // Fossilised slots alone.

 private:
  CounterfactualPlan() = default;

  absl::Status AddRings(const Options& options);

  std::vector<SlotSetting> slots_;
  std::vector<uint64_t> masks_;
  uint64_t committed_ = 0;
  bool complete_lattice_ = false;
  ShapleySample shapley_sample_;
};

// What a validation pass counted. Mergeable by addition. Vectors have one
// entry per configuration of the plan.
struct CounterfactualCounts {
  int64_t samples = 0;
  std::vector<int64_t> correct;
  // Samples that this configuration and the first one both got right.
  std::vector<int64_t> correct_with_main;
  // Of the first configuration: sum over batches of the batch's mean loss.
  double loss_sum = 0;
  int64_t batches = 0;
};

// One eligible slot. Accuracies and their differences are percentage points.
struct SlotAttribution {
  std::string slot;         // "r0c1".
  double baseline = 0;      // Accuracy with this slot alone off.
  double contribution = 0;  // val_accuracy - baseline.
  // Of the contribution: the two accuracies are measured on the same samples,
  // so this is the standard error of the mean paired difference.
  double standard_error = 0;
  // Shapley value at the current alphas: exact from a complete lattice, else
  // an estimate from sampled rings.
  std::optional<double> shapley;
  // Of the sampling of orders alone: 0 if exact, absent for a single ring.
  std::optional<double> shapley_standard_error;
  double interaction_sum = 0;  // Over the measured pairs with this slot.
  double boost_received = 0;   // Largest of them; 0 if none is positive.
  // Alpha of the eligible slots before and after this one, summed.
  double upstream_alpha_sum = 0;
  double downstream_alpha_sum = 0;
};

// f(first, second) - f(first) - f(second) + f(none), all other eligible slots
// off; first and second index CounterfactualPlan::slots().
struct PairInteraction {
  int first = 0;
  int second = 0;
  double value = 0;  // Percentage points.
};

// Absent is what was not measured; nothing is filled in from elsewhere.
struct CounterfactualResult {
  int64_t samples = 0;
  double val_loss = 0;      // Mean over batches, configuration as it is.
  double val_accuracy = 0;  // Percent, likewise.
  std::vector<SlotAttribution> slots;  // As in the plan; empty if none.
  std::vector<PairInteraction> pairs;  // Complete for a complete lattice.
  int64_t shapley_orders = 0;  // Behind each estimate; 0 if exact or absent.
  // Percent with every eligible slot off; absent only if none is eligible.
  std::optional<double> all_off_accuracy;
  // Percent with the eligible slots off that are not fossilised; the accuracy
  // as it is if there are none of those.
  double committed_accuracy = 0;
  std::vector<double> accuracies;  // Percent, per configuration of the plan.

  const SlotAttribution* Find(const std::string& slot) const;
};

// INVALID_ARGUMENT if the counts do not belong to the plan: other number of
// configurations, no sample, or more correct than there are.
absl::StatusOr<CounterfactualResult> Attribute(
    const CounterfactualPlan& plan, const CounterfactualCounts& counts);

// Standard error of the mean of paired differences in {-1, 0, 1}, times 100:
// `correct_a` and `correct_b` of `samples` are right in either setting, and
// `both` in both. 0 for fewer than two samples.
double PairedStandardError(int64_t samples, int64_t correct_a,
                           int64_t correct_b, int64_t both);

}  // namespace esper::slot
#endif  // ESPER_CORE_SLOT_COUNTERFACTUAL_H_
