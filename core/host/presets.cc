#include "core/host/presets.h"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/error.h"
#include "core/host/cnn_host.h"
#include "core/host/transformer_host.h"

namespace esper::host {
namespace {

template <typename HostType, typename Options>
HostPreset Describe(const std::string& name, const Options& options) {
  HostPreset preset;
  preset.name = name;
  preset.create =
      [options](uint64_t seed) -> absl::StatusOr<std::shared_ptr<Host>> {
    return HostType::Create(options, seed);
  };
  return preset;
}

std::vector<HostPreset> MakePresets() {
  std::vector<HostPreset> presets;
  for (const auto& [name, options] : CnnHostPresets()) {
    HostPreset preset = Describe<CnnHost>(name, options);
    preset.topology = slot::Topology::kCnn;
    preset.parameter_count = CnnHostParameterCount(options);
    preset.slots = options.n_blocks + options.pools();
    presets.push_back(std::move(preset));
  }
  for (const auto& [name, options] : TransformerHostPresets()) {
    HostPreset preset = Describe<TransformerHost>(name, options);
    preset.topology = slot::Topology::kTransformer;
    preset.parameter_count = TransformerHostParameterCount(options);
    preset.slots = options.segments;
    presets.push_back(std::move(preset));
  }
  std::sort(presets.begin(), presets.end(),
            [](const auto& a, const auto& b) { return a.name < b.name; });
  return presets;
}

}  // namespace

const std::vector<HostPreset>& HostPresets() {
  static const auto* const presets = new std::vector<HostPreset>(MakePresets());
  return *presets;
}

absl::StatusOr<const HostPreset*> FindHostPreset(const std::string& name) {
  std::vector<std::string> names;
  for (const HostPreset& preset : HostPresets()) {
    if (preset.name == name) return &preset;
    names.push_back(preset.name);
  }
  return MakeStatus(
      absl::StatusCode::kInvalidArgument,
      {.reason = "UNKNOWN_PRESET", .field = name},
      absl::StrCat("There is no host preset \"", name, "\"; there are ",
                   absl::StrJoin(names, ", "), "."));
}

}  // namespace esper::host
