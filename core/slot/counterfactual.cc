#include "core/slot/counterfactual.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "core/error.h"
#include "core/slot/slot_id.h"

namespace esper::slot {
namespace {

absl::Status Refuse(const std::string& field, const std::string& message) {
  ErrorDetail detail;
  detail.reason = "BAD_COUNTERFACTUAL";
  detail.field = field;
  return MakeStatus(absl::StatusCode::kInvalidArgument, detail, message);
}

constexpr int kMaxLattice = 12;

double Percent(int64_t correct, int64_t samples) {
  return 100.0 * static_cast<double>(correct) / static_cast<double>(samples);
}

void AddOnce(uint64_t mask, std::vector<uint64_t>& masks) {
  if (std::find(masks.begin(), masks.end(), mask) == masks.end()) {
    masks.push_back(mask);
  }
}

// The sets that the single-slot quantities need, most needed first.
std::vector<uint64_t> BasicMasks(int n, uint64_t committed) {
  const uint64_t all = (uint64_t{1} << n) - 1;
  std::vector<uint64_t> masks = {all};
  AddOnce(0, masks);
  for (int i = 0; i < n; ++i) AddOnce(all & ~(uint64_t{1} << i), masks);
  for (int i = 0; i < n; ++i) AddOnce(uint64_t{1} << i, masks);
  AddOnce(committed, masks);
  return masks;
}

// Whether to measure every set: there are few of them, or no more than the
// sampled rings would need anyway.
bool WantsLattice(int n, size_t basic,
                  const CounterfactualPlan::Options& options) {
  if (n > kMaxLattice) return false;
  const int64_t sets = int64_t{1} << n;
  if (options.max_configurations && sets > *options.max_configurations) {
    return false;
  }
  const int64_t sampled = basic + int64_t{options.shapley_cycles} * n * (n - 3);
  return n <= options.lattice_limit ||
         (options.shapley_cycles > 0 && sampled >= sets);
}

absl::Status CheckOptions(const CounterfactualPlan::Options& options) {
  if (options.lattice_limit < 1 || options.lattice_limit > kMaxLattice) {
    return Refuse("lattice_limit",
                  absl::StrCat("The lattice limit is ", options.lattice_limit,
                               ", outside [1, ", kMaxLattice, "]."));
  }
  if (options.shapley_cycles < 0 || options.shapley_cycles > 1000) {
    return Refuse("shapley_cycles",
                  absl::StrCat("Shapley cycles are ", options.shapley_cycles,
                               ", outside [0, 1000]."));
  }
  if (options.max_configurations && *options.max_configurations < 1) {
    return Refuse("max_configurations",
                  absl::StrCat("At most ", *options.max_configurations,
                               " configurations leave none to measure."));
  }
  return absl::OkStatus();
}

void AddPairs(const CounterfactualPlan& plan, CounterfactualResult& result) {
  const int none = *plan.Find(0);
  for (int i = 0; i < plan.num_slots(); ++i) {
    for (int j = i + 1; j < plan.num_slots(); ++j) {
      const uint64_t only_i = uint64_t{1} << i;
      const uint64_t only_j = uint64_t{1} << j;
      const auto both = plan.Find(only_i | only_j);
      if (!both.has_value()) continue;  // Not measured: no index.
      const std::vector<double>& f = result.accuracies;
      const double value =
          f[*both] - f[*plan.Find(only_i)] - f[*plan.Find(only_j)] + f[none];
      result.pairs.push_back({i, j, value});
      for (const int slot : {i, j}) {
        SlotAttribution& attribution = result.slots[slot];
        attribution.interaction_sum += value;
        attribution.boost_received =
            std::max(attribution.boost_received, value);
      }
    }
  }
}

void AddAlphaSums(const CounterfactualPlan& plan,
                  CounterfactualResult& result) {
  double before = 0;
  for (int i = 0; i < plan.num_slots(); ++i) {
    result.slots[i].upstream_alpha_sum = before;
    before += plan.slots()[i].alpha;
  }
  double after = 0;
  for (int i = plan.num_slots() - 1; i >= 0; --i) {
    result.slots[i].downstream_alpha_sum = after;
    after += plan.slots()[i].alpha;
  }
}

// Exact values from a complete lattice, estimates from sampled rings.
absl::Status AddShapley(const CounterfactualPlan& plan,
                        CounterfactualResult& result) {
  if (!plan.complete_lattice()) {
    const auto estimates =
        plan.shapley_sample().Estimate([&](uint64_t coalition) {
          return result.accuracies[*plan.Find(coalition)];
        });
    for (size_t i = 0; i < estimates.size(); ++i) {
      result.slots[i].shapley = estimates[i].value;
      result.slots[i].shapley_standard_error = estimates[i].standard_error;
    }
    result.shapley_orders = plan.shapley_sample().orders();
    return absl::OkStatus();
  }
  std::vector<double> lattice(size_t{1} << plan.num_slots());
  for (int k = 0; k < plan.num_configurations(); ++k) {
    lattice[plan.masks()[k]] = result.accuracies[k];
  }
  absl::StatusOr<std::vector<double>> values = ShapleyValues(lattice);
  if (!values.ok()) return values.status();
  for (int i = 0; i < plan.num_slots(); ++i) {
    result.slots[i].shapley = (*values)[i];
    result.slots[i].shapley_standard_error = 0.0;
  }
  return absl::OkStatus();
}

absl::Status CheckCounts(const CounterfactualPlan& plan,
                         const CounterfactualCounts& counts) {
  const size_t k = plan.num_configurations();
  if (counts.correct.size() != k || counts.correct_with_main.size() != k) {
    return Refuse("correct",
                  absl::StrCat("The plan has ", k, " configurations, but ",
                               counts.correct.size(), " and ",
                               counts.correct_with_main.size(),
                               " of them were counted."));
  }
  if (counts.samples < 1 || counts.batches < 1) {
    return Refuse("samples", "Nothing was counted: there is no sample.");
  }
  for (size_t i = 0; i < k; ++i) {
    const int64_t both = counts.correct_with_main[i];
    if (both < 0 || both > counts.correct[i] || both > counts.correct[0] ||
        counts.correct[i] + counts.correct[0] - both > counts.samples) {
      return Refuse("correct",
                    absl::StrCat("Configuration ", i, " has ",
                                 counts.correct[i], " correct and ", both,
                                 " with the first one, which is impossible "
                                 "for ",
                                 counts.samples, " samples."));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<CounterfactualPlan> CounterfactualPlan::Create(
    const std::vector<SlotSetting>& slots, const Options& options) {
  if (absl::Status status = CheckOptions(options); !status.ok()) return status;
  std::vector<std::pair<SlotId, SlotSetting>> sorted;
  for (const SlotSetting& setting : slots) {
    absl::StatusOr<SlotId> id = SlotId::Parse(setting.slot);
    if (!id.ok()) return id.status();
    if (!(setting.alpha >= 0 && setting.alpha <= 1)) {
      return Refuse("alpha", absl::StrCat("Slot ", setting.slot, " has alpha ",
                                          setting.alpha, ", outside [0, 1]."));
    }
    sorted.emplace_back(*id, setting);
  }
  std::sort(sorted.begin(), sorted.end(),
            [](const auto& a, const auto& b) { return a.first < b.first; });
  for (size_t i = 1; i < sorted.size(); ++i) {
    if (sorted[i - 1].first == sorted[i].first) {
      return Refuse("slot", absl::StrCat("Slot ", sorted[i].second.slot,
                                         " is given twice."));
    }
  }

  CounterfactualPlan plan;
  for (const auto& [id, setting] : sorted) {
    if (!setting.active || setting.alpha <= 0) continue;
    if (setting.fossilized && !options.include_fossilized) continue;
    if (setting.fossilized) plan.committed_ |= uint64_t{1} << plan.num_slots();
    plan.slots_.push_back(setting);
    if (plan.num_slots() > 63) {
      return Refuse("slot", "More than 63 slots are eligible.");
    }
  }
  const int n = plan.num_slots();
  plan.masks_ = BasicMasks(n, plan.committed_);
  if (WantsLattice(n, plan.masks_.size(), options)) {
    plan.complete_lattice_ = true;
    for (uint64_t mask = 0; mask < uint64_t{1} << n; ++mask) {
      AddOnce(mask, plan.masks_);
    }
  } else if (options.shapley_cycles > 0 && n >= 3) {
    absl::Status status = plan.AddRings(options);
    if (!status.ok()) return status;
  }
  return plan;
}

absl::Status CounterfactualPlan::AddRings(const Options& options) {
  absl::StatusOr<ShapleySample> sample = ShapleySample::Draw(
      num_slots(), options.shapley_cycles, options.shapley_seed);
  if (!sample.ok()) return sample.status();
  int fitting = 0;
  for (size_t ring = 0; ring < sample->rings().size(); ++ring, ++fitting) {
    std::vector<uint64_t> masks = masks_;
    for (const uint64_t mask : sample->Coalitions(static_cast<int>(ring))) {
      AddOnce(mask, masks);
    }
    if (options.max_configurations &&
        static_cast<int64_t>(masks.size()) > *options.max_configurations) {
      break;
    }
    masks_ = std::move(masks);
  }
  shapley_sample_ = sample->First(fitting);
  return absl::OkStatus();
}

std::optional<int> CounterfactualPlan::Find(uint64_t mask) const {
  const auto found = std::find(masks_.begin(), masks_.end(), mask);
  if (found == masks_.end()) return std::nullopt;
  return static_cast<int>(found - masks_.begin());
}

const SlotAttribution* CounterfactualResult::Find(
    const std::string& slot) const {
  for (const SlotAttribution& attribution : slots) {
    if (attribution.slot == slot) return &attribution;
  }
  return nullptr;
}

absl::StatusOr<CounterfactualResult> Attribute(
    const CounterfactualPlan& plan, const CounterfactualCounts& counts) {
  if (absl::Status status = CheckCounts(plan, counts); !status.ok()) {
    return status;
  }
  CounterfactualResult result;
  result.samples = counts.samples;
  result.val_loss = counts.loss_sum / static_cast<double>(counts.batches);
  for (const int64_t correct : counts.correct) {
    result.accuracies.push_back(Percent(correct, counts.samples));
  }
  result.val_accuracy = result.accuracies[0];
  result.committed_accuracy = result.accuracies[*plan.Find(plan.committed())];
  if (plan.num_slots() == 0) return result;

  result.all_off_accuracy = result.accuracies[*plan.Find(0)];
  for (int i = 0; i < plan.num_slots(); ++i) {
    const int off = *plan.Find(plan.all_on() & ~(uint64_t{1} << i));
    SlotAttribution attribution;
    attribution.slot = plan.slots()[i].slot;
    attribution.baseline = result.accuracies[off];
    attribution.contribution = result.val_accuracy - attribution.baseline;
    attribution.standard_error =
        PairedStandardError(counts.samples, counts.correct[0],
                            counts.correct[off], counts.correct_with_main[off]);
    result.slots.push_back(std::move(attribution));
  }
  AddPairs(plan, result);
  AddAlphaSums(plan, result);
  if (absl::Status status = AddShapley(plan, result); !status.ok()) {
    return status;
  }
  return result;
}

double PairedStandardError(int64_t samples, int64_t correct_a,
                           int64_t correct_b, int64_t both) {
  if (samples < 2) return 0;
  const double n = static_cast<double>(samples);
  // Of the differences: sum, and sum of squares (the discordant samples).
  const double sum = static_cast<double>(correct_a - correct_b);
  const double squares = static_cast<double>(correct_a + correct_b - 2 * both);
  const double variance = (squares - sum * sum / n) / (n - 1);
  return 100.0 * std::sqrt(std::max(variance, 0.0) / n);
}

}  // namespace esper::slot
