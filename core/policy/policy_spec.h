#ifndef ESPER_CORE_POLICY_POLICY_SPEC_H_
#define ESPER_CORE_POLICY_POLICY_SPEC_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

// What a policy is, apart from its weights: what it observes, which choices it
// makes and how they depend on each other. Values without tensors; two policies
// with equal specifications can exchange weights and recorded episodes.
namespace esper::policy {

// How the probability of an allowed choice is kept away from zero.
enum class FloorMode : uint8_t {
  kNone,
  // One pass of clipping and rescaling, after which an entry that was close to
  // the floor may lie below it. Clipped entries get no gradient.
  kUpstream,
  // The same, repeated until no entry lies below the floor.
  kExact,
  // p' = (1 - n f) p + f over the n allowed entries: a true floor, with a
  // gradient everywhere.
  kMixture,
};
const char* FloorModeName(FloorMode mode);  // "none", "exact", ...

// Width of one named block of the observation vector.
struct ObservationField {
  std::string name;
  int64_t width = 0;  // >= 1.

  bool operator==(const ObservationField& other) const;
};

// An integer per position, embedded by the network and appended to the
// observation. -1 stands for "nothing there" and has an embedding of its own.
struct CategoricalInput {
  std::string name;
  int64_t count = 0;        // Positions, >= 1.
  int64_t cardinality = 0;  // Values are -1 or in [0, cardinality).
  int64_t width = 0;        // Of one embedding, >= 1.

  bool operator==(const CategoricalInput& other) const;
};

// What a head gives.
enum class HeadKind : uint8_t {
  // One of `size` choices, masked.
  kCategorical,
  // `size` real numbers: a normal distribution with a diagonal covariance. Its
  // mean comes from the network, its log standard deviation is a parameter of
  // its own that no input moves, as is usual with PPO.
  kGaussian,
};
const char* HeadKindName(HeadKind kind);  // "categorical", "gaussian".

// One part of an action: a categorical choice or a Gaussian vector.
struct HeadSpec {
  // A head that always matters, of one hidden layer. `name` as in Validate.
  static HeadSpec Categorical(const std::string& name, int64_t choices,
                              int64_t hidden = 64);
  // The same for real numbers. Its share of the entropy bonus is 0: the
  // differential entropy has no upper bound, and a bonus only ever widens the
  // distribution.
  static HeadSpec Gaussian(const std::string& name, int64_t dimensions,
                           int64_t hidden = 64);

  std::string name;
  HeadKind kind = HeadKind::kCategorical;
  int64_t size = 0;                 // Choices or dimensions, >= 1.
  std::vector<std::string> labels;  // One per choice or dimension, or none.

  // Network: hidden widths, then the output layer's orthogonal gain.
  std::vector<int64_t> hidden;
  double final_gain = 0.01;

  // Head whose choice decides whether this one matters; empty: it always does.
  std::string driver;
  // Driver choices under which this head matters.
  std::vector<int64_t> relevant_when;

  // Categorical heads only; defaults for Gaussian ones.
  // What the head holds when it does not matter; absent: the first entry that
  // its mask allows, or 0 if there is none. (A Gaussian head holds zeros.)
  std::optional<int64_t> placeholder;
  // Its mask depends on the driver's choice: an input [driver size, size].
  bool conditional_mask = false;
  // Choice that leaves the environment alone; -1 if there is none.
  int64_t idle_choice = -1;

  double floor = 0;  // Smallest probability of an allowed choice, [0, 1).

  // Gaussian heads only; defaults for categorical ones.
  double initial_log_std = 0;  // [-5, 2].
  // What the environment takes in each dimension, for clients; empty: anything.
  // Actions are neither squashed nor clipped: the environment clips, and the
  // density is that of the unclipped action.
  std::vector<double> low, high;

  double entropy_coef = 1;  // Multiplies the head's share of the entropy bonus.

  bool operator==(const HeadSpec& other) const;
};

// The floors in force, one per head in storage order.
struct FloorSettings {
  FloorMode mode = FloorMode::kNone;
  std::vector<double> floors;

  // Every floor times `factor`, in [0, 1]: floors that are annealed. With 0
  // there is none.
  FloorSettings Scaled(double factor) const;

  bool operator==(const FloorSettings& other) const {
    return mode == other.mode && floors == other.floors;
  }
  bool operator!=(const FloorSettings& other) const {
    return !(*this == other);
  }
};

struct NetworkGrowingOptions {
  std::vector<std::string> slot_ids = {"r0c0", "r0c1", "r0c2"};
  int64_t feature_dim = 512;
  int64_t hidden_dim = 512;
  int64_t lstm_layers = 1;
  // With kUpstream and kExact the floors are upstream's, with kMixture small
  // ones.
  FloorMode floor_mode = FloorMode::kMixture;
};

struct PolicySpec {
  std::string name;
  std::vector<ObservationField> observation;
  std::optional<CategoricalInput> categorical;
  std::vector<HeadSpec> heads;              // Storage order.
  std::vector<std::string> sampling_order;  // Every head once, drivers first.
  // Slots of the network-growing family, in the order of its slot head and
  // observation blocks; empty for other policies.
  std::vector<std::string> slot_ids;

  // Network.
  int64_t feature_dim = 512;  // F.
  int64_t hidden_dim = 512;   // H, >= 8.
  int64_t lstm_layers = 1;    // L.
  // Head whose choice is the input of Q; empty: the network has no Q.
  std::string q_head;
  // Outputs of the contribution predictor; 0: the network has none.
  int64_t contribution_outputs = 0;

  FloorMode floor_mode = FloorMode::kNone;
  // A request without masks means that everything is allowed.
  bool mask_optional = false;

  bool operator==(const PolicySpec& other) const;

  // The policy that grows networks: 23 + 31 S observations, a blueprint per
  // slot, eight heads driven by the op. The options must be valid.
  static PolicySpec NetworkGrowing(const NetworkGrowingOptions& options = {});

  // Vector observations and the given heads, sampled in order (drivers first);
  // masks optional, no floors, one LSTM layer of 64. Validate it.
  static PolicySpec Plain(int64_t observation_width,
                          const std::vector<HeadSpec>& heads);

  // INVALID_ARGUMENT, naming the field: no head, duplicate or unknown names,
  // sizes below 1, placeholders or driver choices out of range, a sampling
  // order that is no order of the heads or puts a head before its driver, a
  // cycle of drivers, more than one conditional mask or one without a driver,
  // floors outside [0, 1), a network width out of range; a Gaussian head that
  // drives another, is the Q head, or has what only choices can have; bounds
  // that are not finite pairs of low < high.
  absl::Status Validate() const;

  // JSON with sorted keys. FromJson refuses unknown and missing fields and
  // validates; INVALID_ARGUMENT names the field.
  std::string ToJson() const;
  static absl::StatusOr<PolicySpec> FromJson(const std::string& text);

  // SHA-256 of the canonical JSON, 64 lower-case hexadecimal digits.
  std::string Digest() const;

  int64_t num_heads() const { return static_cast<int64_t>(heads.size()); }
  int64_t observation_width() const;  // D.
  int64_t categorical_count() const;  // 0 without a categorical input.
  // A, the sum of the sizes of categorical heads: entries of a packed mask.
  int64_t action_width() const;
  // C, the sum of the sizes of Gaussian heads.
  int64_t continuous_width() const;
  // Position in storage order; -1 if there is no such head.
  int64_t HeadIndex(const std::string& head) const;
  // Driver of head `k`; -1 if it has none.
  int64_t DriverOf(int64_t k) const { return HeadIndex(heads[k].driver); }
  // The head with a conditional mask; -1 if there is none.
  int64_t ConditionalHead() const;

  // The floors that the specification asks for.
  FloorSettings Floors() const;
  // Other floors by head name; heads not named get none. INVALID_ARGUMENT
  // (BAD_FLOOR) for an unknown head or a floor outside [0, 1).
  absl::StatusOr<FloorSettings> FloorsFrom(
      FloorMode mode, const std::map<std::string, double>& floors) const;
};

// Upstream's floors of the network-growing heads.
std::map<std::string, double> UpstreamFloors();

}  // namespace esper::policy
#endif  // ESPER_CORE_POLICY_POLICY_SPEC_H_
