#include <map>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "ATen/ops/isfinite.h"
#include "absl/strings/str_cat.h"
#include "core/error.h"
#include "core/ppo/learner_core.h"
#include "core/tensor/checks.h"
#include "nlohmann/json.hpp"

namespace esper::ppo {
namespace {

using nlohmann::json;

constexpr int kFormat = 1;

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

json ConfigJson(const LearnerConfig& config) {
  return {{"beta1", config.beta1},
          {"beta2", config.beta2},
          {"adam_epsilon", config.adam_epsilon},
          {"critic_weight_decay", config.critic_weight_decay},
          {"normalize_observations", config.normalize_observations},
          {"scale_rewards", config.scale_rewards},
          {"normalize_values", config.normalize_values},
          {"popart", config.popart},
          {"exact_rows", config.exact_rows},
          {"value_exact_rows", config.value_averaging.exact_rows},
          {"value_momentum", config.value_averaging.momentum},
          {"predictor_dropout", config.predictor_dropout},
          {"dropout_seed", config.dropout_seed},
          {"max_version_lag", config.max_version_lag}};
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
  std::vector<int64_t> adam_steps;
  for (size_t i = 0; i < names.size(); ++i) {
    const Adam::Slot& slot = adam.slots()[i];
    state.tensors.emplace_back("adam.m." + names[i], slot.m.clone());
    state.tensors.emplace_back("adam.v." + names[i], slot.v.clone());
    adam_steps.push_back(slot.step);
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
  const json text = {
      {"format", kFormat},
      {"spec_digest", rules.spec_digest()},
      {"policy_version", counters.version},
      {"optimizer_steps", counters.optimizer_steps},
      {"steps_since_publish", counters.steps_since_publish},
      {"updates", counters.updates},
      {"transitions_trained", counters.transitions},
      {"nonfinite_in_a_row", counters.nonfinite_in_a_row},
      {"passes", counters.passes},
      {"moved_since_publish", moved_since_publish},
      {"learning_rate", adam.options().learning_rate},
      {"adam_steps", adam_steps},
      {"reward_deviation", deviation},
      {"value_units", units},
      {"observations", ToJson(statistics.observations.moments())},
      {"published_observations", ToJson(scaler_moments)},
      {"returns", ToJson(statistics.returns.moments())},
      {"values", ToJson(statistics.values.moments())},
      {"config", ConfigJson(config)}};
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
    text.at("optimizer_steps").get_to(counters.optimizer_steps);
    text.at("steps_since_publish").get_to(counters.steps_since_publish);
    text.at("updates").get_to(counters.updates);
    text.at("transitions_trained").get_to(counters.transitions);
    text.at("nonfinite_in_a_row").get_to(counters.nonfinite_in_a_row);
    text.at("passes").get_to(counters.passes);
    text.at("moved_since_publish").get_to(moved_since_publish);
    text.at("learning_rate").get_to(adam.options().learning_rate);
    text.at("reward_deviation").get_to(deviation);
    for (const auto& [version, unit] : text.at("value_units").items()) {
      value_units[std::stoll(version)] = unit.get<double>();
    }
    if (counters.version < 1 || value_units.count(counters.version) == 0) {
      Corrupt("", "The learner state has no value unit of its version.");
    }
    ThrowIfError(
        statistics.observations.Restore(MomentsFrom(text.at("observations"))));
    ThrowIfError(statistics.returns.Restore(MomentsFrom(text.at("returns"))));
    ThrowIfError(statistics.values.Restore(MomentsFrom(text.at("values"))));
    scaler_moments = MomentsFrom(text.at("published_observations"));
    ThrowIfError(scaler_moments.Check(spec.observation_width()));

    TensorTable table(state.tensors);
    const NamedTensors like = network->StateDict();
    const NamedTensors weights = table.TakeAll("weights.", like);
    ThrowIfError(network->LoadStateDict(weights));
    const auto steps = text.at("adam_steps").get<std::vector<int64_t>>();
    if (steps.size() != names.size()) {
      Corrupt("", "The learner state has optimiser steps of another network.");
    }
    for (size_t i = 0; i < names.size(); ++i) {
      const at::Tensor shape = parameters[i].detach();
      adam.slots()[i] = {table.Take("adam.m." + names[i], shape),
                         table.Take("adam.v." + names[i], shape), steps[i]};
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
