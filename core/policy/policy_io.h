#ifndef ESPER_CORE_POLICY_POLICY_IO_H_
#define ESPER_CORE_POLICY_POLICY_IO_H_

#include <map>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/policy/policy_spec.h"
#include "core/tensor/safetensors.h"

// Weights of a policy as a safetensors file: every state-dict entry under
// upstream's name, and the specification as metadata.
namespace esper::policy {

struct PolicyFile {
  PolicySpec spec;
  tensor::NamedTensors weights;  // State-dict order, float32 and the buffer.
  std::map<std::string, std::string> metadata;
};

// INVALID_ARGUMENT (BAD_SHAPE, NONFINITE_INPUT), naming the entry, unless
// `weights` are exactly the entries of the network of `spec`, of the right
// dtype and shape, finite, with the right null index.
absl::Status ValidateWeights(const PolicySpec& spec,
                             const tensor::NamedTensors& weights);

// The network-growing policy that a state dict belongs to, from its shapes.
// `slot_ids` empty: r0c0, r0c1, ... INVALID_ARGUMENT if no such policy exists.
absl::StatusOr<PolicySpec> DeriveSpec(const tensor::NamedTensors& weights,
                                      const std::vector<std::string>& slot_ids);

// Takes a parsed file apart. The specification is the metadata entry
// "policy_spec" if there is one; otherwise it is derived from the shapes, with
// slots from the entry "slot_ids" (comma separated). A prefix "_orig_mod." of
// names is dropped. Errors: as ValidateWeights; FAILED_PRECONDITION for another
// schema version, or a checkpoint from before the value head was renamed.
absl::StatusOr<PolicyFile> ImportPolicy(const tensor::Safetensors& file);
absl::StatusOr<PolicyFile> ReadPolicy(const std::string& path);

// Metadata that ImportPolicy reads back: "policy_spec", "spec_digest",
// "slot_ids", schema versions.
std::map<std::string, std::string> PolicyMetadata(const PolicySpec& spec);
// Writes atomically; `extra` joins the metadata.
absl::Status WritePolicy(const std::string& path, const PolicySpec& spec,
                         const tensor::NamedTensors& weights,
                         const std::map<std::string, std::string>& extra = {});

}  // namespace esper::policy
#endif  // ESPER_CORE_POLICY_POLICY_IO_H_
