#include "server/state_pool.h"

#include <algorithm>

#include "ATen/ops/empty.h"
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
    : layers_(layers),
      hidden_(hidden),
      capacity_(capacity),
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
  std::fill_n(h(row), 2 * row_size_, 0.0f);
  return row;
}

void StatePool::Free(int64_t row) {
  absl::MutexLock lock(&mu_);
  TORCH_CHECK(row >= 0 && row < never_used_, "no such row: ", row);
  freed_.push_back(row);
}

void StatePool::Write(int64_t row, const float* next_h, const float* next_c) {
  std::copy_n(next_h, row_size_, h(row));
  std::copy_n(next_c, row_size_, c(row));
}

std::pair<at::Tensor, at::Tensor> StatePool::Gather(
    const at::Tensor& rows) const {
  const int64_t count = rows.numel();
  const int64_t* row = rows.const_data_ptr<int64_t>();
  std::pair<at::Tensor, at::Tensor> state = {
      at::empty({layers_, count, hidden_}, at::kFloat),
      at::empty({layers_, count, hidden_}, at::kFloat)};
  float* out_h = state.first.mutable_data_ptr<float>();
  float* out_c = state.second.mutable_data_ptr<float>();
  for (int64_t l = 0; l < layers_; ++l) {
    for (int64_t i = 0; i < count; ++i) {
      const float* from = data_.get() + row[i] * 2 * row_size_ + l * hidden_;
      out_h = std::copy_n(from, hidden_, out_h);
      out_c = std::copy_n(from + row_size_, hidden_, out_c);
    }
  }
  return state;
}

void StatePool::Scatter(const at::Tensor& rows, const at::Tensor& h,
                        const at::Tensor& c) {
  const int64_t count = rows.numel();
  const int64_t* row = rows.const_data_ptr<int64_t>();
  const at::Tensor from_h = h.contiguous();
  const at::Tensor from_c = c.contiguous();
  TORCH_CHECK(from_h.numel() == count * row_size_ &&
                  from_c.numel() == count * row_size_,
              "states of ", count, " rows are [L, rows, H]");
  const float* in_h = from_h.const_data_ptr<float>();
  const float* in_c = from_c.const_data_ptr<float>();
  for (int64_t l = 0; l < layers_; ++l) {
    for (int64_t i = 0; i < count; ++i) {
      float* to = this->h(row[i]) + l * hidden_;
      std::copy_n(in_h, hidden_, to);
      std::copy_n(in_c, hidden_, to + row_size_);
      in_h += hidden_;
      in_c += hidden_;
    }
  }
}

int64_t StatePool::available() const {
  absl::MutexLock lock(&mu_);
  return capacity_ - never_used_ + static_cast<int64_t>(freed_.size());
}

}  // namespace esper::server
