#include <signal.h>
#include <sys/resource.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <sstream>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "ATen/Parallel.h"
#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/reflection.h"
#include "absl/flags/usage.h"
#include "absl/flags/usage_config.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "core/policy/inference_precision.h"
#include "core/policy/training_precision.h"
#include "proto/config/training_config.h"
#include "server/listen_address.h"
#include "server/listen_flags.h"
#include "server/log_setup.h"
#include "server/ppo_messages.h"
#include "server/server.h"
#include "server/state_codec.h"
#include "server/version.h"
#include "spdlog/spdlog.h"

ABSL_FLAG(std::string, device, "auto", "auto, cpu or cuda:N.");
ABSL_FLAG(std::string, policy_spec, "",
          "JSON file with the policy's specification. Empty: the policy that "
          "grows networks, as the configuration's section policy says.");
ABSL_FLAG(std::string, config, "",
          "Configuration file, the same as esper_trainer's; its sections "
          "learner and policy are read here.");
ABSL_FLAG(std::string, profile, "", "default or upstream.");
ABSL_FLAG(std::string, set, "",
          "Assignments over the configuration, like "
          "learner.popart=false,policy.hidden_dim=256.");
ABSL_FLAG(std::string, init_seed, "",
          "Seed of the initial weights: --set=policy.init_seed=SEED.");
ABSL_FLAG(std::string, checkpoint_dir, "",
          "Folder of the checkpoints. Empty: they are refused.");
ABSL_FLAG(std::string, restore, "",
          "Checkpoint to start from: a name; latest; or latest_if_any, which "
          "starts from fresh weights where there is none yet. Empty: fresh "
          "weights.");
ABSL_FLAG(std::string, follow, "",
          "Serve the versions of the server at this address (host:port or "
          "unix:/path) instead of learning; --checkpoint_dir then keeps the "
          "last one, to start with while that server is away.");
ABSL_FLAG(std::string, follow_ca_file, "",
          "Authorities of that server's certificate, PEM; the connection to it "
          "then uses TLS, with --tls_cert_file as own identity. Empty: "
          "plaintext.");
ABSL_FLAG(absl::Duration, follow_timeout, absl::Seconds(10),
          "How long a follower that was given no --policy_spec waits at its "
          "start for the server it follows.");
ABSL_FLAG(int, keep_checkpoints, 5,
          "Checkpoints that nobody named: how many of the newest are kept.");
ABSL_FLAG(int, keep_versions, 4,
          "Newest policy versions that can be rolled back to; each takes three "
          "times the memory of the policy. Labelled ones are kept besides.");
ABSL_FLAG(absl::Duration, learner_lease, absl::Minutes(1),
          "Time after which another may take the learner lease of a holder "
          "that is silent.");
ABSL_FLAG(std::string, port_file, "",
          "File that gets the port number once the server listens.");
ABSL_FLAG(std::string, metrics_address, "",
          "host:port that serves metrics for Prometheus over HTTP, at "
          "/metrics. Empty: nowhere.");
ABSL_FLAG(std::string, log_level, "info",
          "trace, debug, info, warn, error, critical or off.");
ABSL_FLAG(std::string, log_format, "text", "text or json.");
ABSL_FLAG(int, workers, 1, "Threads that run the policy for GetAction.");
ABSL_FLAG(std::string, inference_precision, "fp32",
          "Products of the network that acts: fp32; bf16; or auto, which is "
          "bf16 on processors with instructions for it.");
ABSL_FLAG(int, max_episodes, 16384, "Episodes open at a time.");
ABSL_FLAG(int, max_queue, 1024, "GetAction calls that wait for a worker.");
ABSL_FLAG(int, max_stream_requests, 64,
          "Requests of one StreamActions stream that are not yet answered.");
ABSL_FLAG(std::string, state_key_file, "",
          "File with the key that signs the recurrent states which clients "
          "hold, at least 16 bytes; the same on all replicas. Empty: they "
          "carry a digest that finds damage, not forgery.");
ABSL_FLAG(std::string, training_precision, "fp32",
          "Products of the network that is trained: fp32; or bf16, whose "
          "operands are rounded to bfloat16 and summed in fp32.");
ABSL_FLAG(int, max_graph_mb, 2048,
          "Memory of the graphs that all EvaluateActions streams hold open, in "
          "MiB.");
ABSL_FLAG(int, max_stream_graph_mb, 1024,
          "Memory of the graphs that one EvaluateActions stream holds open, in "
          "MiB.");
ABSL_FLAG(int, max_open_evaluations, 8,
          "Evaluations that one EvaluateActions stream holds open.");
ABSL_FLAG(absl::Duration, graph_timeout, absl::Seconds(60),
          "Idle time after which an EvaluateActions stream with open "
          "evaluations ends.");
ABSL_FLAG(absl::Duration, episode_lease, absl::Minutes(10),
          "Idle time after which an episode expires.");
ABSL_FLAG(int, max_recording_mb, 1024, "Memory for recorded episodes, in MiB.");
ABSL_FLAG(std::string, recording_overflow, "refuse",
          "When that memory is used up: refuse further recorded steps; or "
          "spill, which writes ended recordings into --recording_dir.");
ABSL_FLAG(std::string, recording_dir, "",
          "Folder of recordings on disk: those that are spilled, and those "
          "that are left when the server stops. Empty: the latter are lost.");

namespace esper::server {
namespace {

constexpr absl::Duration kDrainGrace = absl::Seconds(5);

// The signals that ask the server to stop.
sigset_t StopSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  return signals;
}

// Every connection takes a descriptor, and this gRPC stops accepting for good
// once there is none.
void RaiseDescriptorLimit() {
  rlimit limit = {};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
  spdlog::info("up to {} open descriptors", limit.rlim_cur);
}

absl::StatusOr<policy::PolicySpec> ReadSpec(const std::string& path) {
  std::ifstream file(path);
  std::stringstream text;
  if (!(text << file.rdbuf())) {
    return absl::NotFoundError(
        absl::StrCat("Cannot read the policy specification ", path, "."));
  }
  return policy::PolicySpec::FromJson(text.str());
}

absl::StatusOr<v1::TrainingConfig> ConfigFromFlags() {
  config::ConfigSources sources;
  sources.file = absl::GetFlag(FLAGS_config);
  sources.profile = absl::GetFlag(FLAGS_profile);
  sources.assignments = config::SplitAssignments(absl::GetFlag(FLAGS_set));
  if (const std::string seed = absl::GetFlag(FLAGS_init_seed); !seed.empty()) {
    sources.assignments.push_back("policy.init_seed=" + seed);
  }
  return config::LoadConfig(sources);
}

// A follower takes from its source what these would say otherwise.
absl::Status CheckFollowFlags() {
  for (const char* name : {"restore", "config", "profile", "set", "init_seed",
                           "inference_precision"}) {
    const absl::CommandLineFlag* flag = absl::FindCommandLineFlag(name);
    if (flag->CurrentValue() == flag->DefaultValue()) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("--", name,
                     " means nothing with --follow: versions come "
                     "from ",
                     absl::GetFlag(FLAGS_follow),
                     ". Leave it out, or give it to that server."));
  }
  return absl::OkStatus();
}

// The budgets of EvaluateActions.
absl::StatusOr<EvaluateStreamOptions> StreamOptionsFromFlags() {
  EvaluateStreamOptions options;
  for (const auto& [name, value, bytes] :
       {std::make_tuple("max_graph_mb", absl::GetFlag(FLAGS_max_graph_mb),
                        &options.max_graph_bytes),
        std::make_tuple("max_stream_graph_mb",
                        absl::GetFlag(FLAGS_max_stream_graph_mb),
                        &options.max_stream_graph_bytes)}) {
    if (value < 1) {
      return absl::InvalidArgumentError(
          absl::StrCat(name, " must be at least 1, got ", value, "."));
    }
    *bytes = static_cast<int64_t>(value) << 20;
  }
  options.max_open_evaluations = absl::GetFlag(FLAGS_max_open_evaluations);
  options.graph_timeout = absl::GetFlag(FLAGS_graph_timeout);
  if (options.max_open_evaluations < 1 ||
      options.graph_timeout <= absl::ZeroDuration()) {
    return absl::InvalidArgumentError(
        "max_open_evaluations and graph_timeout must be above 0.");
  }
  return options;
}

absl::StatusOr<RecordingOptions> RecordingOptionsFromFlags() {
  RecordingOptions options;
  const int megabytes = absl::GetFlag(FLAGS_max_recording_mb);
  if (megabytes < 1) {
    return absl::InvalidArgumentError(absl::StrCat(
        "max_recording_mb must be at least 1, got ", megabytes, "."));
  }
  options.max_bytes = int64_t{megabytes} << 20;
  const auto overflow =
      ParseRecordingOverflow(absl::GetFlag(FLAGS_recording_overflow));
  if (!overflow.ok()) return overflow.status();
  options.overflow = *overflow;
  options.folder = absl::GetFlag(FLAGS_recording_dir);
  return options;
}

absl::StatusOr<ServerOptions> OptionsFromFlags() {
  ServerOptions options;
  const auto config = ConfigFromFlags();
  if (!config.ok()) return config.status();
  auto learner = DecodeLearnerConfig(config->learner(), config->profile());
  if (!learner.ok()) return learner.status();
  options.learner = *learner;
  options.init_seed = config->policy().init_seed();
  const auto listen = ListenOptionsFromFlags();
  if (!listen.ok()) return listen.status();
  static_cast<ListenOptions&>(options) = *listen;
  options.inference.max_message_bytes = std::min<int64_t>(
      options.inference.max_message_bytes, options.max_message_bytes);
  options.device = absl::GetFlag(FLAGS_device);
  options.checkpoint_dir = absl::GetFlag(FLAGS_checkpoint_dir);
  options.restore = absl::GetFlag(FLAGS_restore);
  options.keep_checkpoints = absl::GetFlag(FLAGS_keep_checkpoints);
  options.keep_versions = absl::GetFlag(FLAGS_keep_versions);
  options.learner_thread.lease.duration = absl::GetFlag(FLAGS_learner_lease);
  options.metrics_address = absl::GetFlag(FLAGS_metrics_address);
  options.inference.workers = absl::GetFlag(FLAGS_workers);
  const auto precision =
      policy::ParsePrecision(absl::GetFlag(FLAGS_inference_precision));
  if (!precision.ok()) return precision.status();
  options.inference.precision = *precision;
  const auto training =
      policy::ParseTrainingPrecision(absl::GetFlag(FLAGS_training_precision));
  if (!training.ok()) return training.status();
  options.learner.precision = *training;
  const auto streams = StreamOptionsFromFlags();
  if (!streams.ok()) return streams.status();
  options.streams = *streams;
  options.inference.max_episodes = absl::GetFlag(FLAGS_max_episodes);
  options.inference.max_queued_calls = absl::GetFlag(FLAGS_max_queue);
  options.inference.episode_lease = absl::GetFlag(FLAGS_episode_lease);
  options.inference.max_stream_requests =
      absl::GetFlag(FLAGS_max_stream_requests);
  if (const std::string file = absl::GetFlag(FLAGS_state_key_file);
      !file.empty()) {
    auto key = ReadStateKey(file);
    if (!key.ok()) return key.status();
    options.inference.state_key = *std::move(key);
  }
  auto recordings = RecordingOptionsFromFlags();
  if (!recordings.ok()) return recordings.status();
  options.recordings = *std::move(recordings);
  const std::string spec_file = absl::GetFlag(FLAGS_policy_spec);
  options.follow.source = absl::GetFlag(FLAGS_follow);
  options.follow.start_timeout = absl::GetFlag(FLAGS_follow_timeout);
  options.follow.authorities = absl::GetFlag(FLAGS_follow_ca_file);
  options.follow.identity = options.tls;
  if (!options.follow.authorities.empty()) {
    const absl::Status readable =
        CheckAuthorities("follow_ca_file", options.follow.authorities);
    if (!readable.ok()) return readable;
  }
  if (!options.follow.source.empty()) {
    const absl::Status allowed = CheckFollowFlags();
    if (!allowed.ok()) return allowed;
    if (spec_file.empty()) return options;
  }
  auto spec = spec_file.empty()
                  ? DecodePolicyConfig(config->policy(), config->profile())
                  : ReadSpec(spec_file);
  if (!spec.ok()) return spec.status();
  options.spec = *std::move(spec);
  return options;
}

absl::Status Run() {
  const auto options = OptionsFromFlags();
  if (!options.ok()) return options.status();
  // A file of an earlier run must not be taken for this one's.
  const std::string port_file = absl::GetFlag(FLAGS_port_file);
  if (!port_file.empty()) std::remove(port_file.c_str());
  RaiseDescriptorLimit();
  auto server = Server::Create(*options);
  if (!server.ok()) return server.status();

  LogWhoMayCall(*options);
  const int port = (*server)->port();
  spdlog::info("esper server {} listens on {}, port {}", kServerVersion,
               absl::StrJoin(options->Addresses(), ", "), port);
  if (!port_file.empty()) {
    const absl::Status written =
        WritePortFile(port_file, options->address, port);
    if (!written.ok()) return written;
  }

  const sigset_t signals = StopSignals();
  int signal = 0;
  sigwait(&signals, &signal);
  spdlog::info("{}: draining", signal == SIGTERM ? "SIGTERM" : "SIGINT");
  (*server)->Drain(kDrainGrace);
  server->reset();
  spdlog::info("clean exit");
  return absl::OkStatus();
}

}  // namespace
}  // namespace esper::server

int main(int argc, char** argv) {
  // First of all: threads made from here on leave the signals to `sigwait`.
  const sigset_t signals = esper::server::StopSignals();
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);

  absl::SetProgramUsageMessage("Serves a recurrent policy over gRPC.");
  // --help shows our own flags, not those of libraries.
  absl::FlagsUsageConfig usage;
  usage.contains_help_flags = [](auto file) {
    return absl::StrContains(file, "server/");
  };
  usage.contains_helpshort_flags = usage.contains_help_flags;
  absl::SetFlagsUsageConfig(usage);
  const std::vector<char*> arguments = absl::ParseCommandLine(argc, argv);
  if (arguments.size() > 1) {
    std::cerr << "unexpected argument: " << arguments[1] << "\n";
    return 1;
  }
  const absl::Status log = esper::server::SetUpLog(
      absl::GetFlag(FLAGS_log_level), absl::GetFlag(FLAGS_log_format));
  if (!log.ok()) {
    std::cerr << log.message() << "\n";
    return 1;
  }
  // Some builds of Abseil look for deadlocks at every lock.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  // Threads of the workers share the cores; OpenMP's would fight over them.
  at::set_num_threads(1);
  const absl::Status status = esper::server::Run();
  if (!status.ok()) {
    spdlog::critical("{}", std::string(status.message()));
    return 1;
  }
  return 0;
}
