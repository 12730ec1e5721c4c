#include "tests/core/dist/ranks.h"

#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <memory>
#include <utility>

#include "absl/time/clock.h"
#include "core/dist/socket_communicator.h"

namespace esper::testing {
namespace {

constexpr absl::Duration kLimit = absl::Minutes(1);

struct Process {
  pid_t pid = -1;
  int output = -1;
};

Process Start(int rank, const std::function<std::string(int)>& body) {
  int ends[2];
  if (pipe(ends) != 0) std::abort();
  std::fflush(nullptr);
  Process process{fork(), ends[0]};
  if (process.pid < 0) std::abort();
  if (process.pid > 0) {
    close(ends[1]);
    return process;
  }
  close(ends[0]);
  std::string said;
  try {
    said = body(rank);
  } catch (const std::exception& e) {
    said = std::string("threw ") + e.what();
  }
  for (size_t sent = 0; sent < said.size();) {
    const ssize_t count = write(ends[1], &said[sent], said.size() - sent);
    if (count <= 0) break;
    sent += count;
  }
  _exit(0);
}

// Reads until the process ends.
RankResult Collect(const Process& process, absl::Time start) {
  RankResult result;
  char chunk[4096];
  for (;;) {
    pollfd polled{process.output, POLLIN, 0};
    const auto left = absl::ToInt64Milliseconds(start + kLimit - absl::Now());
    if (left <= 0 || poll(&polled, 1, static_cast<int>(left)) == 0) {
      kill(process.pid, SIGKILL);
      break;
    }
    const ssize_t count = read(process.output, chunk, sizeof(chunk));
    if (count <= 0) break;
    result.said.append(chunk, count);
  }
  result.took = absl::Now() - start;
  close(process.output);
  waitpid(process.pid, &result.exit_status, 0);
  return result;
}

}  // namespace

std::vector<RankResult> RunProcesses(
    int count, const std::function<std::string(int rank)>& body) {
  const absl::Time start = absl::Now();
  std::vector<Process> processes;
  for (int rank = 0; rank < count; ++rank) {
    processes.push_back(Start(rank, body));
  }
  std::vector<RankResult> results;
  for (const Process& process : processes) {
    results.push_back(Collect(process, start));
  }
  return results;
}

std::vector<RankResult> RunRanks(
    int size, absl::Duration timeout,
    const std::function<std::string(dist::Communicator& group)>& body) {
  dist::SocketCommunicator::Options options;
  options.size = size;
  options.timeout = timeout;
  auto group = dist::SocketCommunicator::CreatePairs(options).value();
  const absl::Time start = absl::Now();
  std::vector<Process> processes;
  for (int rank = 0; rank < size; ++rank) {
    processes.push_back(Start(rank, [&](int self) {
      const std::unique_ptr<dist::SocketCommunicator> mine =
          std::move(group[self]);
      group.clear();
      return body(*mine);
    }));
  }
  group.clear();
  std::vector<RankResult> results;
  for (const Process& process : processes) {
    results.push_back(Collect(process, start));
  }
  return results;
}

}  // namespace esper::testing
