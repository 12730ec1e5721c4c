#include "core/policy/inference_precision.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "absl/strings/str_cat.h"
#include "core/error.h"

namespace esper::policy {

const char* PrecisionName(InferencePrecision precision) {
  return precision == InferencePrecision::kBf16 ? "bf16" : "fp32";
}

absl::StatusOr<InferencePrecision> ParsePrecision(const std::string& text) {
  if (text == "fp32") return InferencePrecision::kFp32;
  if (text == "bf16") return InferencePrecision::kBf16;
  if (text == "auto") {
    return HasBf16Products() ? InferencePrecision::kBf16
                             : InferencePrecision::kFp32;
  }
  ErrorDetail detail;
  detail.reason = "MALFORMED_REQUEST";
  detail.field = "inference_precision";
  return MakeStatus(absl::StatusCode::kInvalidArgument, detail,
                    absl::StrCat("inference_precision is \"", text,
                                 "\"; it must be auto, bf16 or fp32."));
}

bool HasBf16Products() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("avx512bw") ||
      !__builtin_cpu_supports("avx512vl") ||
      !__builtin_cpu_supports("avx512dq")) {
    return false;
  }
  // Structured extended features: AVX512_BF16 is leaf 7, subleaf 1, EAX bit 5;
  // AMX_BF16 leaf 7, subleaf 0, EDX bit 22.
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid_count(7, 1, &a, &b, &c, &d) != 0 && (a >> 5 & 1) != 0) {
    return true;
  }
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (d >> 22 & 1) != 0;
#else
  return false;
#endif
}

}  // namespace esper::policy
