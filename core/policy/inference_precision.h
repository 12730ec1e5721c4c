#ifndef ESPER_CORE_POLICY_INFERENCE_PRECISION_H_
#define ESPER_CORE_POLICY_INFERENCE_PRECISION_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace esper::policy {

// Precision of the matrix products of an acting network. Normalisations,
// recurrent cells and their state, output layers, masking and sampling are
// float32 in either.
enum class InferencePrecision : uint8_t {
  kFp32,
  // Weights and inputs of products rounded to bfloat16, summed in float32.
  kBf16,
};
const char* PrecisionName(InferencePrecision precision);  // "fp32", "bf16".

// "fp32", "bf16", or "auto": bf16 where the processor multiplies bfloat16
// faster than float32 (AVX512 BF16 or AMX), otherwise fp32. INVALID_ARGUMENT
// for another text.
absl::StatusOr<InferencePrecision> ParsePrecision(const std::string& text);

// Whether this processor has instructions for products of bfloat16.
bool HasBf16Products();

}  // namespace esper::policy
#endif  // ESPER_CORE_POLICY_INFERENCE_PRECISION_H_
