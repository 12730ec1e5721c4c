#ifndef ESPER_TESTS_CORE_HOST_PLAIN_HOST_H_
#define ESPER_TESTS_CORE_HOST_PLAIN_HOST_H_

#include <ATen/core/Tensor.h>

#include <functional>
#include <vector>

#include "core/host/host.h"

namespace esper::testing {

// A host of three identity layers with points r0c0 and r0c1 between them, for
// features [B, 4, H, W]; calls back whenever it runs.
class PlainHost : public host::Host {
 public:
  PlainHost() : Host(Specs(), {"r0c0", "r0c1"}) {}
  slot::Topology topology() const override { return slot::Topology::kCnn; }

  std::function<void(int from)> on_layer = [](int) {};

 private:
  static std::vector<slot::InjectionSpec> Specs() {
    std::vector<slot::InjectionSpec> specs(2);
    for (int i = 0; i < 2; ++i) {
      specs[i].slot_id = i == 0 ? "r0c0" : "r0c1";
      specs[i].channels = 4;
      specs[i].order = i;
    }
    return specs;
  }
  at::Tensor RunChecked(int from, int, const at::Tensor& x) const override {
    on_layer(from);
    return x.clone();
  }
};

}  // namespace esper::testing
#endif  // ESPER_TESTS_CORE_HOST_PLAIN_HOST_H_
