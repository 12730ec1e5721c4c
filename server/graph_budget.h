#ifndef ESPER_SERVER_GRAPH_BUDGET_H_
#define ESPER_SERVER_GRAPH_BUDGET_H_

#include <atomic>
#include <cstdint>
#include <optional>
#include <utility>

namespace esper::server {

// Memory for graphs that wait for cotangents, of all streams together.
//
// Thread safety: any thread may call any method.
class GraphBudget {
 public:
  // Bytes held until destruction.
  class Share {
   public:
    Share() = default;
    Share(Share&& other) noexcept
        : budget_(std::exchange(other.budget_, nullptr)),
          bytes_(std::exchange(other.bytes_, 0)) {}
    Share& operator=(Share&& other) noexcept {
      std::swap(budget_, other.budget_);
      std::swap(bytes_, other.bytes_);
      return *this;
    }
    ~Share() {
      if (budget_ != nullptr) budget_->used_ -= bytes_;
    }

    int64_t bytes() const { return bytes_; }

   private:
    friend class GraphBudget;
    Share(GraphBudget* budget, int64_t bytes)
        : budget_(budget), bytes_(bytes) {}

    GraphBudget* budget_ = nullptr;
    int64_t bytes_ = 0;
  };

  // At most `bytes` (> 0). Must outlive its shares.
  explicit GraphBudget(int64_t bytes) : bytes_(bytes) {}

  // Nothing if so much is not left.
  std::optional<Share> Take(int64_t bytes) {
    int64_t used = used_;
    do {
      if (bytes > bytes_ - used) return std::nullopt;
    } while (!used_.compare_exchange_weak(used, used + bytes));
    return Share(this, bytes);
  }

  int64_t bytes() const { return bytes_; }
  int64_t used() const { return used_; }

 private:
  const int64_t bytes_;
  std::atomic<int64_t> used_{0};
};

}  // namespace esper::server
#endif  // ESPER_SERVER_GRAPH_BUDGET_H_
