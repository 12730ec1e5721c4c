#ifndef ESPER_CORE_SHA256_H_
#define ESPER_CORE_SHA256_H_

#include <openssl/evp.h>

#include <memory>
#include <string>

#include "absl/strings/string_view.h"

namespace esper {

// SHA-256 of bytes that come in pieces. Not thread-safe.
class Sha256 {
 public:
  Sha256();

  void Add(absl::string_view bytes);
  // Lower-case hex, 64 characters. Ends the use of this object.
  std::string Hex();

 private:
  std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context_;
};

// Of one piece.
std::string Sha256Hex(absl::string_view bytes);

}  // namespace esper
#endif  // ESPER_CORE_SHA256_H_
