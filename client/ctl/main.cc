// Operates a policy server from the command line.

#include <cstdio>
#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/time/time.h"
#include "client/action_log.h"
#include "client/credential_flags.h"
#include "client/ctl/commands.h"
#include "client/ctl/recordings.h"
#include "client/main_util.h"
#include "client/replay.h"
#include "client/status.h"
#include "client/training_client.h"
#include "proto/recording/recording_file.h"

ABSL_FLAG(std::string, address, "127.0.0.1:50051",
          "Address of the policy server: host:port or unix:PATH.");
ABSL_FLAG(bool, json, false, "Prints JSON instead of a table.");
ABSL_FLAG(absl::Duration, timeout, absl::Seconds(10),
          "How long to wait for the server.");

ABSL_FLAG(std::string, log, "",
          "Recorded log to replay, of esper_env --record_file.");
ABSL_FLAG(
    std::string, recording, "",
    "Recording to replay instead: its episode's id in hexadecimal digits, "
    "to ask the server for it, or a file of the server's recording_dir.");

namespace esper::client {
namespace {

// Exit codes.
constexpr int kFailed = 1;
constexpr int kUsage = 2;
constexpr int kDiffers = 3;

struct Outcome {
  std::string text;
  int exit_code = 0;
};

absl::StatusOr<ReplayReport> ReplayLog(PolicyClient& policy) {
  auto log = ActionLogReader::Open(absl::GetFlag(FLAGS_log));
  if (!log.ok()) return log.status();
  return Replay(**log, policy);
}

absl::StatusOr<ReplayReport> ReplayRecording(PolicyClient& policy,
                                             TrainingClient& training) {
  const std::string name = absl::GetFlag(FLAGS_recording);
  const auto id = ParseEpisodeId(name);
  const auto recording =
      id ? training.GetRecording(*id) : recording::ReadRecording(name);
  if (!recording.ok()) return recording.status();
  return Replay(*recording, policy);
}

absl::StatusOr<Outcome> RunReplay(PolicyClient& policy,
                                  TrainingClient& training) {
  const auto report = absl::GetFlag(FLAGS_recording).empty()
                          ? ReplayLog(policy)
                          : ReplayRecording(policy, training);
  if (!report.ok()) return report.status();
  return Outcome{DescribeReplay(*report), report->difference ? kDiffers : 0};
}

absl::StatusOr<Outcome> Run(const std::vector<std::string>& arguments) {
  const bool replay = arguments == std::vector<std::string>{"replay"};
  if (replay && absl::GetFlag(FLAGS_log).empty() ==
                    absl::GetFlag(FLAGS_recording).empty()) {
    return absl::InvalidArgumentError(
        "replay needs either --log=FILE or --recording=EPISODE_ID or FILE.");
  }
  ConnectOptions connect;
  connect.address = absl::GetFlag(FLAGS_address);
  connect.timeout = absl::GetFlag(FLAGS_timeout);
  connect.credentials = CredentialsFromFlags();
  auto channel = Connect(connect);
  if (!channel.ok()) return channel.status();
  RetryPolicy retry;
  retry.attempt_timeout = connect.timeout;
  retry.give_up_after = connect.timeout;
  PolicyClient policy(*channel, retry);
  AdminClient admin(*channel, retry);
  TrainingClient training(*channel, retry);
  if (replay) return RunReplay(policy, training);
  if (arguments == std::vector<std::string>{"recordings"}) {
    auto text = DescribeRecordings(training, absl::GetFlag(FLAGS_json));
    if (!text.ok()) return text.status();
    return Outcome{*std::move(text), 0};
  }
  auto text = Commands(policy, admin, absl::GetFlag(FLAGS_json)).Run(arguments);
  if (!text.ok()) return text.status();
  return Outcome{*std::move(text), 0};
}

}  // namespace
}  // namespace esper::client

int main(int argc, char** argv) {
  using namespace esper::client;
  const std::vector<std::string> arguments = ParseFlags(
      argc, argv,
      "Operates a policy server.\n\n"
      "  esperctl [--address=HOST:PORT] [--json] COMMAND\n\n"
      "  status          what the server is doing\n"
      "  policy          the policy it serves, and its limits\n"
      "  versions        what was published, with labels and digests\n"
      "  label LABEL [VERSION]    name a version (default: the one that "
      "acts),\n"
      "                           or freeze it; either keeps it for rollback\n"
      "  unlabel LABEL [VERSION]  take the label away\n"
      "  rollback [VERSION|LABEL] let a kept version act again, under a new\n"
      "                           number; without argument: the previous one\n"
      "  checkpoints     what the checkpoint folder holds\n"
      "  save [NAME]     write a checkpoint\n"
      "  restore [NAME]  go back to a checkpoint; without name: the newest\n"
      "  verify [NAME]   read a checkpoint whole and change nothing\n"
      "  export FILE [NAME]  write the weights of a checkpoint, or of the\n"
      "                  version that acts, as safetensors\n"
      "  import FILE [NAME]  make a checkpoint of such a file, to be restored\n"
      "  recordings      the episodes that the server recorded\n"
      "  replay          take the steps of --log=FILE, or of --recording=ID "
      "or\n"
      "                  FILE, again and compare; exit code 3 if the server\n"
      "                  answers differently\n",
      /*allow_arguments=*/true);
  if (arguments.empty()) {
    std::fputs("esperctl: which command? See --help.\n", stderr);
    return kUsage;
  }
  const auto outcome = Run(arguments);
  if (!outcome.ok()) {
    std::fprintf(stderr, "esperctl: %s\n", Describe(outcome.status()).c_str());
    return absl::IsInvalidArgument(outcome.status()) ? kUsage : kFailed;
  }
  std::fputs(outcome->text.c_str(), stdout);
  return outcome->exit_code;
}
