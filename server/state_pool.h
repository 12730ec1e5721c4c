#ifndef ESPER_SERVER_STATE_POOL_H_
#define ESPER_SERVER_STATE_POOL_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace esper::server {

// Recurrent state of all open episodes: one row each of a block that never
// moves, h and c of all layers together. Rows are handed out zeroed, in
// constant time, whatever was in them.
//
// Thread safety: any thread may call any method, as long as a row is read or
// written by one thread at a time (the episode table sees to that). Copying
// takes no lock.
class StatePool {
 public:
  // layers L, hidden H, rows `capacity`; all > 0. Memory is taken as rows are
  // first used.
  StatePool(int64_t layers, int64_t hidden, int64_t capacity);

  // A zeroed row; nothing if all are taken.
  std::optional<int64_t> Allocate() ABSL_LOCKS_EXCLUDED(mu_);
  // Gives back a row that `Allocate` returned.
  void Free(int64_t row) ABSL_LOCKS_EXCLUDED(mu_);

  // h and c of one row, float32 [L, H] each; valid while the pool lives.
  const float* h(int64_t row) const {
    return data_.get() + row * 2 * row_size_;
  }
  const float* c(int64_t row) const { return h(row) + row_size_; }
  // The values after a step, [L, H] each.
  void Write(int64_t row, const float* next_h, const float* next_c);

  int64_t row_size() const { return row_size_; }  // L * H.
  int64_t capacity() const { return capacity_; }
  int64_t available() const ABSL_LOCKS_EXCLUDED(mu_);

 private:
  float* Row(int64_t row) { return data_.get() + row * 2 * row_size_; }

  const int64_t capacity_;
  const int64_t row_size_;
  const std::unique_ptr<float[]> data_;  // [capacity, 2, L, H]: h, then c.

  mutable absl::Mutex mu_;
  std::vector<int64_t> freed_ ABSL_GUARDED_BY(mu_);  // Given back; a stack.
  int64_t never_used_ ABSL_GUARDED_BY(mu_) = 0;      // From here on: untouched.
};

}  // namespace esper::server
#endif  // ESPER_SERVER_STATE_POOL_H_
