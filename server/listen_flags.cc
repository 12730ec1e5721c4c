#include "server/listen_flags.h"

#include <algorithm>
#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"
#include "server/listen_address.h"
#include "spdlog/spdlog.h"

ABSL_FLAG(std::string, address, "127.0.0.1:50051",
          "Where to listen: host:port (port 0: any free one) or unix:/path.");
ABSL_FLAG(std::vector<std::string>, listen, {},
          "Further addresses, separated by commas, like unix:/run/esper.sock.");
ABSL_FLAG(std::string, admin_address, "",
          "Address that serves PolicyAdmin, which is then served nowhere else. "
          "Empty: it is served with the rest.");
ABSL_FLAG(std::string, health_address, "",
          "Address that serves health in plaintext to everybody, and nothing "
          "else, for probes. Empty: health is served with the rest only.");
ABSL_FLAG(std::string, socket_mode, "0600",
          "Permissions of Unix sockets, in octal digits.");
ABSL_FLAG(std::string, tls_cert_file, "",
          "Certificate chain of the server, PEM. It is read again when it "
          "changes, and so are key and authorities.");
ABSL_FLAG(std::string, tls_key_file, "", "Private key of the server, PEM.");
ABSL_FLAG(std::string, tls_client_ca_file, "",
          "Authorities of client certificates, PEM; clients must then show a "
          "certificate of theirs.");
ABSL_FLAG(std::string, access_file, "",
          "JSON file that says who may call what (docs/security.md). Empty: "
          "everybody who reaches the server has every role.");
ABSL_FLAG(bool, insecure, false,
          "Listen on an address that other machines can reach, although "
          "callers are not authenticated or can be listened to.");
ABSL_FLAG(int, max_connections, 4096,
          "Connections open at a time, over all addresses.");
ABSL_FLAG(int, max_message_mb, 64,
          "Largest message that is received, in MiB; inference calls take at "
          "most 4 of them.");
ABSL_FLAG(bool, reflection, false, "Serve gRPC reflection.");
ABSL_FLAG(bool, channelz, false, "Serve gRPC channelz.");

namespace esper::server {

absl::StatusOr<ListenOptions> ListenOptionsFromFlags() {
  ListenOptions options;
  options.address = absl::GetFlag(FLAGS_address);
  if (options.address.empty()) {
    return absl::InvalidArgumentError("--address must not be empty.");
  }
  options.listen = absl::GetFlag(FLAGS_listen);
  options.admin_address = absl::GetFlag(FLAGS_admin_address);
  options.health_address = absl::GetFlag(FLAGS_health_address);
  const auto socket_mode = ParseSocketMode(absl::GetFlag(FLAGS_socket_mode));
  if (!socket_mode.ok()) return socket_mode.status();
  options.socket_mode = *socket_mode;
  options.tls = {absl::GetFlag(FLAGS_tls_cert_file),
                 absl::GetFlag(FLAGS_tls_key_file),
                 absl::GetFlag(FLAGS_tls_client_ca_file)};
  options.access_file = absl::GetFlag(FLAGS_access_file);
  options.insecure = absl::GetFlag(FLAGS_insecure);
  options.max_connections = absl::GetFlag(FLAGS_max_connections);
  const int megabytes = absl::GetFlag(FLAGS_max_message_mb);
  if (megabytes < 1 || megabytes > 2047) {
    return absl::InvalidArgumentError(absl::StrCat(
        "max_message_mb must be in [1, 2047], got ", megabytes, "."));
  }
  options.max_message_bytes = megabytes << 20;
  options.reflection = absl::GetFlag(FLAGS_reflection);
  options.channelz = absl::GetFlag(FLAGS_channelz);
  return options;
}

void LogWhoMayCall(const ListenOptions& options) {
  if (!options.access_file.empty()) {
    spdlog::info("callers and their roles are those of {}",
                 options.access_file);
    return;
  }
  const std::vector<std::string> addresses = options.Addresses();
  const auto reached =
      std::find_if_not(addresses.begin(), addresses.end(), IsLoopback);
  if (reached != addresses.end()) {
    spdlog::warn("no access file: everybody who reaches {} has every role",
                 *reached);
  } else {
    spdlog::info("no credentials: every local caller has every role");
  }
}

}  // namespace esper::server
