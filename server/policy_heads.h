#ifndef ESPER_SERVER_POLICY_HEADS_H_
#define ESPER_SERVER_POLICY_HEADS_H_

#include <cstdint>

#include "core/policy/policy_spec.h"

// What messages need to know of a policy's heads.
namespace esper::server {

// The head that environments report on (which of its choices took effect): the
// first driver that has an idle choice, otherwise the first driver; -1 if no
// head drives another. The same as ppo::TrajectoryRules::driver.
int64_t DriverHead(const policy::PolicySpec& spec);

// Whether some head has more choices than fit into a byte.
bool HasWideHead(const policy::PolicySpec& spec);

}  // namespace esper::server
#endif  // ESPER_SERVER_POLICY_HEADS_H_
