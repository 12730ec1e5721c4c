#include "server/transport/tls.h"

#include <cstdio>
#include <ctime>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "grpcpp/security/tls_certificate_provider.h"
#include "grpcpp/security/tls_certificate_verifier.h"
#include "grpcpp/security/tls_credentials_options.h"
#include "openssl/pem.h"
#include "openssl/x509.h"

namespace esper::server {
namespace {

constexpr unsigned kRefreshSeconds = 1;

template <typename T, void (*Free)(T*)>
struct Freer {
  void operator()(T* object) const { Free(object); }
};
using Certificate = std::unique_ptr<X509, Freer<X509, X509_free>>;
using Key = std::unique_ptr<EVP_PKEY, Freer<EVP_PKEY, EVP_PKEY_free>>;

struct FileCloser {
  void operator()(std::FILE* file) const { std::fclose(file); }
};
using File = std::unique_ptr<std::FILE, FileCloser>;

absl::Status Bad(const std::string& flag, const std::string& file,
                 const std::string& what) {
  return absl::InvalidArgumentError(
      absl::StrCat("--", flag, "=", file, ": ", what, "."));
}

absl::StatusOr<Certificate> ReadCertificate(const std::string& flag,
                                            const std::string& path) {
  const File file(std::fopen(path.c_str(), "r"));
  if (file == nullptr) return Bad(flag, path, "cannot be read");
  Certificate certificate(PEM_read_X509(file.get(), nullptr, nullptr, nullptr));
  if (certificate == nullptr) {
    return Bad(flag, path, "holds no certificate in PEM format");
  }
  return certificate;
}

absl::StatusOr<absl::Time> Expiry(const X509& certificate) {
  std::tm end = {};
  if (ASN1_TIME_to_tm(X509_get0_notAfter(&certificate), &end) != 1) {
    return absl::InvalidArgumentError("The certificate has no end.");
  }
  return absl::FromTM(end, absl::UTCTimeZone());
}

std::shared_ptr<grpc::experimental::FileWatcherCertificateProvider> Provider(
    const TlsFiles& files) {
  using grpc::experimental::FileWatcherCertificateProvider;
  if (files.client_authorities.empty()) {
    return std::make_shared<FileWatcherCertificateProvider>(
        files.key, files.certificate, kRefreshSeconds);
  }
  if (!files.enabled()) {
    return std::make_shared<FileWatcherCertificateProvider>(
        files.client_authorities, kRefreshSeconds);
  }
  return std::make_shared<FileWatcherCertificateProvider>(
      files.key, files.certificate, files.client_authorities, kRefreshSeconds);
}

}  // namespace

absl::Status CheckAuthorities(const std::string& flag,
                              const std::string& file) {
  return ReadCertificate(flag, file).status();
}

absl::Status CheckTlsFiles(const TlsFiles& files) {
  if (!files.enabled()) {
    if (files.client_authorities.empty()) return absl::OkStatus();
    return absl::InvalidArgumentError(
        "--tls_client_ca_file needs --tls_cert_file and --tls_key_file.");
  }
  if (files.certificate.empty() || files.key.empty()) {
    return absl::InvalidArgumentError(
        "--tls_cert_file and --tls_key_file go together.");
  }
  const auto certificate = ReadCertificate("tls_cert_file", files.certificate);
  if (!certificate.ok()) return certificate.status();
  const File key_file(std::fopen(files.key.c_str(), "r"));
  if (key_file == nullptr) {
    return Bad("tls_key_file", files.key, "cannot be read");
  }
  const Key key(PEM_read_PrivateKey(key_file.get(), nullptr, nullptr, nullptr));
  if (key == nullptr) {
    return Bad("tls_key_file", files.key,
               "holds no private key in PEM format without a password");
  }
  if (X509_check_private_key(certificate->get(), key.get()) != 1) {
    return Bad("tls_key_file", files.key,
               absl::StrCat("is not the key of the first certificate in ",
                            files.certificate));
  }
  const auto expiry = Expiry(**certificate);
  if (!expiry.ok()) return expiry.status();
  if (*expiry <= absl::Now()) {
    return Bad("tls_cert_file", files.certificate,
               absl::StrCat("has expired on ", absl::FormatTime(*expiry)));
  }
  if (!files.client_authorities.empty()) {
    return CheckAuthorities("tls_client_ca_file", files.client_authorities);
  }
  return absl::OkStatus();
}

absl::StatusOr<absl::Time> CertificateExpiry(const std::string& file) {
  const auto certificate = ReadCertificate("tls_cert_file", file);
  if (!certificate.ok()) return certificate.status();
  return Expiry(**certificate);
}

std::shared_ptr<grpc::ServerCredentials> TlsListenerCredentials(
    const TlsFiles& files) {
  grpc::experimental::TlsServerCredentialsOptions options(Provider(files));
  options.watch_identity_key_cert_pairs();
  if (!files.client_authorities.empty()) {
    options.watch_root_certs();
    options.set_cert_request_type(
        GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
  }
  return grpc::experimental::TlsServerCredentials(options);
}

std::shared_ptr<grpc::ChannelCredentials> TlsDialCredentials(
    const TlsFiles& own, const std::string& authorities) {
  grpc::experimental::TlsChannelCredentialsOptions options;
  options.set_certificate_provider(
      Provider({own.certificate, own.key, authorities}));
  if (own.enabled()) options.watch_identity_key_cert_pairs();
  options.watch_root_certs();
  return grpc::experimental::TlsCredentials(options);
}

std::shared_ptr<grpc::ChannelCredentials> TlsSelfCredentials(
    const TlsFiles& files) {
  TlsFiles identity = files;
  identity.client_authorities.clear();
  grpc::experimental::TlsChannelCredentialsOptions options;
  options.set_certificate_provider(Provider(identity));
  options.watch_identity_key_cert_pairs();
  options.set_verify_server_certs(false);
  options.set_certificate_verifier(
      std::make_shared<grpc::experimental::NoOpCertificateVerifier>());
  options.set_check_call_host(false);
  return grpc::experimental::TlsCredentials(options);
}

}  // namespace esper::server
