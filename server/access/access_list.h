#ifndef ESPER_SERVER_ACCESS_ACCESS_LIST_H_
#define ESPER_SERVER_ACCESS_ACCESS_LIST_H_

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/access/role.h"

namespace esper::server {

// Somebody who may call, by one or several credentials.
struct Caller {
  std::string name;
  Roles roles;
};

// What one call shows of its caller.
struct Evidence {
  // URIs among the subject alternative names of a client certificate that was
  // verified.
  std::vector<std::string> certificate_uris;
  absl::string_view bearer_token;  // Empty: none.
  bool unix_socket = false;        // Came over a Unix socket.
};

// Who may call: names, their credentials and their roles, as the operator wrote
// them down. A JSON file:
//
//   {"callers": [
//     {"name": "actors", "roles": ["inference"],
//      "certificate_uris": ["spiffe://cluster/ns/esper/sa/actor"]},
//     {"name": "coordinator", "roles": ["training", "inference"],
//      "token_files": ["/var/run/secrets/esper/coordinator.token"]},
//     {"name": "operator", "roles": ["admin"], "unix_socket": true}]}
//
// A token file holds one token of at least 16 printable bytes, and white space
// around it that does not count. Tokens are kept as SHA-256 digests, compared
// in constant time, and never written to a log.
//
// Immutable; safe from any thread.
class AccessList {
 public:
  // INVALID_ARGUMENT, naming the caller and field, for what cannot be read, an
  // unknown field or role, a caller without credentials, and a name or
  // credential that comes twice; NOT_FOUND for a file that is not there.
  static absl::StatusOr<AccessList> Read(const std::string& path);

  // Null: nobody who is known. A token decides before a certificate, a
  // certificate before the socket; a token that nobody has is nobody, whatever
  // else is shown.
  const Caller* Find(const Evidence& evidence) const;

  int64_t size() const { return callers_.size(); }
  // Of the file and all files that it names: changes when one of them does.
  const std::string& digest() const { return digest_; }

 private:
  using TokenDigest = std::array<unsigned char, 32>;
  // A credential and whose it is, an index into `callers_`.
  struct Token {
    TokenDigest digest;
    size_t caller;
  };
  struct CertificateUri {
    std::string uri;
    size_t caller;
  };

  friend class AccessListReader;
  AccessList() = default;

  std::vector<Caller> callers_;
  std::vector<Token> tokens_;
  std::vector<CertificateUri> uris_;
  int64_t unix_caller_ = -1;
  std::string digest_;
};

}  // namespace esper::server
#endif  // ESPER_SERVER_ACCESS_ACCESS_LIST_H_
