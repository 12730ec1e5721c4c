#ifndef ESPER_CLIENT_CREDENTIALS_H_
#define ESPER_CLIENT_CREDENTIALS_H_

#include <grpcpp/security/credentials.h>

#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace esper::client {

// How a client knows its server, and shows who it is. Without any field set,
// connections are plaintext and nameless, as servers on loopback take them.
struct Credentials {
  // PEM file: authorities that the server's certificate must come from. Set:
  // connections use TLS.
  std::string ca_file;
  // PEM files: the client's own certificate chain and private key; both or
  // none, and only with TLS. Read again when they change.
  std::string cert_file;
  std::string key_file;
  // File with a bearer token that goes along with every call; it is read again
  // when it changes. Without TLS the server must be on loopback or a Unix
  // socket: others could listen.
  std::string token_file;
  // The name that the server's certificate is checked for; empty: the host of
  // the address.
  std::string server_name;
};

// For a channel to `address`. INVALID_ARGUMENT for fields that do not go
// together, NOT_FOUND for a file that cannot be read.
absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> ChannelCredentialsFor(
    const Credentials& credentials, const std::string& address);

}  // namespace esper::client
#endif  // ESPER_CLIENT_CREDENTIALS_H_
