#include "core/slot/topology.h"

#include "absl/strings/str_cat.h"

namespace esper::slot {

const char* TopologyName(Topology topology) {
  return topology == Topology::kCnn ? "cnn" : "transformer";
}

absl::StatusOr<Topology> ParseTopology(const std::string& name) {
  if (name == "cnn") return Topology::kCnn;
  if (name == "transformer") return Topology::kTransformer;
  return absl::InvalidArgumentError(absl::StrCat(
      "Topology must be \"cnn\" or \"transformer\", got \"", name, "\"."));
}

}  // namespace esper::slot
