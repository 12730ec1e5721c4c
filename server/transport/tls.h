#ifndef ESPER_SERVER_TRANSPORT_TLS_H_
#define ESPER_SERVER_TRANSPORT_TLS_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "grpcpp/security/credentials.h"
#include "grpcpp/security/server_credentials.h"

namespace esper::server {

// PEM files of the server's identity, and of those whom it believes.
struct TlsFiles {
  std::string certificate;  // Chain, the server's own first.
  std::string key;          // Private key of the first one.
  // Authorities of client certificates. Empty: clients are not asked for one;
  // otherwise a client without a certificate of theirs cannot connect.
  std::string client_authorities;

  bool enabled() const { return !certificate.empty() || !key.empty(); }
};

// INVALID_ARGUMENT, naming the flag, unless both or none of certificate and key
// are given, they can be read, belong together and are valid now.
absl::Status CheckTlsFiles(const TlsFiles& files);

// INVALID_ARGUMENT, naming the flag, for a file without certificate.
absl::Status CheckAuthorities(const std::string& flag, const std::string& file);

// End of the validity of the first certificate in a PEM file.
absl::StatusOr<absl::Time> CertificateExpiry(const std::string& file);

// Of a listener. The files are looked at every second: connections that begin
// after a change see the new certificates, those that are open live on.
std::shared_ptr<grpc::ServerCredentials> TlsListenerCredentials(
    const TlsFiles& files);

// To dial another server, which must have a certificate of `authorities`, with
// the identity of `own` if it has one. The files are read again as above.
std::shared_ptr<grpc::ChannelCredentials> TlsDialCredentials(
    const TlsFiles& own, const std::string& authorities);

// To dial the server's own listener: with its own identity, and without a look
// at whose certificate answers.
std::shared_ptr<grpc::ChannelCredentials> TlsSelfCredentials(
    const TlsFiles& files);

}  // namespace esper::server
#endif  // ESPER_SERVER_TRANSPORT_TLS_H_
