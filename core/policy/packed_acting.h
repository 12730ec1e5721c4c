#ifndef ESPER_CORE_POLICY_PACKED_ACTING_H_
#define ESPER_CORE_POLICY_PACKED_ACTING_H_

#include "core/policy/packed_policy.h"
#include "core/policy/sampler.h"

// The functions of core/policy/sampler.h on a packed policy: the same inputs,
// checks, errors and meaning of every result. In fp32 the results agree but for
// the order of sums.
namespace esper::policy {

// `policy`: the same version as `packed`; Q comes from its weights.
ActionSample GetAction(const ActingPolicy& policy, const PackedPolicy& packed,
                       const PolicyInputs& inputs, const Noise& noise,
                       const SampleOptions& options);

BehaviourTensor GetValue(const ActingPolicy& policy, const PackedPolicy& packed,
                         const PolicyInputs& inputs);

}  // namespace esper::policy
#endif  // ESPER_CORE_POLICY_PACKED_ACTING_H_
