#include "client/credential_flags.h"

#include <string>

#include "absl/flags/flag.h"

ABSL_FLAG(std::string, tls_ca_file, "",
          "Authorities of the policy server's certificate, PEM; connections to "
          "it then use TLS. Empty: plaintext.");
ABSL_FLAG(std::string, tls_cert_file, "",
          "Own certificate chain for a server that asks for one, PEM.");
ABSL_FLAG(std::string, tls_key_file, "",
          "Private key of --tls_cert_file, PEM.");
ABSL_FLAG(std::string, tls_server_name, "",
          "Name in the policy server's certificate, where it is not the host "
          "of its address.");
ABSL_FLAG(std::string, token_file, "",
          "File with a bearer token for the policy server.");

namespace esper::client {

Credentials CredentialsFromFlags() {
  Credentials credentials;
  credentials.ca_file = absl::GetFlag(FLAGS_tls_ca_file);
  credentials.cert_file = absl::GetFlag(FLAGS_tls_cert_file);
  credentials.key_file = absl::GetFlag(FLAGS_tls_key_file);
  credentials.server_name = absl::GetFlag(FLAGS_tls_server_name);
  credentials.token_file = absl::GetFlag(FLAGS_token_file);
  return credentials;
}

}  // namespace esper::client
