#ifndef ESPER_CORE_SLOT_INIT_SCOPE_H_
#define ESPER_CORE_SLOT_INIT_SCOPE_H_

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <mutex>

namespace esper::slot {

// While it lives, the default CPU generator, from which the framework's layers
// draw their initial parameters, starts at `seed`; afterwards its state is what
// it was. So modules come out reproducible and leave no trace.
//
// Scopes of all threads exclude one another; a thread must not nest them. Code
// outside a scope that draws from the default generator meanwhile would be
// disturbed: ours uses generators of its own.
class ScopedInitSeed {
 public:
  explicit ScopedInitSeed(uint64_t seed);
  ~ScopedInitSeed();

  ScopedInitSeed(const ScopedInitSeed&) = delete;
  ScopedInitSeed& operator=(const ScopedInitSeed&) = delete;

 private:
  std::unique_lock<std::mutex> lock_;
  at::Generator generator_;
  at::Tensor saved_;  // State of the generator before the scope.
};

// A seed that depends on all arguments, well mixed.
uint64_t MixSeed(uint64_t seed, uint64_t a, uint64_t b);

}  // namespace esper::slot
#endif  // ESPER_CORE_SLOT_INIT_SCOPE_H_
