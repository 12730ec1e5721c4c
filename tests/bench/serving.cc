// One part of the serving benchmark (docs/benchmarks.md); compare.sh runs them
// all. Talks to this machine only, and stops by itself unless it serves.
//
//   serving load     asks a server for actions; one line of JSON
//   serving echo     serves the floor until SIGTERM
//   serving forward  runs the ceiling in this process; one line of JSON
//   serving train    keeps a server's learner busy until SIGTERM
//   serving quick    all of it for a moment, in this process
#include <signal.h>

#include <cstdio>
#include <fstream>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "ATen/Parallel.h"
#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "grpcpp/server_builder.h"
#include "server/server.h"
#include "spdlog/spdlog.h"
#include "tests/bench/serving_echo.h"
#include "tests/bench/serving_forward.h"
#include "tests/bench/serving_load.h"
#include "tests/bench/serving_train.h"

ABSL_FLAG(std::string, address, "", "127.0.0.1:PORT or unix:/path.");
ABSL_FLAG(int64_t, environments, 1, "Episodes.");
ABSL_FLAG(int64_t, rows, 1, "Rows of a call.");
ABSL_FLAG(int, connections, 1, "Connections.");
ABSL_FLAG(int64_t, in_flight, 0, "Calls in flight; 0: all environments wait.");
ABSL_FLAG(double, calls_per_second, 0,
          "Poisson arrivals; 0: the next call follows the answer.");
ABSL_FLAG(double, warmup, 0.5, "Seconds before the measurement.");
ABSL_FLAG(double, seconds, 2, "Seconds of the measurement.");
ABSL_FLAG(double, pause, 0, "Seconds between passes of `forward`.");
ABSL_FLAG(int, server_pid, 0, "Process to report CPU time and memory of.");
ABSL_FLAG(uint64_t, incarnation, 1, "Of the environments; rises by run.");
ABSL_FLAG(std::string, port_file, "", "File that gets the echo server's port.");

namespace esper::bench {
namespace {

LoadOptions LoadFromFlags() {
  LoadOptions options;
  options.address = absl::GetFlag(FLAGS_address);
  options.environments = absl::GetFlag(FLAGS_environments);
  options.rows = absl::GetFlag(FLAGS_rows);
  options.connections = absl::GetFlag(FLAGS_connections);
  options.in_flight = absl::GetFlag(FLAGS_in_flight);
  options.calls_per_second = absl::GetFlag(FLAGS_calls_per_second);
  options.warmup = absl::GetFlag(FLAGS_warmup);
  options.seconds = absl::GetFlag(FLAGS_seconds);
  options.server_pid = absl::GetFlag(FLAGS_server_pid);
  options.incarnation = absl::GetFlag(FLAGS_incarnation);
  return options;
}

absl::Status Print(const absl::StatusOr<LoadReport>& report) {
  if (!report.ok()) return report.status();
  std::cout << report->ToJson() << std::endl;
  return absl::OkStatus();
}

std::unique_ptr<grpc::Server> StartEcho(EchoService* service, int* port) {
  grpc::ServerBuilder builder;
  builder.SetMaxReceiveMessageSize(-1);
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(),
                           port);
  builder.RegisterService(service);
  return builder.BuildAndStart();
}

absl::Status Echo() {
  EchoService service(absl::GetFlag(FLAGS_rows));
  int port = 0;
  const auto server = StartEcho(&service, &port);
  if (server == nullptr) return absl::UnavailableError("Cannot listen.");
  const std::string path = absl::GetFlag(FLAGS_port_file);
  std::ofstream(path + ".tmp") << port << "\n";
  std::rename((path + ".tmp").c_str(), path.c_str());
  sigset_t stop;
  sigemptyset(&stop);
  sigaddset(&stop, SIGTERM);
  int signal = 0;
  sigwait(&stop, &signal);
  return absl::OkStatus();
}

// A smoke test: every part answers, and the load is that of the real server.
absl::Status Quick() {
  server::ServerOptions options;
  options.address = "127.0.0.1:0";
  const auto server = server::Server::Create(options);
  if (!server.ok()) return server.status();
  EchoService echo(4);
  int echo_port = 0;
  const auto echo_server = StartEcho(&echo, &echo_port);
  LoadOptions load;
  load.environments = 16;
  load.rows = 4;
  load.connections = 2;
  load.warmup = 0.1;
  load.seconds = 0.4;
  for (const int port : {(*server)->port(), echo_port}) {
    load.address = absl::StrCat("127.0.0.1:", port);
    for (const double rate : {0.0, 50.0}) {
      load.calls_per_second = rate;
      const absl::Status status = Print(RunLoad(load));
      if (!status.ok()) return status;
      ++load.incarnation;
    }
  }
  const absl::Status trained =
      Train(absl::StrCat("127.0.0.1:", (*server)->port()), /*passes=*/1);
  if (!trained.ok()) return trained;
  return Print(RunForward(16, 4, 0.2, 0.0001));
}

absl::Status Run(const std::string& part) {
  if (part == "load") {
    const LoadOptions options = LoadFromFlags();
    if (!absl::StartsWith(options.address, "127.0.0.1:") &&
        !absl::StartsWith(options.address, "unix:")) {
      return absl::InvalidArgumentError(
          "--address must be 127.0.0.1:PORT or unix:/path.");
    }
    return Print(RunLoad(options));
  }
  if (part == "echo") return Echo();
  if (part == "forward") {
    return Print(
        RunForward(absl::GetFlag(FLAGS_environments), absl::GetFlag(FLAGS_rows),
                   absl::GetFlag(FLAGS_seconds), absl::GetFlag(FLAGS_pause)));
  }
  if (part == "train") return Train(absl::GetFlag(FLAGS_address), 0);
  if (part == "quick") return Quick();
  return absl::InvalidArgumentError(
      "Name a part: load, echo, forward, train or quick.");
}

}  // namespace
}  // namespace esper::bench

int main(int argc, char** argv) {
  sigset_t stop;
  sigemptyset(&stop);
  sigaddset(&stop, SIGTERM);
  const std::vector<char*> arguments = absl::ParseCommandLine(argc, argv);
  const std::string part = arguments.size() == 2 ? arguments[1] : "";
  // `train` just ends; the server takes its lease back.
  if (part == "echo") pthread_sigmask(SIG_BLOCK, &stop, nullptr);
  at::set_num_threads(1);
  spdlog::set_level(spdlog::level::warn);
  const absl::Status status = esper::bench::Run(part);
  if (!status.ok()) {
    std::cerr << status << "\n";
    return 1;
  }
  return 0;
}
