#include <map>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "ATen/ops/isfinite.h"
#include "absl/strings/str_cat.h"
#include "core/error.h"
#include "core/ppo/learner_core.h"
#include "core/ppo/options_json.h"
#include "core/tensor/checks.h"
#include "nlohmann/json.hpp"

namespace esper::ppo {
namespace {

using nlohmann::json;

constexpr int kFormat = 2;

json ToJson(const Moments& moments) {
  return {{"mean", moments.mean},
          {"variance", moments.variance},
          {"count", moments.count}};
}

Moments MomentsFrom(const json& value) {
  Moments moments;
  value.at("mean").get_to(moments.mean);
  value.at("variance").get_to(moments.variance);
  value.at("count").get_to(moments.count);
  return moments;
}

json ToJson(const RewardNormalizer::State& state) {
  return {{"mean", state.mean}, {"m2", state.m2}, {"count", state.count}};
}

RewardNormalizer::State RewardsFrom(const json& value) {
  RewardNormalizer::State state;
  value.at("mean").get_to(state.mean);
  value.at("m2").get_to(state.m2);
  value.at("count").get_to(state.count);
  return state;
}

json ToJson(const LearnerStatistics& statistics) {
  return {{"observations", ToJson(statistics.observations.moments())},
          {"returns", ToJson(statistics.returns.moments())},
          {"rewards", ToJson(statistics.rewards.state())},
          {"values", ToJson(statistics.values.moments())}};
}

json ToJson(const LearnerCounters& counters) {
  return {{"optimizer_steps", counters.optimizer_steps},
          {"steps_since_publish", counters.steps_since_publish},
          {"updates", counters.updates},
          {"transitions_trained", counters.transitions},
          {"nonfinite_in_a_row", counters.nonfinite_in_a_row},
          {"passes", counters.passes}};
}

void Read(const json& value, LearnerCounters* counters) {
  value.at("optimizer_steps").get_to(counters->optimizer_steps);
  value.at("steps_since_publish").get_to(counters->steps_since_publish);
  value.at("updates").get_to(counters->updates);
  value.at("transitions_trained").get_to(counters->transitions);
  value.at("nonfinite_in_a_row").get_to(counters->nonfinite_in_a_row);
  value.at("passes").get_to(counters->passes);
}

json StepsOf(const std::vector<Adam::Slot>& slots) {
  std::vector<int64_t> steps;
  for (const Adam::Slot& slot : slots) steps.push_back(slot.step);
  return steps;
}

[[noreturn]] void Corrupt(const std::string& tensor,
                          const std::string& message) {
  ErrorDetail detail;
  detail.reason = "CORRUPT_CHECKPOINT";
  detail.tensor = tensor;
  detail.hint = "Restore another checkpoint.";
  throw Error(CodeOfReason(detail.reason), detail, message);
}

void ThrowIfError(const absl::Status& status) {
  if (!status.ok()) Corrupt("", std::string(status.message()));
}

void Read(const json& value, LearnerStatistics* statistics) {
  ThrowIfError(
      statistics->observations.Restore(MomentsFrom(value.at("observations"))));
  ThrowIfError(statistics->returns.Restore(MomentsFrom(value.at("returns"))));
  ThrowIfError(statistics->values.Restore(MomentsFrom(value.at("values"))));
  statistics->rewards.Restore(RewardsFrom(value.at("rewards")));
}

// The tensors of a state, each taken once.
class TensorTable {
 public:
  explicit TensorTable(const NamedTensors& tensors) {
    for (const auto& [name, value] : tensors) {
      if (!table_.emplace(name, value).second) {
        Corrupt(name, absl::StrCat("Tensor ", name, " appears twice."));
      }
    }
  }

  bool Has(const std::string& name) const { return table_.count(name) > 0; }

  // A copy, of the shape and dtype of `like`, finite.
  at::Tensor Take(const std::string& name, const at::Tensor& like) {
    const auto it = table_.find(name);
    if (it == table_.end()) {
      Corrupt(name, absl::StrCat("Tensor ", name, " is missing."));
    }
    const at::Tensor found = it->second;
    if (found.sizes() != like.sizes() ||
        found.scalar_type() != like.scalar_type()) {
      Corrupt(name, absl::StrCat("Tensor ", name, " is ",
                                 tensor::Describe(found), ", expected ",
                                 tensor::Describe(like.detach()), "."));
    }
    if (!at::isfinite(found).all().item<bool>()) {
      Corrupt(name, absl::StrCat("Tensor ", name, " holds NaN or infinity."));
    }
    table_.erase(it);
    return found.clone();
  }

  // Entries "<prefix><name>" for the entries of `like`.
  NamedTensors TakeAll(const std::string& prefix, const NamedTensors& like) {
    NamedTensors taken;
    for (const auto& [name, value] : like) {
      taken.emplace_back(name, Take(prefix + name, value));
    }
    return taken;
  }

  void CheckEmpty() const {
    if (table_.empty()) return;
    const std::string& name = table_.begin()->first;
    Corrupt(name, absl::StrCat("Tensor ", name, " belongs to nothing."));
  }

 private:
  std::map<std::string, at::Tensor> table_;
};

}  // namespace

LearnerState LearnerCore::Save() const {
  LearnerState state;
  for (auto& [name, value] : network->StateDict()) {
    state.tensors.emplace_back("weights." + name, std::move(value));
  }
  if (moved_since_publish) {
    for (const auto& [name, value] : snapshot->weights) {
      state.tensors.emplace_back("published." + name, value.clone());
    }
  }
  for (size_t i = 0; i < names.size(); ++i) {
    const Adam::Slot& slot = adam.slots()[i];
    state.tensors.emplace_back("adam.m." + names[i], slot.m.clone());
    state.tensors.emplace_back("adam.v." + names[i], slot.v.clone());
    if (counters.steps_since_publish > 0) {
      const Adam::Slot& before = start.slots[i];
      state.tensors.emplace_back("start.adam.m." + names[i], before.m.clone());
      state.tensors.emplace_back("start.adam.v." + names[i], before.v.clone());
    }
    const at::Tensor& gradient = parameters[i].grad();
    if (gradient.defined()) {
      state.tensors.emplace_back("gradient." + names[i],
                                 gradient.detach().clone());
    }
  }
  json units = json::object();
  for (const auto& [version, unit] : value_units) {
    units[std::to_string(version)] = unit;
  }
  const json text = {{"format", kFormat},
                     {"spec_digest", rules.spec_digest()},
                     {"policy_version", counters.version},
                     {"counters", ToJson(counters)},
                     {"moved_since_publish", moved_since_publish},
                     {"learning_rate", adam.options().learning_rate},
                     {"adam_steps", StepsOf(adam.slots())},
                     {"reward_deviation", deviation},
                     {"value_units", units},
                     {"statistics", ToJson(statistics)},
                     {"published_observations", ToJson(scaler_moments)},
                     {"update_start",
                      {{"counters", ToJson(start.counters)},
                       {"learning_rate", start.learning_rate},
                       {"adam_steps", StepsOf(start.slots)},
                       {"statistics", ToJson(start.statistics)}}},
                     {"config", ToJson(config)},
                     {"pass_options", json::parse(pass_options)},
                     {"step_options", json::parse(step_options)}};
  state.json = text.dump();
  return state;
}

absl::Status LearnerCore::Load(const LearnerState& state) {
  try {
    const json text = json::parse(state.json);
    if (text.at("format").get<int>() != kFormat) {
      Corrupt("",
              absl::StrCat("Learner state of format ", text.at("format").dump(),
                           ", expected ", kFormat, "."));
    }
    const std::string digest = text.at("spec_digest");
    if (digest != rules.spec_digest()) {
      RefuseCall(
          "SPEC_MISMATCH", "spec_digest",
          absl::StrCat("The checkpoint belongs to specification ", digest,
                       ", this policy's is ", rules.spec_digest(), "."),
          "Start the server with the checkpoint's specification.");
    }
    text.at("policy_version").get_to(counters.version);
    Read(text.at("counters"), &counters);
    text.at("moved_since_publish").get_to(moved_since_publish);
    text.at("learning_rate").get_to(adam.options().learning_rate);
    text.at("reward_deviation").get_to(deviation);
    for (const auto& [version, unit] : text.at("value_units").items()) {
      value_units[std::stoll(version)] = unit.get<double>();
    }
    if (counters.version < 1 || value_units.count(counters.version) == 0) {
      Corrupt("", "The learner state has no value unit of its version.");
    }
    Read(text.at("statistics"), &statistics);
    pass_options = text.at("pass_options").dump();
    step_options = text.at("step_options").dump();
    scaler_moments = MomentsFrom(text.at("published_observations"));
    ThrowIfError(scaler_moments.Check(spec.observation_width()));

    TensorTable table(state.tensors);
    const NamedTensors like = network->StateDict();
    const NamedTensors weights = table.TakeAll("weights.", like);
    ThrowIfError(network->LoadStateDict(weights));
    const json& begun = text.at("update_start");
    start.counters.version = counters.version;
    Read(begun.at("counters"), &start.counters);
    Read(begun.at("statistics"), &start.statistics);
    begun.at("learning_rate").get_to(start.learning_rate);
    const auto steps = text.at("adam_steps").get<std::vector<int64_t>>();
    const auto start_steps = begun.at("adam_steps").get<std::vector<int64_t>>();
    if (steps.size() != names.size() || start_steps.size() != names.size()) {
      Corrupt("", "The learner state has optimiser steps of another network.");
    }
    start.slots.clear();
    for (size_t i = 0; i < names.size(); ++i) {
      const at::Tensor shape = parameters[i].detach();
      const auto slot = [&](const std::string& prefix, int64_t step) {
        return Adam::Slot{table.Take(prefix + "adam.m." + names[i], shape),
                          table.Take(prefix + "adam.v." + names[i], shape),
                          step};
      };
      adam.slots()[i] = slot("", steps[i]);
      start.slots.push_back(counters.steps_since_publish > 0
                                ? slot("start.", start_steps[i])
                                : adam.slots()[i]);
      if (table.Has("gradient." + names[i])) {
        parameters[i].mutable_grad() =
            table.Take("gradient." + names[i], shape);
      }
    }
    NamedTensors published = weights;
    if (moved_since_publish) published = table.TakeAll("published.", like);
    table.CheckEmpty();
    MakeSnapshot(std::move(published));
  } catch (const Error& error) {
    return ToStatus(error);
  } catch (const std::exception& error) {
    ErrorDetail detail;
    detail.reason = "CORRUPT_CHECKPOINT";
    detail.field = "json";
    detail.hint = "Restore another checkpoint.";
    return MakeStatus(
        CodeOfReason(detail.reason), detail,
        absl::StrCat("The learner state does not parse: ", error.what(), "."));
  }
  return absl::OkStatus();
}

}  // namespace esper::ppo
