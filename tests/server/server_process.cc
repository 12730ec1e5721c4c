#include "tests/server/server_process.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <fstream>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gtest/gtest.h"

namespace esper::testing {
namespace {

constexpr absl::Duration kPoll = absl::Milliseconds(10);

std::string ReadFile(const std::string& path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

}  // namespace

ServerProcess::ServerProcess(std::vector<std::string> flags,
                             bool with_port_file, int max_descriptors) {
  static std::atomic<int> count{0};
  const std::string base =
      absl::StrCat(::testing::TempDir(), "/server", getpid(), ".", ++count);
  log_path_ = base + ".log";
  port_path_ = base + ".port";
  if (with_port_file) flags.push_back("--port_file=" + port_path_);
  std::string program = "server/esper_server";
  std::vector<char*> arguments = {program.data()};
  for (std::string& flag : flags) arguments.push_back(flag.data());
  arguments.push_back(nullptr);
  pid_ = fork();
  if (pid_ == 0) {
    const int log = open(log_path_.c_str(), O_CREAT | O_TRUNC | O_WRONLY, 0600);
    dup2(log, STDERR_FILENO);
    if (max_descriptors > 0) {
      const rlim_t limit = max_descriptors;
      const rlimit both = {limit, limit};
      setrlimit(RLIMIT_NOFILE, &both);
    }
    execv(program.c_str(), arguments.data());
    _exit(127);
  }
}

ServerProcess::~ServerProcess() {
  if (!Ended()) {
    kill(pid_, SIGKILL);
    AwaitExit();
  }
  unlink(log_path_.c_str());
  unlink(port_path_.c_str());
}

bool ServerProcess::Ended() {
  if (exit_ >= 0) return true;
  int status = 0;
  if (waitpid(pid_, &status, WNOHANG) != pid_) return false;
  exit_ = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return true;
}

std::string ServerProcess::AwaitPort() {
  while (access(port_path_.c_str(), R_OK) != 0) {
    if (Ended()) {
      ADD_FAILURE() << "the server ended: " << Log();
      return "";
    }
    absl::SleepFor(kPoll);
  }
  std::string port = ReadFile(port_path_);
  if (!port.empty() && port.back() == '\n') port.pop_back();
  return port;
}

void ServerProcess::Signal(int signal) { kill(pid_, signal); }

int ServerProcess::AwaitExit(absl::Duration timeout) {
  const absl::Time end = absl::Now() + timeout;
  while (!Ended() && absl::Now() < end) absl::SleepFor(kPoll);
  return exit_;
}

std::string ServerProcess::Log() const { return ReadFile(log_path_); }

}  // namespace esper::testing
