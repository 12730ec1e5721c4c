#ifndef ESPER_TESTS_SERVER_SERVER_PROCESS_H_
#define ESPER_TESTS_SERVER_SERVER_PROCESS_H_

#include <sys/types.h>

#include <string>
#include <vector>

#include "absl/time/time.h"

namespace esper::testing {

// The server's program as a child process, with its standard error in a file.
// The destructor kills what is still running.
class ServerProcess {
 public:
  // `flags` as on the command line. A file name in --port_file is added if
  // `with_port_file`. `max_descriptors`: its limit of open files, 0: ours.
  explicit ServerProcess(std::vector<std::string> flags,
                         bool with_port_file = true, int max_descriptors = 0);
  ~ServerProcess();

  ServerProcess(const ServerProcess&) = delete;
  ServerProcess& operator=(const ServerProcess&) = delete;

  // What the port file holds, without its newline, once it is there; empty if
  // the process ends first.
  std::string AwaitPort();
  void Signal(int signal);
  // Exit status; 128 + signal if a signal ended it; -1 if it has not ended
  // within `timeout`.
  int AwaitExit(absl::Duration timeout = absl::Seconds(60));
  // What it has written to standard error so far.
  std::string Log() const;

 private:
  // Whether it has ended; fills `exit_`.
  bool Ended();

  std::string log_path_;
  std::string port_path_;
  pid_t pid_ = -1;
  int exit_ = -1;
};

}  // namespace esper::testing
#endif  // ESPER_TESTS_SERVER_SERVER_PROCESS_H_
