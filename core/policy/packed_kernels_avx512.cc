#include <cstdint>

#include "core/policy/packed_kernels.h"

namespace esper::policy::internal {
namespace {

constexpr int kLanes = 16;
constexpr int kMaxRows = 6;
constexpr int kMaxSums = 24;

#include "core/policy/packed_kernels_body.h"

}  // namespace

const PackedKernels kAvx512Kernels = {"avx512",      &Linear,    &LinearBf16,
                                      &LayerNorm,    &LstmCell,  &LstmForward,
                                      &LstmBackward, &RoundBf16, &AllFinite};

}  // namespace esper::policy::internal
