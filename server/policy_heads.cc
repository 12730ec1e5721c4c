#include "server/policy_heads.h"

#include <algorithm>

namespace esper::server {

int64_t DriverHead(const policy::PolicySpec& spec) {
  int64_t found = -1;
  for (int64_t k = 0; k < spec.num_heads(); ++k) {
    const int64_t driver = spec.DriverOf(k);
    if (driver < 0) continue;
    if (spec.heads[driver].idle_choice >= 0) return driver;
    if (found < 0) found = driver;
  }
  return found;
}

bool HasWideHead(const policy::PolicySpec& spec) {
  return std::any_of(spec.heads.begin(), spec.heads.end(), [](auto& head) {
    return head.kind == policy::HeadKind::kCategorical && head.size > 256;
  });
}

}  // namespace esper::server
