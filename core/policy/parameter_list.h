#ifndef ESPER_CORE_POLICY_PARAMETER_LIST_H_
#define ESPER_CORE_POLICY_PARAMETER_LIST_H_

#include <cstdint>
#include <string>
#include <vector>

#include "core/policy/policy_spec.h"

namespace esper::policy {

// What a state-dict entry is, which decides how it is initialised.
enum class ParameterKind : uint8_t {
  kOrthogonal,  // Weight matrix; `gain`.
  kZero,        // Bias.
  kOne,         // LayerNorm weight.
  kLstmBias,    // 0, except the forget rows: 1 + ln(L).
  kEmbedding,   // Normal, mean 0, deviation 0.02.
  kNullIndex,   // int64 scalar buffer: the categorical cardinality.
  kLogStd,      // `gain` everywhere: log standard deviations.
};

struct ParameterInfo {
  std::string name;            // Upstream's state-dict name.
  std::vector<int64_t> shape;  // Empty for a scalar.
  ParameterKind kind = ParameterKind::kZero;
  double gain = 0;  // Of an orthogonal matrix; value of a log deviation.
};

// Every state-dict entry of the network of `spec`, in upstream's order.
std::vector<ParameterInfo> ListParameters(const PolicySpec& spec);

}  // namespace esper::policy
#endif  // ESPER_CORE_POLICY_PARAMETER_LIST_H_
