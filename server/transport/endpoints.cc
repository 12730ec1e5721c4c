#include "server/transport/endpoints.h"

#include <map>
#include <utility>

#include "absl/strings/match.h"
#include "grpcpp/security/credentials.h"
#include "server/transport/tls.h"

namespace esper::server {
namespace {

std::map<std::string, HealthService::Serving> HealthOf(
    const ServedServices& services, std::function<bool()> alive) {
  std::map<std::string, HealthService::Serving> health;
  health[""] = services.ready;
  health["readiness"] = services.ready;
  health["liveness"] = std::move(alive);
  for (const std::string& name : services.names) health[name] = services.ready;
  return health;
}

std::shared_ptr<grpc::ChannelCredentials> SelfCredentials(
    const ListenOptions& options, const std::string& address) {
  if (options.tls.enabled() && !absl::StartsWith(address, "unix:")) {
    return TlsSelfCredentials(options.tls);
  }
  return grpc::InsecureChannelCredentials();
}

}  // namespace

Endpoints::Endpoints(const ListenOptions& options,
                     const ServedServices& services)
    : limit_(options.max_connections),
      health_(HealthOf(services, [this] { return alive(); })) {}

absl::StatusOr<std::unique_ptr<Endpoints>> Endpoints::Start(
    const ListenOptions& options, const ServedServices& services,
    AccessControl* access) {
  std::unique_ptr<Endpoints> endpoints(new Endpoints(options, services));
  grpc::Service* health = &endpoints->health_;

  // Probes first: reflection, once it is on, would come along.
  if (!options.health_address.empty()) {
    EndpointOptions probes;
    probes.addresses = {options.health_address};
    probes.socket_mode = options.socket_mode;
    auto started = Endpoint::Start(probes, {health}, &endpoints->limit_);
    if (!started.ok()) return started.status();
    endpoints->probes_ = *std::move(started);
  }

  EndpointOptions common;
  common.socket_mode = options.socket_mode;
  common.max_message_bytes = options.max_message_bytes;
  common.reflection = options.reflection;
  common.channelz = options.channelz;
  common.tls = options.tls;
  common.access = access;
  common.generic = services.generic;

  std::vector<grpc::Service*> main_services = services.main;
  main_services.push_back(health);
  std::vector<grpc::Service*> admin_services = {health};
  if (services.admin != nullptr) {
    (options.admin_address.empty() ? main_services : admin_services)
        .push_back(services.admin);
  }
  if (!options.admin_address.empty()) {
    EndpointOptions admin = common;
    admin.addresses = {options.admin_address};
    auto started = Endpoint::Start(admin, admin_services, &endpoints->limit_);
    if (!started.ok()) return started.status();
    endpoints->admin_ = *std::move(started);
  }
  EndpointOptions main = common;
  main.addresses = options.Addresses();
  auto started = Endpoint::Start(main, main_services, &endpoints->limit_);
  if (!started.ok()) return started.status();
  endpoints->main_ = *std::move(started);

  if (const std::string self = endpoints->main_->self_address();
      !self.empty()) {
    endpoints->self_dial_ = std::make_unique<SelfDial>(
        self, SelfCredentials(options, self), options.self_dial,
        [health = &endpoints->health_] { health->NotifyWatchers(); });
  }
  return endpoints;
}

Endpoints::~Endpoints() { Shutdown(absl::ZeroDuration()); }

void Endpoints::Shutdown(absl::Duration grace) {
  self_dial_.reset();
  health_.Shutdown();
  // The main endpoint may be missing: another one could not be listened on.
  if (main_ != nullptr) main_->Shutdown(grace);
  if (admin_ != nullptr) admin_->Shutdown(absl::ZeroDuration());
  if (probes_ != nullptr) probes_->Shutdown(absl::ZeroDuration());
}

}  // namespace esper::server
