#include "server/state_pool.h"

#include <algorithm>

#include "c10/util/Exception.h"

namespace esper::server {
namespace {

// Memory is not touched before it is used.
std::unique_ptr<float[]> Allocated(int64_t layers, int64_t hidden,
                                   int64_t capacity) {
  TORCH_CHECK(layers > 0 && hidden > 0 && capacity > 0,
              "a state pool needs layers, width and rows");
  return std::unique_ptr<float[]>(new float[capacity * 2 * layers * hidden]);
}

}  // namespace

StatePool::StatePool(int64_t layers, int64_t hidden, int64_t capacity)
    : capacity_(capacity),
      row_size_(layers * hidden),
      data_(Allocated(layers, hidden, capacity)) {}

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
  std::fill_n(Row(row), 2 * row_size_, 0.0f);
  return row;
}

void StatePool::Free(int64_t row) {
  absl::MutexLock lock(&mu_);
  TORCH_CHECK(row >= 0 && row < never_used_, "no such row: ", row);
  freed_.push_back(row);
}

void StatePool::Write(int64_t row, const float* next_h, const float* next_c) {
  float* next = std::copy_n(next_h, row_size_, Row(row));
  std::copy_n(next_c, row_size_, next);
}

int64_t StatePool::available() const {
  absl::MutexLock lock(&mu_);
  return capacity_ - never_used_ + static_cast<int64_t>(freed_.size());
}

}  // namespace esper::server
