#include <cstdint>

#include "core/policy/packed_kernels.h"

namespace esper::policy::internal {
namespace {

constexpr int kLanes = 8;
constexpr int kMaxRows = 6;
constexpr int kMaxSums = 12;

#include "core/policy/packed_kernels_body.h"

}  // namespace

const PackedKernels kAvx2Kernels = {"avx2",        &Linear,    &LinearBf16,
                                    &LayerNorm,    &LstmCell,  &LstmForward,
                                    &LstmBackward, &RoundBf16, &AllFinite};

}  // namespace esper::policy::internal
