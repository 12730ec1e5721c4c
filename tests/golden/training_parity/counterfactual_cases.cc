#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "core/slot/counterfactual.h"
#include "tests/golden/training_parity/cases.h"

namespace esper::testing {
namespace {

using nlohmann::json;

// So many that every accuracy of the files is a whole number of samples.
constexpr int64_t kSamples = 10'000'000'000'000;
constexpr double kTolerance = 1e-8;

// What the product makes of the accuracies of all coalitions, which `accuracy`
// gives by bit mask over the slots.
template <typename Accuracy>
slot::CounterfactualResult Measure(const std::vector<std::string>& slots,
                                   const Accuracy& accuracy,
                                   const slot::CounterfactualPlan& plan) {
  slot::CounterfactualCounts counts;
  counts.samples = kSamples;
  counts.batches = 1;
  for (const uint64_t mask : plan.masks()) {
    // The plan orders slots by position.
    uint64_t given = 0;
    for (size_t i = 0; i < slots.size(); ++i) {
      for (int j = 0; j < plan.num_slots(); ++j) {
        if (plan.slots()[j].slot == slots[i] && mask >> j & 1) given |= 1u << i;
      }
    }
    const int64_t correct =
        std::llround(accuracy(given) / 100.0 * static_cast<double>(kSamples));
    counts.correct.push_back(correct);
    // Only standard errors read the overlap.
    counts.correct_with_main.push_back(
        std::min(correct, counts.correct.front()));
  }
  auto result = slot::Attribute(plan, counts);
  if (!result.ok()) throw std::runtime_error(result.status().ToString());
  return *std::move(result);
}

slot::CounterfactualPlan PlanOf(const std::vector<std::string>& slots) {
  std::vector<slot::SlotSetting> settings;
  for (const std::string& slot : slots) {
    settings.push_back({slot, /*active=*/true, /*fossilized=*/false, 1.0});
  }
  slot::CounterfactualPlan::Options options;
  options.lattice_limit = 12;
  auto plan = slot::CounterfactualPlan::Create(settings, options);
  if (!plan.ok()) throw std::runtime_error(plan.status().ToString());
  return *std::move(plan);
}

// Mean over the coalitions of the other slots of what this one adds.
double MarginalOf(const slot::CounterfactualPlan& plan,
                  const slot::CounterfactualResult& result, int slot) {
  double sum = 0;
  int coalitions = 0;
  for (int i = 0; i < plan.num_configurations(); ++i) {
    const uint64_t mask = plan.masks()[i];
    if (mask >> slot & 1) {
      const auto without = plan.Find(mask & ~(uint64_t{1} << slot));
      sum += result.accuracies.at(i) - result.accuracies.at(without.value());
      ++coalitions;
    }
  }
  return sum / coalitions;
}

}  // namespace

void CheckCounterfactual(const json& golden, GoldenReport::Case* check) {
  const auto ids = golden.at("slot_ids").get<std::vector<std::string>>();
  std::vector<double> by_mask(size_t{1} << ids.size(), std::nan(""));
  for (const json& config : golden.at("configs")) {
    size_t mask = 0;
    for (size_t i = 0; i < ids.size(); ++i) {
      if (config.at("on").at(i).get<bool>()) mask |= size_t{1} << i;
    }
    by_mask.at(mask) = GoldenNumber(config.at("accuracy"));
  }
  const slot::CounterfactualPlan plan = PlanOf(ids);
  const slot::CounterfactualResult result = Measure(
      ids, [&](uint64_t mask) { return by_mask.at(mask); }, plan);
  for (int i = 0; i < plan.num_slots(); ++i) {
    const std::string& id = plan.slots()[i].slot;
    check->Near("shapley of " + id, result.slots.at(i).shapley.value(),
                GoldenNumber(golden.at("exact_shapley").at(id)), 0, kTolerance);
    check->Near("marginal of " + id, MarginalOf(plan, result, i),
                GoldenNumber(golden.at("marginal").at(id)), 0, kTolerance);
  }
  const json interactions = golden.value("interactions", json::object());
  for (const auto& [pair, value] : interactions.items()) {
    bool found = false;
    for (const slot::PairInteraction& measured : result.pairs) {
      const std::string& a = plan.slots()[measured.first].slot;
      const std::string& b = plan.slots()[measured.second].slot;
      if (pair != a + "|" + b && pair != b + "|" + a) continue;
      found = true;
      check->Near(pair, measured.value, GoldenNumber(value), 0, kTolerance);
    }
    if (!found) check->Fail("no interaction of " + pair);
  }
}

void CheckPairInteraction(const json& golden, GoldenReport::Case* check) {
  const double accuracies[] = {
      GoldenNumber(golden.at("empty")), GoldenNumber(golden.at("a")),
      GoldenNumber(golden.at("b")), GoldenNumber(golden.at("pair"))};
  const std::vector<std::string> ids = {"r0c0", "r0c1"};
  const slot::CounterfactualResult result = Measure(
      ids, [&](uint64_t mask) { return accuracies[mask]; }, PlanOf(ids));
  check->Near("interaction", result.pairs.at(0).value,
              GoldenNumber(golden.at("value")), 0, kTolerance);
}

}  // namespace esper::testing
