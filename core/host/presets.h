#ifndef ESPER_CORE_HOST_PRESETS_H_
#define ESPER_CORE_HOST_PRESETS_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "core/host/host.h"
#include "core/slot/topology.h"

namespace esper::host {

// A host of a published task.
struct HostPreset {
  std::string name;  // "cifar_baseline".
  slot::Topology topology = slot::Topology::kCnn;
  int64_t parameter_count = 0;  // Trainable, without seeds.
  int64_t slots = 0;            // Points that it offers.
  // Builds it; initial weights depend on `seed` alone.
  std::function<absl::StatusOr<std::shared_ptr<Host>>(uint64_t seed)> create;
};

// All presets, sorted by name. To change one, take its options from
// CnnHostPresets or TransformerHostPresets.
const std::vector<HostPreset>& HostPresets();

// INVALID_ARGUMENT (UNKNOWN_PRESET) that lists the presets there are. The
// pointer is valid for good.
absl::StatusOr<const HostPreset*> FindHostPreset(const std::string& name);

}  // namespace esper::host
#endif  // ESPER_CORE_HOST_PRESETS_H_
