#include "server/transport/endpoint.h"

#include <chrono>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "grpc/grpc_security_constants.h"
#include "grpcpp/ext/channelz_service_plugin.h"
#include "grpcpp/ext/proto_server_reflection_plugin.h"
#include "grpcpp/security/server_credentials.h"
#include "server/listen_address.h"

namespace esper::server {
namespace {

// A client that opens a connection and says nothing holds it for so long.
constexpr int kHandshakeMilliseconds = 10'000;
// Calls of one connection that are open at a time; clients queue the others.
constexpr int kMaxConcurrentStreams = 1024;
// Clients may ask for a sign of life as often as this.
constexpr int kMinPingMilliseconds = 5'000;
// Connections that are silent this long are asked for one: clients whose
// machine has gone are noticed, and their streams freed.
constexpr int kKeepaliveMilliseconds = 30'000;
constexpr int kKeepaliveTimeoutMilliseconds = 20'000;

std::shared_ptr<grpc::ServerCredentials> CredentialsFor(
    const EndpointOptions& options, bool unix_socket) {
  std::shared_ptr<grpc::ServerCredentials> credentials;
  if (options.tls.enabled() && !unix_socket) {
    credentials = TlsListenerCredentials(options.tls);
  } else if (options.access == nullptr) {
    return grpc::InsecureServerCredentials();
  } else if (unix_socket) {
    // Plaintext, with calls that can be judged.
    credentials = grpc::experimental::LocalServerCredentials(UDS);
  } else {
    credentials = grpc::experimental::LocalServerCredentials(LOCAL_TCP);
  }
  if (options.access != nullptr) {
    credentials->SetAuthMetadataProcessor(
        options.access->Processor(unix_socket));
  }
  return credentials;
}

}  // namespace

absl::Status Endpoint::Bind(const EndpointOptions& options) {
  for (const std::string& address : options.addresses) {
    auto listener = Listener::Bind(address, options.socket_mode);
    if (!listener.ok()) return listener.status();
    listeners_.push_back(*std::move(listener));
    addresses_.push_back(address);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Endpoint>> Endpoint::Start(
    const EndpointOptions& options, const std::vector<grpc::Service*>& services,
    ConnectionLimit* limit) {
  std::unique_ptr<Endpoint> endpoint(new Endpoint);
  if (absl::Status bound = endpoint->Bind(options); !bound.ok()) return bound;

  if (options.reflection) {
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  }
  if (options.channelz) grpc::channelz::experimental::InitChannelzService();
  grpc::ServerBuilder builder;
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS,
                             kKeepaliveMilliseconds);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS,
                             kKeepaliveTimeoutMilliseconds);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  builder.AddChannelArgument(
      GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
      kMinPingMilliseconds);
  builder.AddChannelArgument(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS,
                             kHandshakeMilliseconds);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS,
                             kMaxConcurrentStreams);
  builder.SetMaxReceiveMessageSize(options.max_message_bytes);
  builder.SetMaxSendMessageSize(-1);
  for (grpc::Service* service : services) builder.RegisterService(service);
  if (options.generic != nullptr) {
    builder.RegisterCallbackGenericService(options.generic);
  }
  for (const auto& listener : endpoint->listeners_) {
    endpoint->acceptors_.push_back(
        builder.experimental().AddExternalConnectionAcceptor(
            grpc::ServerBuilder::experimental_type::ExternalConnectionType::
                FROM_FD,
            CredentialsFor(options, listener->is_unix())));
  }
  endpoint->server_ = builder.BuildAndStart();
  if (endpoint->server_ == nullptr) {
    return absl::InternalError("gRPC refused to start; its own log says why.");
  }
  for (size_t i = 0; i < endpoint->listeners_.size(); ++i) {
    auto* acceptor = endpoint->acceptors_[i].get();
    endpoint->listeners_[i]->Start(limit, [acceptor](int listener, int fd) {
      grpc::experimental::ExternalConnectionAcceptor::NewConnectionParameters
          connection;
      connection.listener_fd = listener;
      connection.fd = fd;
      acceptor->HandleNewConnection(&connection);
    });
  }
  return endpoint;
}

Endpoint::~Endpoint() { Shutdown(absl::ZeroDuration()); }

void Endpoint::Shutdown(absl::Duration grace) {
  for (const auto& listener : listeners_) listener->Stop();
  if (server_ == nullptr) return;
  server_->Shutdown(std::chrono::system_clock::now() +
                    absl::ToChronoNanoseconds(grace));
}

int Endpoint::port() const {
  return listeners_.empty() ? 0 : listeners_.front()->port();
}

std::string Endpoint::self_address() const {
  if (listeners_.empty()) return "";
  const std::string& address = addresses_.front();
  if (listeners_.front()->is_unix()) return address;
  std::string host = address.substr(0, address.rfind(':'));
  if (host == "0.0.0.0") host = "127.0.0.1";
  if (host == "[::]") host = "[::1]";
  return absl::StrCat(host, ":", port());
}

std::shared_ptr<grpc::Channel> Endpoint::InProcessChannel() {
  return server_->InProcessChannel(grpc::ChannelArguments());
}

}  // namespace esper::server
