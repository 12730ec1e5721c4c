#include "server/server.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "core/ppo/learner.h"
#include "grpcpp/ext/proto_server_reflection_plugin.h"
#include "grpcpp/health_check_service_interface.h"
#include "grpcpp/security/server_credentials.h"
#include "grpcpp/server_builder.h"
#include "server/grpc_status.h"
#include "server/learner_checkpoint.h"
#include "server/listen_address.h"
#include "spdlog/spdlog.h"

namespace esper::server {
namespace {

constexpr absl::Duration kFarewell = absl::Milliseconds(250);

// The device that "auto" stands for, or why `device` cannot be used.
absl::StatusOr<std::string> ResolveDevice(const std::string& device) {
  if (device == "auto" || device == "cpu") return std::string("cpu");
  int index = -1;
  if (absl::StartsWith(device, "cuda:") &&
      absl::SimpleAtoi(device.substr(5), &index) && index >= 0) {
    return absl::FailedPreconditionError(
        absl::StrCat("Device ", device,
                     " is not here: this server was built without CUDA. Use "
                     "--device=cpu."));
  }
  return absl::InvalidArgumentError(
      absl::StrCat("Unknown device ", device, "; use auto, cpu or cuda:N."));
}

absl::Status CheckRange(const std::string& option, int64_t value, int64_t low,
                        int64_t high) {
  if (value >= low && value <= high) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      option, " must be in [", low, ", ", high, "], got ", value, "."));
}

std::vector<std::string> Addresses(const ServerOptions& options) {
  std::vector<std::string> addresses = options.listen;
  if (!options.address.empty()) {
    addresses.insert(addresses.begin(), options.address);
  }
  return addresses;
}

absl::Status CheckOptions(const ServerOptions& options) {
  const InferenceOptions& inference = options.inference;
  for (const absl::Status& status :
       {CheckRange("workers", inference.workers, 1, 64),
        CheckRange("max_episodes", inference.max_episodes, 1, 1 << 20),
        CheckRange("max_queue", inference.max_queued_calls, 1, 1 << 20),
        CheckRange("max_rows_per_call", inference.max_rows_per_call, 1,
                   1 << 16),
        CheckRange("max_stream_requests", inference.max_stream_requests, 1,
                   1 << 16),
        CheckRange("max_batch_rows", inference.max_batch_rows, 1, 1 << 16)}) {
    if (!status.ok()) return status;
  }
  if (inference.episode_lease <= absl::ZeroDuration()) {
    return absl::InvalidArgumentError("episode_lease must be positive.");
  }
  if (options.spec.has_value()) {
    const absl::Status valid = options.spec->Validate();
    if (!valid.ok()) return valid;
  }
  const absl::Status message =
      CheckRange("max_message_mb", options.max_message_bytes >> 20, 1, 2047);
  if (!message.ok()) return message;
  return CheckListenAddresses(Addresses(options), options.insecure);
}

}  // namespace

Server::Server(const ServerOptions& options)
    : options_(options),
      checkpoints_(options.checkpoint_dir),
      versions_(options.checkpoint_dir) {}

absl::StatusOr<std::unique_ptr<Server>> Server::Create(
    const ServerOptions& options) {
  const absl::Status valid = CheckOptions(options);
  if (!valid.ok()) return valid;
  const auto device = ResolveDevice(options.device);
  if (!device.ok()) return device.status();
  std::unique_ptr<Server> server(new Server(options));
  const absl::Status created = CatchErrors([&] {
    const absl::Status learner = server->CreateLearner();
    if (!learner.ok()) return learner;
    server->CreateServices(*device);
    return server->Listen();
  });
  if (!created.ok()) return created;
  return server;
}

Server::~Server() { Drain(absl::ZeroDuration()); }

absl::Status Server::CreateLearner() {
  PolicyStore::Options store;
  store.precision = options_.inference.precision;
  store.warm_up_rows = options_.inference.max_batch_rows;
  policies_ = std::make_unique<PolicyStore>(
      options_.spec.value_or(policy::PolicySpec::NetworkGrowing()), store);
  const policy::PolicySpec& spec = policies_->spec();
  if (absl::Status status = versions_.Open(); !status.ok()) return status;
  absl::StatusOr<std::unique_ptr<ppo::Learner>> learner;
  int64_t lease_token = 0;
  if (options_.restore.empty()) {
    learner = ppo::Learner::Create(spec, options_.learner, options_.init_seed);
    const auto first = versions_.Take(/*current=*/0);
    if (!first.ok()) return first.status();
    // Others have published before, in this checkpoint folder.
    if (learner.ok() && *first > 1) (*learner)->Publish(*first);
  } else {
    const auto checkpoint = checkpoints_.Load(options_.restore);
    if (!checkpoint.ok()) return checkpoint.status();
    const auto state = FromCheckpoint(*checkpoint);
    if (!state.ok()) return state.status();
    lease_token = checkpoint->info.lease_token;
    learner = ppo::Learner::CreateFromState(spec, options_.learner, *state);
    spdlog::info("restored checkpoint {}", checkpoint->info.name);
  }
  if (!learner.ok()) return learner.status();
  const absl::Status published = policies_->Publish(*(*learner)->published());
  if (!published.ok()) return published;
  learner_ = std::make_unique<LearnerThread>(
      *std::move(learner), *policies_, versions_, options_.learner_thread,
      options_.clock);
  learner_->lease().End(lease_token);
  spdlog::info("policy version {} of specification {}", policies_->version(),
               policies_->spec_digest());
  return absl::OkStatus();
}

void Server::CreateServices(const std::string& device) {
  inference_ = std::make_unique<InferenceService>(
      options_.inference, device, policies_.get(), &counters_, options_.clock);
  oip_ =
      std::make_unique<OipService>(options_.inference, inference_.get(),
                                   policies_.get(), &counters_, options_.clock);
  training_ =
      std::make_unique<TrainingService>(*learner_, counters_, options_.streams);
  AdminService::Gauges gauges;
  gauges.draining = [this] { return inference_->draining(); };
  gauges.open_episodes = [this] { return inference_->open_episodes(); };
  gauges.queued_calls = [this] { return inference_->queued_calls(); };
  gauges.open_evaluations = [this] { return training_->open_evaluations(); };
  admin_ =
      std::make_unique<AdminService>(*learner_, checkpoints_, counters_,
                                     std::move(gauges), device, options_.clock);
}

absl::Status Server::Listen() {
  grpc::EnableDefaultHealthCheckService(true);
  if (options_.reflection) {
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  }
  grpc::ServerBuilder builder;
  // Two servers on one port would share its calls at random.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  // Clients may ask for a sign of life while a long call runs.
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(
      GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 5000);
  builder.SetMaxReceiveMessageSize(options_.max_message_bytes);
  builder.SetMaxSendMessageSize(-1);
  builder.RegisterService(inference_.get());
  builder.RegisterService(oip_.get());
  builder.RegisterService(training_.get());
  builder.RegisterService(admin_.get());
  const std::vector<std::string> addresses = Addresses(options_);
  std::vector<int> ports(addresses.size(), 0);
  for (size_t i = 0; i < addresses.size(); ++i) {
    builder.AddListeningPort(addresses[i], grpc::InsecureServerCredentials(),
                             &ports[i]);
  }
  {
    const ScopedSocketMode socket_mode(options_.socket_mode);
    grpc_server_ = builder.BuildAndStart();
  }
  if (grpc_server_ == nullptr) {
    // gRPC stops at the first one that fails.
    const auto failed = std::find(ports.begin(), ports.end(), 0);
    const size_t index =
        std::min<size_t>(failed - ports.begin(), addresses.size() - 1);
    return absl::UnavailableError(
        absl::StrCat("Cannot listen on ", addresses[index],
                     ": the address is in use or not of this machine."));
  }
  if (!options_.address.empty() &&
      !absl::StartsWith(options_.address, "unix:")) {
    port_ = ports.front();
  }
  auto* health = grpc_server_->GetHealthCheckService();
  for (const char* service :
       {v1::PolicyInference::service_full_name(),
        inference::GRPCInferenceService::service_full_name(),
        v1::PolicyTraining::service_full_name(),
        v1::PolicyAdmin::service_full_name()}) {
    health->SetServingStatus(service, true);
  }
  return absl::OkStatus();
}

std::shared_ptr<grpc::Channel> Server::InProcessChannel() {
  return grpc_server_->InProcessChannel(grpc::ChannelArguments());
}

void Server::Drain(absl::Duration grace) {
  absl::MutexLock lock(&drain_mu_);
  if (drained_ || grpc_server_ == nullptr) return;
  drained_ = true;
  grpc_server_->GetHealthCheckService()->SetServingStatus(false);
  inference_->Drain();
  learner_->Drain();
  // A call that meets a closed server is cut off without words. Those that are
  // on their way now still get the refusal that tells them to go elsewhere.
  absl::SleepFor(std::min(grace, kFarewell));
  grpc_server_->Shutdown(std::chrono::system_clock::now() +
                         absl::ToChronoNanoseconds(grace));
}

}  // namespace esper::server
