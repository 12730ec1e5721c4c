#ifndef ESPER_TESTS_SERVER_FAKE_CLOCK_H_
#define ESPER_TESTS_SERVER_FAKE_CLOCK_H_

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "server/clock.h"

namespace esper::testing {

// A clock that moves when told, and that can hold up who asks it: with it a
// test stops a worker in the middle of its work. Thread-safe.
class FakeClock {
 public:
  server::Clock AsClock() {
    return [this] { return Now(); };
  }

  absl::Time Now() {
    absl::MutexLock lock(&mu_);
    ++asked_;
    mu_.Await(absl::Condition(
        +[](bool* held) { return !*held; }, &held_));
    return now_;
  }

  void Advance(absl::Duration by) {
    absl::MutexLock lock(&mu_);
    now_ += by;
  }

  // From now on whoever asks waits until `Release`.
  void Hold() {
    absl::MutexLock lock(&mu_);
    held_ = true;
    asked_ = 0;
  }
  // Returns once somebody has asked since `Hold`.
  void AwaitAsked() {
    absl::MutexLock lock(&mu_);
    mu_.Await(absl::Condition(
        +[](int* asked) { return *asked > 0; }, &asked_));
  }
  void Release() {
    absl::MutexLock lock(&mu_);
    held_ = false;
  }

 private:
  absl::Mutex mu_;
  absl::Time now_ ABSL_GUARDED_BY(mu_) = absl::UnixEpoch();
  bool held_ ABSL_GUARDED_BY(mu_) = false;
  int asked_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace esper::testing
#endif  // ESPER_TESTS_SERVER_FAKE_CLOCK_H_
