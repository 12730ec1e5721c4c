#ifndef ESPER_CORE_SLOT_BLUEPRINT_H_
#define ESPER_CORE_SLOT_BLUEPRINT_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "core/slot/alpha.h"
#include "core/slot/seed_module.h"
#include "core/slot/topology.h"

namespace esper::slot {

// How a blueprint's parameters start.
enum class InitProfile {
  // Near identity, with a non-zero gradient for every parameter tensor.
  kLive,
  // The upstream project's zero initialisations, for comparisons with it.
  kUpstream,
};

// What a factory is asked for.
struct SeedModuleOptions {
  int64_t channels = 0;  // C of the slot, > 0.
  InitProfile init_profile = InitProfile::kLive;
  // The blend under which the seed will run. Under MULTIPLY the factory makes
  // the output equal the input at birth, as far as the profile promises it.
  AlphaAlgorithm algorithm = AlphaAlgorithm::kAdd;
  // Initial weights are drawn from a private generator that starts here;
  // absent, from the default generator.
  std::optional<uint64_t> seed;
  // Named integers, such as a head count; only names that the blueprint
  // declares. Absent names take the blueprint's own default.
  std::map<std::string, int64_t> values;
};

// A named recipe for a seed.
struct Blueprint {
  // INVALID_ARGUMENT if the options do not fit (channels, head count).
  using Factory = std::function<absl::StatusOr<std::shared_ptr<SeedModule>>(
      const SeedModuleOptions& options)>;

  Topology topology = Topology::kCnn;
  std::string name;  // Non-empty, lower case: "conv_light".
  // Approximate parameter count at a typical width; orders the list.
  int64_t parameter_estimate = 0;
  // Exact parameter count for C channels.
  std::function<int64_t(int64_t channels)> parameter_count;
  Factory create;
  std::set<std::string> value_names = {};  // Options that `create` reads.
  // Index in the policy's blueprint head. Negative: looked up by name when the
  // registry is built.
  int64_t action_index = -1;
};

// Index of a blueprint name in the policy's blueprint head (noop 0 ..
// flex_attention 12); absent for a name that the head does not have.
std::optional<int64_t> BlueprintActionIndex(const std::string& name);

// The blueprints that can be germinated. Immutable: any thread may use it.
class BlueprintRegistry {
 public:
  // INVALID_ARGUMENT if a name is empty or occurs twice in a topology, a
  // function is missing, or an action index is neither given nor known.
  static absl::StatusOr<BlueprintRegistry> Create(
      std::vector<Blueprint> blueprints);

  // INVALID_ARGUMENT listing the available names. The pointer lives as long as
  // the registry.
  absl::StatusOr<const Blueprint*> Find(Topology topology,
                                        const std::string& name) const;

  // Builds a module. INVALID_ARGUMENT for an unknown name, channels <= 0, a
  // value that the blueprint does not declare, or what the factory refuses.
  absl::StatusOr<std::shared_ptr<SeedModule>> Create(
      Topology topology, const std::string& name,
      const SeedModuleOptions& options) const;

  // Sorted by (parameter estimate, name).
  std::vector<const Blueprint*> List(Topology topology) const;

 private:
  explicit BlueprintRegistry(
      std::map<std::pair<Topology, std::string>, Blueprint> blueprints)
      : blueprints_(std::move(blueprints)) {}

  std::map<std::pair<Topology, std::string>, Blueprint> blueprints_;
};

}  // namespace esper::slot
#endif  // ESPER_CORE_SLOT_BLUEPRINT_H_
