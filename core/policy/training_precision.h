#ifndef ESPER_CORE_POLICY_TRAINING_PRECISION_H_
#define ESPER_CORE_POLICY_TRAINING_PRECISION_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace esper::policy {

// Precision of the matrix products of a network that is trained, forwards and
// backwards. Weights, gradients, normalisations, recurrent cells, output layers
// and losses are float32 in either.
enum class TrainingPrecision : uint8_t {
  kFp32,
  // Operands of products rounded to bfloat16, summed in float32.
  kBf16,
};
const char* TrainingPrecisionName(TrainingPrecision precision);

// "fp32" or "bf16". INVALID_ARGUMENT for another text.
absl::StatusOr<TrainingPrecision> ParseTrainingPrecision(
    const std::string& text);

}  // namespace esper::policy
#endif  // ESPER_CORE_POLICY_TRAINING_PRECISION_H_
