// Options of --config=tsan, and what the race detector must be told of
// libraries that were not built with it.

#include <dlfcn.h>
#include <sanitizer/tsan_interface.h>

#include "absl/synchronization/mutex.h"

extern "C" const char* __tsan_default_options() {
  return "halt_on_error=1:second_deadlock_stack=1:history_size=7";
}

extern "C" const char* __tsan_default_suppressions() {
  // Uninstrumented libraries, with the reason for each.
  return
      // LibTorch counts references by atomics that the detector cannot see, so
      // its frees look unordered with the last use in our code. Accesses made
      // by our own code are still checked.
      "called_from_lib:libtorch_cpu.so\n"
      "called_from_lib:libc10.so\n"
      // At exit, operators that a test registered are unregistered under a
      // mutex of LibTorch's, whose locking the lines above hide.
      "mutex:c10::RegistrationHandleRAII\n"
      // gRPC and Abseil's own search for deadlocks synchronise by atomics and
      // system calls inside of them.
      "called_from_lib:libgrpc.so\n"
      "called_from_lib:libgrpc++.so\n"
      "called_from_lib:libabsl_graphcycles_internal\n"
      // GNU OpenMP synchronises its pool by futexes that it cannot see.
      "called_from_lib:libgomp\n";
}

// Debian's Abseil has no annotations either: without these, all that an
// absl::Mutex guards would look like a race. Each call of the real function is
// told to the detector. The binary's definitions win over the library's.

namespace {

template <typename Function>
Function Real(const char* mangled) {
  return reinterpret_cast<Function>(dlsym(RTLD_NEXT, mangled));
}

}  // namespace

#define ESPER_MUTEX(name) "_ZN4absl7debian35Mutex" name

namespace absl {
ABSL_NAMESPACE_BEGIN

void Mutex::Lock() {
  static const auto real = Real<void (*)(Mutex*)>(ESPER_MUTEX("4LockEv"));
  real(this);
  __tsan_acquire(this);
}

void Mutex::Unlock() {
  static const auto real = Real<void (*)(Mutex*)>(ESPER_MUTEX("6UnlockEv"));
  __tsan_release(this);
  real(this);
}

bool Mutex::TryLock() {
  static const auto real = Real<bool (*)(Mutex*)>(ESPER_MUTEX("7TryLockEv"));
  const bool locked = real(this);
  if (locked) __tsan_acquire(this);
  return locked;
}

void Mutex::ReaderLock() {
  static const auto real =
      Real<void (*)(Mutex*)>(ESPER_MUTEX("10ReaderLockEv"));
  real(this);
  __tsan_acquire(this);
}

void Mutex::ReaderUnlock() {
  static const auto real =
      Real<void (*)(Mutex*)>(ESPER_MUTEX("12ReaderUnlockEv"));
  __tsan_release(this);
  real(this);
}

// Waiting gives the mutex up and takes it back. A condition is evaluated by
// whoever holds the mutex at the time, which may be another thread than the one
// that waits.
struct HeldCondition {
  Mutex* mutex;
  const Condition* condition;

  static bool Holds(HeldCondition* held) {
    __tsan_acquire(held->mutex);
    const bool holds = held->condition->Eval();
    __tsan_release(held->mutex);
    return holds;
  }
};

void Mutex::Await(const Condition& condition) {
  static const auto real = Real<void (*)(Mutex*, const Condition&)>(
      ESPER_MUTEX("5AwaitERKNS0_9ConditionE"));
  HeldCondition held = {this, &condition};
  const Condition wrapped(&HeldCondition::Holds, &held);
  __tsan_release(this);
  real(this, wrapped);
  __tsan_acquire(this);
}

bool Mutex::AwaitWithTimeout(const Condition& condition, Duration timeout) {
  static const auto real = Real<bool (*)(Mutex*, const Condition&, Duration)>(
      ESPER_MUTEX("16AwaitWithTimeoutERKNS0_9ConditionENS0_8DurationE"));
  HeldCondition held = {this, &condition};
  const Condition wrapped(&HeldCondition::Holds, &held);
  __tsan_release(this);
  const bool holds = real(this, wrapped, timeout);
  __tsan_acquire(this);
  return holds;
}

bool Mutex::AwaitWithDeadline(const Condition& condition, Time deadline) {
  static const auto real = Real<bool (*)(Mutex*, const Condition&, Time)>(
      ESPER_MUTEX("17AwaitWithDeadlineERKNS0_9ConditionENS0_4TimeE"));
  HeldCondition held = {this, &condition};
  const Condition wrapped(&HeldCondition::Holds, &held);
  __tsan_release(this);
  const bool holds = real(this, wrapped, deadline);
  __tsan_acquire(this);
  return holds;
}

ABSL_NAMESPACE_END
}  // namespace absl
