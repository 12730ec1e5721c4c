#include "server/state_pool.h"

#include "ATen/ops/empty.h"
#include "ATen/ops/index_select.h"
#include "c10/core/GradMode.h"
#include "c10/util/Exception.h"

namespace esper::server {

StatePool::StatePool(int64_t layers, int64_t hidden, int64_t capacity)
    : capacity_(capacity),
      h_(at::empty({layers, capacity, hidden}, at::kFloat)),
      c_(at::empty({layers, capacity, hidden}, at::kFloat)) {
  TORCH_CHECK(layers > 0 && hidden > 0 && capacity > 0,
              "a state pool needs layers, width and rows");
}

std::optional<int64_t> StatePool::Allocate() {
  int64_t row = -1;
  {
    absl::MutexLock lock(&mu_);
    if (!freed_.empty()) {
      row = freed_.back();
      freed_.pop_back();
    } else if (never_used_ < capacity_) {
      row = never_used_++;
    } else {
      return std::nullopt;
    }
  }
  c10::NoGradGuard no_grad;
  h_.select(1, row).zero_();
  c_.select(1, row).zero_();
  return row;
}

void StatePool::Free(int64_t row) {
  absl::MutexLock lock(&mu_);
  TORCH_CHECK(row >= 0 && row < never_used_, "no such row: ", row);
  freed_.push_back(row);
}

std::pair<at::Tensor, at::Tensor> StatePool::Gather(
    const at::Tensor& rows) const {
  return {at::index_select(h_, 1, rows), at::index_select(c_, 1, rows)};
}

void StatePool::Scatter(const at::Tensor& rows, const at::Tensor& h,
                        const at::Tensor& c) {
  c10::NoGradGuard no_grad;
  h_.index_copy_(1, rows, h);
  c_.index_copy_(1, rows, c);
}

int64_t StatePool::available() const {
  absl::MutexLock lock(&mu_);
  return capacity_ - never_used_ + static_cast<int64_t>(freed_.size());
}

}  // namespace esper::server
