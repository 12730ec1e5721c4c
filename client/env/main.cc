// Environment worker: runs episodes of the network-growing environment that a
// coordinator leases to it, with actions from a policy server; or, by itself,
// episodes of a baseline.

#include <ATen/Parallel.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <utility>

#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "client/action_log.h"
#include "client/credential_flags.h"
#include "client/env/baseline_command.h"
#include "client/env/environment_worker.h"
#include "client/env/heartbeat.h"
#include "client/main_util.h"
#include "client/status.h"
#include "client/stop_signal.h"
#include "core/env/tasks.h"
#include "spdlog/spdlog.h"

ABSL_FLAG(std::string, coordinator, "",
          "Address of the coordinator (esper_trainer): host:port or unix:PATH. "
          "Required unless --baseline is given.");
ABSL_FLAG(std::string, policy_address, "",
          "Address of the policy server; empty: the one that the coordinator "
          "names.");
ABSL_FLAG(int32_t, environments, 4, "Episodes that run side by side.");
ABSL_FLAG(std::string, task, "digits",
          "Task that this worker has data for: digits, text, mnist, cifar10 or "
          "a published variant of it (cifar_baseline, ...).");
ABSL_FLAG(std::string, data, "",
          "File or folder of the task's data; empty: data/digits.csv.gz for "
          "digits, /usr/share/common-licenses for text.");
ABSL_FLAG(std::string, worker_name, "",
          "Unique among the workers; empty: host and process id.");
ABSL_FLAG(absl::Duration, coordinator_patience, absl::Minutes(1),
          "How long to wait for a coordinator that is gone.");
ABSL_FLAG(absl::Duration, server_patience, absl::Minutes(2),
          "How long to wait for a policy server that is gone.");
ABSL_FLAG(std::string, record_file, "",
          "New file that gets everything that the policy server is asked and "
          "answers, for `esperctl replay`. Empty: none.");
ABSL_FLAG(int32_t, threads, 1, "Threads of one tensor operation.");

// Baselines.
ABSL_FLAG(std::string, baseline, "",
          "Plays episodes of this baseline and ends: never_grow, random_legal "
          "or heuristic. Needs no server and no coordinator; --environments "
          "episodes run at a time.");
ABSL_FLAG(int32_t, episodes, 10, "Episodes of a baseline.");
ABSL_FLAG(int32_t, max_epochs, 50,
          "Length of a baseline's episode, host epochs.");
ABSL_FLAG(uint64_t, seed, 42,
          "Root of a baseline's seeds. With the --seed of a training run, the "
          "episodes are those of its evaluation rounds.");
ABSL_FLAG(std::string, env_options, "",
          "Environment options of a baseline as a JSON object, like "
          "{\"samples_per_epoch\": 512}; empty: defaults.");
ABSL_FLAG(std::string, compare_env_options, "",
          "A second set of options: the baseline plays every seed under both, "
          "and they are compared pair by pair.");
ABSL_FLAG(std::string, output, "",
          "File for one JSON line per episode of a baseline; empty: standard "
          "output. A summary follows on standard output.");

ABSL_FLAG(std::string, log_level, "info",
          "trace, debug, info, warning, error, critical or off.");

namespace esper::client {
namespace {

std::string WorkerName() {
  const std::string name = absl::GetFlag(FLAGS_worker_name);
  if (!name.empty()) return name;
  char host[256] = "";
  gethostname(host, sizeof(host) - 1);
  return absl::StrCat(host, "-", getpid());
}

absl::Status CheckFlags() {
  if (absl::GetFlag(FLAGS_coordinator).empty() ==
      absl::GetFlag(FLAGS_baseline).empty()) {
    return absl::InvalidArgumentError(
        "Give either --coordinator or --baseline.");
  }
  if (absl::GetFlag(FLAGS_environments) < 1) {
    return absl::InvalidArgumentError("--environments must be at least 1.");
  }
  if (absl::GetFlag(FLAGS_threads) < 1) {
    return absl::InvalidArgumentError("--threads must be at least 1.");
  }
  return absl::OkStatus();
}

absl::Duration ToDuration(const google::protobuf::Duration& proto) {
  return absl::Seconds(proto.seconds()) + absl::Nanoseconds(proto.nanos());
}

absl::StatusOr<std::unique_ptr<PolicyClient>> ConnectPolicy(
    const std::string& named, const RetryPolicy& retry) {
  ConnectOptions connect;
  connect.address = absl::GetFlag(FLAGS_policy_address);
  if (connect.address.empty()) connect.address = named;
  connect.credentials = CredentialsFromFlags();
  connect.timeout = absl::GetFlag(FLAGS_server_patience);
  connect.stop = retry.stop;
  RetryPolicy patient = retry;
  patient.give_up_after = absl::GetFlag(FLAGS_server_patience);
  return PolicyClient::Connect(connect, patient);
}

absl::Status PlayBaseline(std::shared_ptr<const env::Task> task,
                          StopSignal& signal) {
  BaselineCommand command;
  command.baseline = absl::GetFlag(FLAGS_baseline);
  command.episodes = absl::GetFlag(FLAGS_episodes);
  command.max_epochs = absl::GetFlag(FLAGS_max_epochs);
  command.root_seed = absl::GetFlag(FLAGS_seed);
  command.threads = absl::GetFlag(FLAGS_environments);
  command.env_options = absl::GetFlag(FLAGS_env_options);
  command.compare_env_options = absl::GetFlag(FLAGS_compare_env_options);
  command.output = absl::GetFlag(FLAGS_output);
  auto summary = RunBaseline(command, std::move(task), [&signal] {
    return signal.stopped().HasBeenNotified();
  });
  if (!summary.ok()) return summary.status();
  std::printf("%s\n", summary->c_str());
  return absl::OkStatus();
}

absl::Status Work(std::shared_ptr<const env::Task> task, StopSignal& signal) {
  RetryPolicy retry;
  retry.stop = &signal.stopped();
  retry.give_up_after = absl::GetFlag(FLAGS_coordinator_patience);
  ConnectOptions connect;
  connect.address = absl::GetFlag(FLAGS_coordinator);
  connect.timeout = absl::GetFlag(FLAGS_coordinator_patience);
  connect.stop = retry.stop;
  auto channel = Connect(connect);
  if (!channel.ok()) return channel.status();
  CoordinatorClient coordinator(*channel, retry);
  LeaseBoard board;
  CoordinatorLink link(coordinator, board, WorkerName(),
                       absl::GetFlag(FLAGS_environments));
  auto registered = link.Register();
  if (!registered.ok()) return registered.status();

  auto policy = ConnectPolicy(registered->policy_address(), retry);
  if (!policy.ok()) return policy.status();
  std::unique_ptr<ActionLogWriter> record;
  if (const std::string file = absl::GetFlag(FLAGS_record_file);
      !file.empty()) {
    auto created = ActionLogWriter::Create(file);
    if (!created.ok()) return created.status();
    record = *std::move(created);
    (*policy)->RecordTo(record.get());
  }
  auto info = (*policy)->GetPolicy();
  if (!info.ok()) return info.status();
  const int environments = absl::GetFlag(FLAGS_environments);
  if (environments > info->limits().max_rows_per_call()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--environments=", environments, " is above the server's limit of ",
        info->limits().max_rows_per_call(),
        " rows per call. Start more workers instead."));
  }

  RetryPolicy one_attempt = retry;
  one_attempt.attempt_timeout = absl::Seconds(5);
  one_attempt.give_up_after = absl::ZeroDuration();
  CoordinatorClient heartbeat_client(*channel, one_attempt);
  Heartbeat::Options heartbeat_options;
  heartbeat_options.interval =
      std::min(ToDuration(registered->lease()) / 3, absl::Seconds(2));
  heartbeat_options.patience = absl::GetFlag(FLAGS_coordinator_patience);
  Heartbeat heartbeat(heartbeat_options, heartbeat_client, board,
                      [&signal](const std::string& reason) {
                        spdlog::info("stopping: {}", reason);
                        signal.Stop();
                      });
  EnvironmentWorker worker({environments, info->header().spec_digest()},
                           std::move(task), **policy, link, board, signal);
  return worker.Run();
}

absl::Status Run(StopSignal& signal) {
  absl::Status status = CheckFlags();
  if (!status.ok()) return status;
  auto task =
      env::LoadTask(absl::GetFlag(FLAGS_task), absl::GetFlag(FLAGS_data));
  if (!task.ok()) return task.status();
  return absl::GetFlag(FLAGS_baseline).empty()
             ? Work(*std::move(task), signal)
             : PlayBaseline(*std::move(task), signal);
}

}  // namespace
}  // namespace esper::client

int main(int argc, char** argv) {
  using namespace esper::client;
  ParseFlags(argc, argv,
             "Runs network-growing environments for a training coordinator, "
             "or episodes of a baseline.\n\n"
             "  esper_env --coordinator=127.0.0.1:50052 --environments=4 "
             "--data=data/digits.csv.gz\n"
             "  esper_env --baseline=heuristic --episodes=10 "
             "--output=heuristic.jsonl\n");
  StopSignal signal;
  absl::Status status = SetUpLog(absl::GetFlag(FLAGS_log_level));
  if (status.ok()) {
    at::set_num_threads(absl::GetFlag(FLAGS_threads));
    status = Run(signal);
  }
  // Calls that were cut off because the worker was told to stop.
  if (signal.stopped().HasBeenNotified() &&
      (absl::IsCancelled(status) || absl::IsUnavailable(status))) {
    return 0;
  }
  if (status.ok()) return 0;
  std::fprintf(stderr, "esper_env: %s\n", Describe(status).c_str());
  return 1;
}
