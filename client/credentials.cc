#include "client/credentials.h"

#include <grpcpp/security/tls_certificate_provider.h>
#include <grpcpp/security/tls_credentials_options.h>

#include <fstream>
#include <map>
#include <sstream>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace esper::client {
namespace {

constexpr unsigned kRefreshSeconds = 1;

absl::StatusOr<std::string> ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream text;
  if (!file || !(text << file.rdbuf())) {
    return absl::NotFoundError(absl::StrCat("Cannot read ", path, "."));
  }
  return text.str();
}

// Adds "authorization: Bearer TOKEN" to every call, with the token as its file
// has it. Thread-safe.
class TokenPlugin final : public grpc::MetadataCredentialsPlugin {
 public:
  explicit TokenPlugin(std::string file) : file_(std::move(file)) {}

  bool IsBlocking() const override { return false; }

  grpc::Status GetMetadata(
      grpc::string_ref, grpc::string_ref, const grpc::AuthContext&,
      std::multimap<grpc::string, grpc::string>* metadata) override {
    absl::MutexLock lock(&mu_);
    if (absl::Now() - read_at_ >= absl::Seconds(kRefreshSeconds)) {
      read_at_ = absl::Now();
      // While the file is away, the token before is as good as any.
      if (const auto text = ReadFile(file_); text.ok()) {
        header_ = absl::StrCat("Bearer ", absl::StripAsciiWhitespace(*text));
      }
    }
    metadata->emplace("authorization", header_);
    return grpc::Status::OK;
  }

 private:
  const std::string file_;
  absl::Mutex mu_;
  absl::Time read_at_ ABSL_GUARDED_BY(mu_) = absl::InfinitePast();
  std::string header_ ABSL_GUARDED_BY(mu_);
};

std::shared_ptr<grpc::ChannelCredentials> Tls(const Credentials& credentials) {
  using grpc::experimental::FileWatcherCertificateProvider;
  grpc::experimental::TlsChannelCredentialsOptions options;
  if (credentials.cert_file.empty()) {
    options.set_certificate_provider(
        std::make_shared<FileWatcherCertificateProvider>(credentials.ca_file,
                                                         kRefreshSeconds));
  } else {
    options.set_certificate_provider(
        std::make_shared<FileWatcherCertificateProvider>(
            credentials.key_file, credentials.cert_file, credentials.ca_file,
            kRefreshSeconds));
    options.watch_identity_key_cert_pairs();
  }
  options.watch_root_certs();
  return grpc::experimental::TlsCredentials(options);
}

}  // namespace

absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> ChannelCredentialsFor(
    const Credentials& credentials, const std::string& address) {
  const bool tls = !credentials.ca_file.empty();
  if (credentials.cert_file.empty() != credentials.key_file.empty()) {
    return absl::InvalidArgumentError(
        "A client's certificate and its key go together.");
  }
  if (!tls &&
      (!credentials.cert_file.empty() || !credentials.server_name.empty())) {
    return absl::InvalidArgumentError(
        "A client's certificate and a server's name need the authorities of "
        "the server's certificate, without which there is no TLS.");
  }
  for (const std::string& file :
       {credentials.ca_file, credentials.cert_file, credentials.key_file,
        credentials.token_file}) {
    if (file.empty()) continue;
    if (const auto text = ReadFile(file); !text.ok()) return text.status();
  }
  const bool unix_socket = absl::StartsWith(address, "unix:");
  if (credentials.token_file.empty()) {
    return tls && !unix_socket ? Tls(credentials)
                               : grpc::InsecureChannelCredentials();
  }
  std::shared_ptr<grpc::ChannelCredentials> channel;
  if (unix_socket) {
    channel = grpc::experimental::LocalCredentials(UDS);
  } else if (tls) {
    channel = Tls(credentials);
  } else {
    channel = grpc::experimental::LocalCredentials(LOCAL_TCP);
  }
  return grpc::CompositeChannelCredentials(
      channel, grpc::MetadataCredentialsFromPlugin(
                   std::make_unique<TokenPlugin>(credentials.token_file)));
}

}  // namespace esper::client
