#include "core/policy/packed_kernels.h"

namespace esper::policy {
namespace {

struct Available {
  const PackedKernels* kernels[3] = {};
  int count = 0;
};

Available Find() {
  Available found;
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("fma")) {
    found.kernels[found.count++] = &internal::kAvx512Kernels;
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    found.kernels[found.count++] = &internal::kAvx2Kernels;
  }
#endif
  found.kernels[found.count++] = &internal::kGenericKernels;
  return found;
}

const Available& Found() {
  static const Available found = Find();
  return found;
}

}  // namespace

const PackedKernels& BestKernels() { return *Found().kernels[0]; }

const PackedKernels* const* AllKernels(int* count) {
  *count = Found().count;
  return Found().kernels;
}

}  // namespace esper::policy
