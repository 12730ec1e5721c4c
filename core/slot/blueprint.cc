#include "core/slot/blueprint.h"

#include <algorithm>
#include <array>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace esper::slot {

std::optional<int64_t> BlueprintActionIndex(const std::string& name) {
  static constexpr std::array<const char*, 13> kNames = {
      "noop",       "conv_light", "attention",     "norm", "depthwise",
      "bottleneck", "conv_small", "conv_heavy",    "lora", "lora_large",
      "mlp_small",  "mlp",        "flex_attention"};
  const auto it = std::find(kNames.begin(), kNames.end(), name);
  if (it == kNames.end()) return std::nullopt;
  return it - kNames.begin();
}

absl::StatusOr<BlueprintRegistry> BlueprintRegistry::Create(
    std::vector<Blueprint> blueprints) {
  std::map<std::pair<Topology, std::string>, Blueprint> table;
  for (Blueprint& blueprint : blueprints) {
    const std::string label =
        absl::StrCat(TopologyName(blueprint.topology), " blueprint \"",
                     blueprint.name, "\"");
    if (blueprint.name.empty()) {
      return absl::InvalidArgumentError("A blueprint needs a name.");
    }
    if (!blueprint.create || !blueprint.parameter_count) {
      return absl::InvalidArgumentError(absl::StrCat(
          "The ", label, " lacks its factory or parameter formula."));
    }
    if (blueprint.action_index < 0) {
      const std::optional<int64_t> index = BlueprintActionIndex(blueprint.name);
      if (!index) {
        return absl::InvalidArgumentError(
            absl::StrCat("The ", label, " has no action index."));
      }
      blueprint.action_index = *index;
    }
    const std::pair key(blueprint.topology, blueprint.name);
    if (!table.emplace(key, std::move(blueprint)).second) {
      return absl::InvalidArgumentError(
          absl::StrCat("The ", label, " is registered twice."));
    }
  }
  return BlueprintRegistry(std::move(table));
}

absl::StatusOr<const Blueprint*> BlueprintRegistry::Find(
    Topology topology, const std::string& name) const {
  const auto it = blueprints_.find({topology, name});
  if (it != blueprints_.end()) return &it->second;
  std::vector<std::string> names;
  for (const Blueprint* blueprint : List(topology)) {
    names.push_back(blueprint->name);
  }
  return absl::InvalidArgumentError(
      absl::StrCat("There is no ", TopologyName(topology), " blueprint \"",
                   name, "\"; available: ", absl::StrJoin(names, ", "), "."));
}

absl::StatusOr<std::shared_ptr<SeedModule>> BlueprintRegistry::Create(
    Topology topology, const std::string& name,
    const SeedModuleOptions& options) const {
  const auto blueprint = Find(topology, name);
  if (!blueprint.ok()) return blueprint.status();
  if (options.channels <= 0) {
    return absl::InvalidArgumentError(absl::StrCat("Blueprint ", name,
                                                   " needs channels > 0, got ",
                                                   options.channels, "."));
  }
  for (const auto& [key, value] : options.values) {
    if ((*blueprint)->value_names.count(key) == 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("Blueprint ", name, " has no option \"", key, "\"."));
    }
  }
  auto module = (*blueprint)->create(options);
  if (module.ok() && *module == nullptr) {
    return absl::InternalError(
        absl::StrCat("The factory of blueprint ", name, " made nothing."));
  }
  return module;
}

std::vector<const Blueprint*> BlueprintRegistry::List(Topology topology) const {
  std::vector<const Blueprint*> list;
  for (const auto& [key, blueprint] : blueprints_) {
    if (key.first == topology) list.push_back(&blueprint);
  }
  std::sort(list.begin(), list.end(), [](const auto* a, const auto* b) {
    return std::tie(a->parameter_estimate, a->name) <
           std::tie(b->parameter_estimate, b->name);
  });
  return list;
}

}  // namespace esper::slot
