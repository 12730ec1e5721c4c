// Operates a policy server from the command line.

#include <cstdio>
#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/time/time.h"
#include "client/ctl/commands.h"
#include "client/main_util.h"
#include "client/status.h"

ABSL_FLAG(std::string, address, "127.0.0.1:50051",
          "Address of the policy server: host:port or unix:PATH.");
ABSL_FLAG(bool, json, false, "Prints JSON instead of a table.");
ABSL_FLAG(absl::Duration, timeout, absl::Seconds(10),
          "How long to wait for the server.");

namespace esper::client {
namespace {

absl::StatusOr<std::string> Run(const std::vector<std::string>& arguments) {
  ConnectOptions connect;
  connect.address = absl::GetFlag(FLAGS_address);
  connect.timeout = absl::GetFlag(FLAGS_timeout);
  auto channel = Connect(connect);
  if (!channel.ok()) return channel.status();
  RetryPolicy retry;
  retry.attempt_timeout = connect.timeout;
  retry.give_up_after = connect.timeout;
  PolicyClient policy(*channel, retry);
  AdminClient admin(*channel, retry);
  return Commands(policy, admin, absl::GetFlag(FLAGS_json)).Run(arguments);
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
      "  save [NAME]     write a checkpoint\n"
      "  restore [NAME]  go back to a checkpoint; without name: the newest\n",
      /*allow_arguments=*/true);
  if (arguments.empty()) {
    std::fputs("esperctl: which command? See --help.\n", stderr);
    return 2;
  }
  const auto text = Run(arguments);
  if (!text.ok()) {
    std::fprintf(stderr, "esperctl: %s\n", Describe(text.status()).c_str());
    return absl::IsInvalidArgument(text.status()) ? 2 : 1;
  }
  std::fputs(text->c_str(), stdout);
  return 0;
}
