#include "server/server.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "core/ppo/learner.h"
#include "server/grpc_status.h"
#include "server/learner_checkpoint.h"
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
        CheckRange("max_batch_rows", inference.max_batch_rows, 1, 1 << 16),
        CheckRange("keep_checkpoints", options.keep_checkpoints, 1, 1 << 20),
        CheckRange("keep_versions", options.keep_versions, 2, 1024)}) {
    if (!status.ok()) return status;
  }
  if (inference.episode_lease <= absl::ZeroDuration()) {
    return absl::InvalidArgumentError("episode_lease must be positive.");
  }
  if (options.learner_thread.lease.duration < absl::Milliseconds(100)) {
    return absl::InvalidArgumentError("learner_lease must be at least 100ms.");
  }
  if (options.spec.has_value()) {
    const absl::Status valid = options.spec->Validate();
    if (!valid.ok()) return valid;
  }
  return CheckListenOptions(options);
}

}  // namespace

Server::Server(const ServerOptions& options)
    : options_(options),
      checkpoints_(options.checkpoint_dir, options.keep_checkpoints),
      lease_tokens_(options.checkpoint_dir, "highest_lease_token") {}

absl::StatusOr<std::unique_ptr<Server>> Server::Create(
    const ServerOptions& options) {
  const absl::Status valid = CheckOptions(options);
  if (!valid.ok()) return valid;
  const auto device = ResolveDevice(options.device);
  if (!device.ok()) return device.status();
  std::unique_ptr<Server> server(new Server(options));
  const absl::Status created = CatchErrors([&] {
    const absl::Status access = server->CreateAccess();
    if (!access.ok()) return access;
    const absl::Status role =
        server->follows() ? server->CreateFollower() : server->CreateLearner();
    if (!role.ok()) return role;
    const absl::Status recordings = server->CreateRecordings();
    if (!recordings.ok()) return recordings;
    server->CreateServices(*device);
    const absl::Status listening = server->Listen();
    return listening.ok() ? server->ServeMetrics() : listening;
  });
  if (!created.ok()) return created;
  return server;
}

Server::~Server() {
  Drain(absl::ZeroDuration());
  metrics_.Stop();
}

absl::Status Server::CreateAccess() {
  if (options_.access_file.empty()) return absl::OkStatus();
  auto access = AccessControl::Create(options_.access_file);
  if (!access.ok()) return access.status();
  access_ = *std::move(access);
  options_.inference.access = access_.get();
  return absl::OkStatus();
}

std::string Server::CheckpointToRestore() const {
  if (options_.restore != "latest_if_any") return options_.restore;
  // Without a folder, the store refuses.
  const bool none =
      !options_.checkpoint_dir.empty() && checkpoints_.List().empty();
  return none ? "" : "latest";
}

PolicyStore::Options Server::StoreOptions() const {
  PolicyStore::Options store;
  store.precision = options_.inference.precision;
  store.warm_up_rows = options_.inference.max_batch_rows;
  return store;
}

absl::Status Server::CreateLearner() {
  policies_ = std::make_unique<PolicyStore>(
      options_.spec.value_or(policy::PolicySpec::NetworkGrowing()),
      StoreOptions());
  const policy::PolicySpec& spec = policies_->spec();
  PolicyVersions::Options versions;
  versions.folder = options_.checkpoint_dir;
  versions.keep = options_.keep_versions;
  versions_ = std::make_unique<PolicyVersions>(versions, *policies_);
  for (const absl::Status& status : {versions_->Open(), lease_tokens_.Open()}) {
    if (!status.ok()) return status;
  }
  const std::string restore = CheckpointToRestore();
  const bool restored = !restore.empty();
  absl::StatusOr<std::unique_ptr<ppo::Learner>> learner;
  int64_t lease_token = 0;
  if (restored) {
    const auto checkpoint = checkpoints_.Load(restore);
    if (!checkpoint.ok()) return checkpoint.status();
    const auto state = FromCheckpoint(*checkpoint);
    if (!state.ok()) return state.status();
    lease_token = checkpoint->info.lease_token;
    learner = ppo::Learner::CreateFromState(spec, options_.learner, *state);
    spdlog::info("restored checkpoint {}", checkpoint->info.name);
  } else {
    learner = ppo::Learner::Create(spec, options_.learner, options_.init_seed);
  }
  if (!learner.ok()) return learner.status();
  absl::Status started = versions_->Start(**learner, restored);
  if (!started.ok()) return started;
  learner_ = std::make_unique<LearnerThread>(
      *std::move(learner), *policies_, *versions_, lease_tokens_,
      options_.learner_thread, options_.clock);
  learner_->lease().End(lease_token);
  spdlog::info("policy version {} of specification {}", policies_->version(),
               policies_->spec_digest());
  return absl::OkStatus();
}

absl::Status Server::CreateRecordings() {
  if (follows()) return absl::OkStatus();  // Nobody could train on them here.
  v1::ResponseHeader header;
  policies_->FillHeader(&header);
  auto recordings = RecordingStore::Create(
      options_.recordings, policies_->spec(), header.precision());
  if (!recordings.ok()) return recordings.status();
  recordings_ = *std::move(recordings);
  return absl::OkStatus();
}

void Server::CreateServices(const std::string& device) {
  options_.inference.metrics = &metrics_.engine();
  inference_ = std::make_unique<InferenceService>(
      options_.inference, device, policies_.get(), recordings_.get(),
      &counters_, options_.clock);
  oip_ =
      std::make_unique<OipService>(options_.inference, inference_.get(),
                                   policies_.get(), &counters_, options_.clock);
  ServingStatus::Gauges gauges;
  gauges.draining = [this] { return inference_->draining(); };
  gauges.open_episodes = [this] { return inference_->open_episodes(); };
  gauges.queued_calls = [this] { return inference_->queued_calls(); };
  if (follows()) return CreateFollowerServices(std::move(gauges), device);
  recordings_->set_expire([this] { inference_->open_episodes(); });
  training_ = std::make_unique<TrainingService>(*learner_, *recordings_,
                                                counters_, options_.streams);
  gauges.watchers = [this] { return training_->watchers(); };
  gauges.open_evaluations = [this] { return training_->open_evaluations(); };
  gauges.graph_bytes = [this] { return training_->graph_bytes(); };
  gauges.recordings = [this] { return recordings_->Status(); };
  admin_ =
      std::make_unique<AdminService>(*learner_, checkpoints_, counters_,
                                     std::move(gauges), device, options_.clock);
}

absl::Status Server::Listen() {
  ServedServices services;
  services.main = {inference_.get(), oip_.get()};
  if (follows()) {
    services.generic = gate_.get();
  } else {
    services.main.push_back(training_.get());
    services.admin = admin_.get();
  }
  services.names = {v1::PolicyInference::service_full_name(),
                    inference::GRPCInferenceService::service_full_name(),
                    v1::PolicyTraining::service_full_name(),
                    v1::PolicyAdmin::service_full_name()};
  // A follower has no version at first.
  services.ready = [this] {
    return !inference_->draining() && policies_->version() > 0;
  };
  auto endpoints = Endpoints::Start(options_, services, access_.get());
  if (!endpoints.ok()) return endpoints.status();
  endpoints_ = *std::move(endpoints);
  if (follows()) StartFollowing();
  return absl::OkStatus();
}

absl::Status Server::ServeMetrics() {
  if (options_.metrics_address.empty()) return absl::OkStatus();
  ServerMetrics::Sources sources;
  sources.counters = &counters_;
  sources.learner = learner_.get();
  sources.connections = &endpoints_->connections();
  sources.policy_version = [this] { return policies_->version(); };
  sources.open_episodes = [this] { return inference_->open_episodes(); };
  sources.queued_calls = [this] { return inference_->queued_calls(); };
  sources.open_evaluations = [this] { return training_->open_evaluations(); };
  sources.recording_bytes = [this] {
    return recordings_->Status().memory_bytes();
  };
  sources.graph_bytes = [this] { return training_->graph_bytes(); };
  sources.episodes_ended = [this] {
    return inference_->engine().episodes().EndedByCause();
  };
  sources.certificate_file = options_.tls.certificate;
  return metrics_.Serve(options_.metrics_address, sources);
}

void Server::Drain(absl::Duration grace) {
  absl::MutexLock lock(&drain_mu_);
  if (drained_ || endpoints_ == nullptr) return;
  drained_ = true;
  if (follower_ != nullptr) follower_->Stop();
  inference_->RefuseWork();
  endpoints_->NotifyHealth();
  inference_->Drain();
  if (learner_ != nullptr) learner_->Drain();
  if (training_ != nullptr) training_->Drain();
  if (recordings_ != nullptr) recordings_->Flush();
  // A call that meets a closed server is cut off without words. Those that are
  // on their way now still get the refusal that tells them to go elsewhere.
  absl::SleepFor(std::min(grace, kFarewell));
  endpoints_->Shutdown(grace);
}

}  // namespace esper::server
