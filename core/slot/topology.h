#ifndef ESPER_CORE_SLOT_TOPOLOGY_H_
#define ESPER_CORE_SLOT_TOPOLOGY_H_

#include <string>

#include "absl/status/statusor.h"

namespace esper::slot {

// The layout of the features that a host hands to its slots.
enum class Topology {
  kCnn,          // [B, C, H, W]
  kTransformer,  // [B, T, C]
};

// "cnn" or "transformer".
const char* TopologyName(Topology topology);

// INVALID_ARGUMENT for any other string, case included.
absl::StatusOr<Topology> ParseTopology(const std::string& name);

// Axes of a feature tensor: 4 or 3.
inline int FeatureRank(Topology topology) {
  return topology == Topology::kCnn ? 4 : 3;
}

}  // namespace esper::slot
#endif  // ESPER_CORE_SLOT_TOPOLOGY_H_
