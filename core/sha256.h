#ifndef ESPER_CORE_SHA256_H_
#define ESPER_CORE_SHA256_H_

#include <string>

#include "absl/strings/string_view.h"

namespace esper {

// SHA-256 of `bytes` as 64 lower-case hexadecimal digits.
std::string Sha256Hex(absl::string_view bytes);

}  // namespace esper
#endif  // ESPER_CORE_SHA256_H_
