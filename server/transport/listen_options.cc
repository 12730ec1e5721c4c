#include "server/transport/listen_options.h"

#include "absl/strings/str_cat.h"
#include "server/listen_address.h"

namespace esper::server {

std::vector<std::string> ListenOptions::Addresses() const {
  std::vector<std::string> addresses = listen;
  if (!address.empty()) addresses.insert(addresses.begin(), address);
  return addresses;
}

absl::Status CheckListenOptions(const ListenOptions& options) {
  if (options.max_connections < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("max_connections must be at least 1, got ",
                     options.max_connections, "."));
  }
  const int megabytes = options.max_message_bytes >> 20;
  if (megabytes < 1 || megabytes > 2047) {
    return absl::InvalidArgumentError(absl::StrCat(
        "max_message_mb must be in [1, 2047], got ", megabytes, "."));
  }
  if (absl::Status tls = CheckTlsFiles(options.tls); !tls.ok()) return tls;
  std::vector<std::string> addresses = options.Addresses();
  if (!options.admin_address.empty()) {
    addresses.push_back(options.admin_address);
  }
  const absl::Status guarded = CheckListenAddresses(
      addresses, options.insecure || options.has_credentials());
  if (!guarded.ok()) return guarded;
  if (options.health_address.empty()) return absl::OkStatus();
  // Health tells no secret: any address will do, unless it is taken above.
  addresses.push_back(options.health_address);
  return CheckListenAddresses(addresses, /*insecure=*/true);
}

}  // namespace esper::server
