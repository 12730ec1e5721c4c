#ifndef ESPER_TESTS_TESTING_TCP_PROXY_H_
#define ESPER_TESTS_TESTING_TCP_PROXY_H_

#include <atomic>
#include <string>
#include <thread>  // NOLINT: joined in the destructor.
#include <vector>

namespace esper::testing {

// Carries TCP connections of this machine to another port of it, and breaks
// them when told. Thread-safe.
class TcpProxy {
 public:
  // Listens on a free port of 127.0.0.1.
  explicit TcpProxy(int target_port);
  ~TcpProxy();

  TcpProxy(const TcpProxy&) = delete;
  TcpProxy& operator=(const TcpProxy&) = delete;

  std::string address() const;

  // Resets every open connection; bytes on their way are lost.
  void Cut() { ++cuts_wanted_; }
  // Refuses new connections, and resets the open ones, until `up`.
  void SetUp(bool up) { up_ = up; }
  // Where new connections go.
  void SetTarget(int port) { target_ = port; }

  // Connections that were reset so far.
  int cut() const { return cut_; }

 private:
  struct Pair {
    int client = -1;
    int server = -1;
  };

  void Work();
  void Listen();
  void Accept();
  void Reset(Pair* pair);
  void ResetAll();

  int port_ = 0;
  std::atomic<int> target_;
  std::atomic<bool> up_{true};
  std::atomic<bool> stop_{false};
  std::atomic<int> cuts_wanted_{0};
  std::atomic<int> cut_{0};

  // The thread's own.
  int listener_ = -1;
  int cuts_done_ = 0;
  std::vector<Pair> pairs_;
  std::thread thread_;
};

}  // namespace esper::testing
#endif  // ESPER_TESTS_TESTING_TCP_PROXY_H_
