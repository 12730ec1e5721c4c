#ifndef ESPER_SERVER_STATE_POOL_H_
#define ESPER_SERVER_STATE_POOL_H_

#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace esper::server {

// Recurrent state of all open episodes: one row each of two tensors that never
// move. Rows are handed out zeroed, in constant time, whatever was in them.
//
// Thread safety: any thread may call any method, as long as a row is read or
// written by one thread at a time (the episode table sees to that). Tensor
// work takes no lock.
class StatePool {
 public:
  // layers L, hidden H, rows `capacity`; all > 0. Memory is taken as rows are
  // first used.
  StatePool(int64_t layers, int64_t hidden, int64_t capacity);

  // A zeroed row; nothing if all are taken.
  std::optional<int64_t> Allocate() ABSL_LOCKS_EXCLUDED(mu_);
  // Gives back a row that `Allocate` returned.
  void Free(int64_t row) ABSL_LOCKS_EXCLUDED(mu_);

  // rows: int64 [N], host. Returns h and c, float32 [L, N, H] each, host;
  // copies.
  std::pair<at::Tensor, at::Tensor> Gather(const at::Tensor& rows) const;
  // Writes h and c, float32 [L, N, H] each, to `rows`, which are all different.
  void Scatter(const at::Tensor& rows, const at::Tensor& h,
               const at::Tensor& c);

  int64_t capacity() const { return capacity_; }
  int64_t available() const ABSL_LOCKS_EXCLUDED(mu_);

 private:
  const int64_t capacity_;
  at::Tensor h_;  // float32 [L, capacity, H], host; no grad.
  at::Tensor c_;  // As h_.

  mutable absl::Mutex mu_;
  std::vector<int64_t> freed_ ABSL_GUARDED_BY(mu_);  // Given back; a stack.
  int64_t never_used_ ABSL_GUARDED_BY(mu_) = 0;      // From here on: untouched.
};

}  // namespace esper::server
#endif  // ESPER_SERVER_STATE_POOL_H_
