#include "client/listen.h"

#include <arpa/inet.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server_builder.h>

#include <cstdio>
#include <fstream>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace esper::client {
namespace {

// "127.0.0.1" of "127.0.0.1:50051", "::1" of "[::1]:50051".
std::string HostOf(const std::string& address) {
  std::string host = address.substr(0, address.rfind(':'));
  if (host.size() >= 2 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
  }
  return host;
}

bool IsLoopback(const std::string& host) {
  in_addr v4;
  if (inet_pton(AF_INET, host.c_str(), &v4) == 1) {
    return ntohl(v4.s_addr) >> 24 == 127;
  }
  in6_addr v6;
  return inet_pton(AF_INET6, host.c_str(), &v6) == 1 &&
         IN6_IS_ADDR_LOOPBACK(&v6);
}

}  // namespace

bool IsLocalAddress(const std::string& address) {
  if (absl::StartsWith(address, "unix:")) return true;
  const std::string host = HostOf(address);
  return host == "localhost" || IsLoopback(host);
}

absl::StatusOr<Listener> Listen(const ListenOptions& options,
                                grpc::Service& service) {
  const bool is_unix = absl::StartsWith(options.address, "unix:");
  if (!is_unix && options.address.find(':') == std::string::npos) {
    return absl::InvalidArgumentError(absl::StrCat(
        "\"", options.address, "\" is neither host:port nor unix:PATH."));
  }
  if (!IsLocalAddress(options.address) && !options.insecure) {
    return absl::PermissionDeniedError(
        absl::StrCat(options.address,
                     " can be reached from other machines, and callers are "
                     "not authenticated. Listen on 127.0.0.1, or add "
                     "--insecure."));
  }
  grpc::ServerBuilder builder;
  Listener listener;
  // Otherwise two processes could share a port without noticing.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.SetMaxReceiveMessageSize(options.max_message_bytes);
  builder.AddListeningPort(options.address, grpc::InsecureServerCredentials(),
                           &listener.port);
  builder.RegisterService(&service);
  listener.server = builder.BuildAndStart();
  if (listener.server == nullptr || (!is_unix && listener.port == 0)) {
    return absl::UnavailableError(absl::StrCat(
        "Cannot listen on ", options.address, "; is the port in use?"));
  }
  if (is_unix) listener.port = 0;
  listener.address =
      is_unix
          ? options.address
          : absl::StrCat(options.address.substr(0, options.address.rfind(':')),
                         ":", listener.port);
  return listener;
}

absl::Status WritePortFile(const std::string& path, const Listener& listener) {
  const std::string temporary = path + ".tmp";
  std::ofstream file(temporary, std::ios::trunc);
  if (listener.port > 0) {
    file << listener.port << "\n";
  } else {
    file << listener.address << "\n";
  }
  file.close();
  if (!file || std::rename(temporary.c_str(), path.c_str()) != 0) {
    return absl::UnavailableError(absl::StrCat("Cannot write ", path, "."));
  }
  return absl::OkStatus();
}

}  // namespace esper::client
