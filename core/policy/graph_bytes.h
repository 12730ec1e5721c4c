#ifndef ESPER_CORE_POLICY_GRAPH_BYTES_H_
#define ESPER_CORE_POLICY_GRAPH_BYTES_H_

#include <cstdint>

#include "core/policy/policy_spec.h"
#include "core/policy/training_precision.h"

namespace esper::policy {

// Memory that an evaluation of `rows` sequences of `steps` steps keeps for its
// backward pass, bytes: an estimate from the widths of what each layer saves,
// made before anything is computed. Within a fifth of what is allocated
// (tests/core/policy/graph_bytes_test.cc measures it).
int64_t EvaluationGraphBytes(const PolicySpec& spec,
                             TrainingPrecision precision, int64_t rows,
                             int64_t steps);

}  // namespace esper::policy
#endif  // ESPER_CORE_POLICY_GRAPH_BYTES_H_
