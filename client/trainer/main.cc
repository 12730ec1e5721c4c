// The training coordinator: hands episodes to environment processes, and turns
// what they report into updates of the policy.

#include <chrono>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>

#include "absl/flags/flag.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "client/credential_flags.h"
#include "client/listen.h"
#include "client/main_util.h"
#include "client/status.h"
#include "client/stop_signal.h"
#include "client/trainer/coordinator_service.h"
#include "client/trainer/trainer.h"
#include "client/trainer/trainer_flags.h"
#include "client/trainer/trainer_settings.h"
#include "proto/config/config_schema.h"
#include "proto/config/training_config.h"
#include "spdlog/spdlog.h"

ABSL_FLAG(std::string, policy_address, "127.0.0.1:50051",
          "Address of the policy server: host:port or unix:PATH.");
ABSL_FLAG(std::string, worker_policy_address, "",
          "The same as the workers reach it; empty: --policy_address.");
ABSL_FLAG(std::string, address, "127.0.0.1:0",
          "Where the workers find this coordinator; port 0: any free one.");
ABSL_FLAG(bool, insecure, false,
          "Allows an --address that other machines reach. Nobody is "
          "authenticated.");
ABSL_FLAG(std::string, port_file, "",
          "File that gets the port (the address of a Unix socket) once it "
          "listens; empty: none.");
ABSL_FLAG(std::string, run_dir, "", "Folder of the run. Required.");
ABSL_FLAG(
    bool, resume, false,
    "Continue the run that is in --run_dir, with its configuration unless "
    "--config names another.");
ABSL_FLAG(bool, resume_if_any, false,
          "As --resume if --run_dir holds a run; otherwise starts one there.");
ABSL_FLAG(bool, evaluate, false,
          "Plays run.evaluation_episodes episodes with the policy as it is, "
          "writes them to evaluations.csv, and exits. Nothing is trained.");
ABSL_FLAG(bool, dry_run, false,
          "Checks the configuration, prints it as JSON, and exits.");
ABSL_FLAG(bool, print_schema, false,
          "Prints the JSON schema of configuration files, and exits.");
ABSL_FLAG(std::string, log_level, "info",
          "trace, debug, info, warning, error, critical or off.");

namespace esper::client {
namespace {

// How long workers get to hear that the run is over.
constexpr absl::Duration kFarewell = absl::Seconds(5);

absl::StatusOr<std::unique_ptr<PolicyLearner>> ConnectLearner(
    const std::string& holder, const v1::LearnerConfig& expected,
    const absl::Notification& stop) {
  ConnectOptions connect;
  connect.address = absl::GetFlag(FLAGS_policy_address);
  connect.credentials = CredentialsFromFlags();
  connect.stop = &stop;
  auto channel = Connect(connect);
  if (!channel.ok()) return channel.status();
  RetryPolicy retry;
  retry.stop = &stop;
  RetryPolicy training = retry;
  training.attempt_timeout = absl::Minutes(2);
  training.give_up_after = absl::Minutes(2);
  return std::make_unique<PolicyLearner>(
      std::make_unique<PolicyClient>(*channel, retry),
      std::make_unique<TrainingClient>(*channel, training),
      std::make_unique<AdminClient>(*channel, training), holder, expected);
}

void SayFarewell(const EpisodeScheduler& scheduler) {
  const absl::Time deadline = absl::Now() + kFarewell;
  while (!scheduler.AllToldToStop() && absl::Now() < deadline) {
    absl::SleepFor(absl::Milliseconds(50));
  }
}

// What identifies the run across restarts.
std::string FullPath(const std::string& run_dir) {
  return std::filesystem::weakly_canonical(run_dir).string();
}

// Its name in environment keys.
std::string RunName(const std::string& run_dir) {
  return std::filesystem::weakly_canonical(run_dir).filename().string();
}

// Whether the flags ask to go on with the run in `run_dir`.
bool Resumes(const std::string& run_dir) {
  return absl::GetFlag(FLAGS_resume) ||
         (absl::GetFlag(FLAGS_resume_if_any) &&
          std::filesystem::exists(std::filesystem::path(run_dir) /
                                  "summary.json"));
}

// The file that a run goes on with, if it is there.
std::string SavedConfig(const std::string& run_dir) {
  if (!Resumes(run_dir)) return "";
  const std::string path =
      (std::filesystem::path(run_dir) / "config.json").string();
  return std::filesystem::exists(path) ? path : "";
}

absl::Status Run(StopSignal& signal) {
  if (absl::GetFlag(FLAGS_print_schema)) {
    std::puts(config::TrainingConfigSchema().dump(2).c_str());
    return absl::OkStatus();
  }
  const std::string run_dir = absl::GetFlag(FLAGS_run_dir);
  const auto config =
      config::LoadConfig(SourcesFromFlags(SavedConfig(run_dir)));
  if (!config.ok()) return config.status();
  auto settings = ToSettings(*config);
  if (!settings.ok()) return settings.status();
  const config::Json json = config::ToJson(*config);
  if (absl::GetFlag(FLAGS_dry_run)) {
    std::puts(json.dump(2).c_str());
    return absl::OkStatus();
  }
  if (run_dir.empty()) return absl::InvalidArgumentError("--run_dir is empty.");
  settings->service.policy_address = absl::GetFlag(FLAGS_worker_policy_address);
  if (settings->service.policy_address.empty()) {
    settings->service.policy_address = absl::GetFlag(FLAGS_policy_address);
  }
  auto learner = ConnectLearner("esper_trainer of " + FullPath(run_dir),
                                config->learner(), signal.stopped());
  if (!learner.ok()) return learner.status();
  auto directory = RunDirectory::Open(run_dir, Resumes(run_dir), json);
  if (!directory.ok()) return directory.status();

  settings->scheduler.run_name = RunName(run_dir);
  settings->scheduler.first_episode = (*directory)->totals().next_episode;
  // Above those of an earlier process of this run, which came before.
  settings->scheduler.first_incarnation = absl::ToUnixMicros(absl::Now());
  EpisodeScheduler scheduler(settings->scheduler);
  EpisodeCollector collector;
  CoordinatorService service(
      settings->service, scheduler, collector,
      [&](const FinishedEpisode& episode) {
        absl::Status status = (*directory)->AddEpisode(episode);
        if (!status.ok()) spdlog::error("{}", Describe(status));
      },
      absl::Now);
  ListenOptions listen;
  listen.address = absl::GetFlag(FLAGS_address);
  listen.insecure = absl::GetFlag(FLAGS_insecure);
  auto listener = Listen(listen, service);
  if (!listener.ok()) return listener.status();
  spdlog::info("coordinating on {}; run folder {}", listener->address, run_dir);
  if (const std::string file = absl::GetFlag(FLAGS_port_file); !file.empty()) {
    absl::Status status = WritePortFile(file, *listener);
    if (!status.ok()) return status;
  }
  settings->trainer.evaluate_only = absl::GetFlag(FLAGS_evaluate);
  Progress progress(IsTerminal(), /*log_every=*/absl::Seconds(10));
  Trainer trainer(settings->trainer, scheduler, collector, **learner,
                  **directory, progress, service, signal.stopped());
  absl::Status status = trainer.Run();
  SayFarewell(scheduler);
  listener->server->Shutdown(std::chrono::system_clock::now() +
                             std::chrono::seconds(1));
  return status;
}

}  // namespace
}  // namespace esper::client

int main(int argc, char** argv) {
  using namespace esper::client;
  ParseFlags(
      argc, argv,
      "Trains a served policy: leases episodes to esper_env workers and "
      "updates the policy with what they report.\n\n"
      "  esper_trainer --policy_address=127.0.0.1:50051 --run_dir=runs/first "
      "--minutes=10\n");
  StopSignal signal;
  absl::Status status =
      SetUpLog(absl::GetFlag(FLAGS_log_level), /*clear_line=*/IsTerminal());
  if (status.ok()) status = Run(signal);
  if (status.ok() || absl::IsCancelled(status)) return 0;
  std::fprintf(stderr, "esper_trainer: %s\n", Describe(status).c_str());
  return 1;
}
