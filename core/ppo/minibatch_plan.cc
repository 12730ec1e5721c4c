#include "core/ppo/minibatch_plan.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "c10/util/Exception.h"
#include "core/error.h"
#include "core/policy/counter_noise.h"

namespace esper::ppo {
namespace {

void Require(bool good, const std::string& field, const std::string& message,
             const std::string& hint) {
  if (good) return;
  ErrorDetail detail;
  detail.reason = "MALFORMED_REQUEST";
  detail.field = field;
  detail.hint = hint;
  throw InvalidArgumentError(detail, message);
}

uint32_t Low(uint64_t x) { return static_cast<uint32_t>(x); }
uint32_t High(uint64_t x) { return static_cast<uint32_t>(x >> 32); }

// Rows are sorted by this number.
uint64_t KeyOf(uint64_t seed, uint64_t pass, uint64_t row) {
  const auto words = policy::Philox4x32(
      {Low(row), High(row), Low(pass), High(pass)}, {Low(seed), High(seed)});
  return static_cast<uint64_t>(words[1]) << 32 | words[0];
}

}  // namespace

void UpdateShape::Check(int64_t rows, double value_clip) const {
  Require(passes >= 1, "passes",
          absl::StrCat("passes = ", passes, " is below 1."),
          "Ask for at least one pass.");
  Require(minibatches >= 1 && minibatches <= rows, "minibatches",
          absl::StrCat("minibatches = ", minibatches,
                       " is not in [1, rows of the batch = ", rows, "]."),
          "A minibatch holds whole episodes; collect more, or ask for fewer.");
  Require(value_clip <= 0 || passes * minibatches == 1, "value_clip",
          absl::StrCat("value_clip = ", value_clip, " with ",
                       passes * minibatches, " steps in one update."),
          "Clip values only in updates of one pass and one minibatch.");
}

MinibatchPlan::MinibatchPlan(int64_t rows, int64_t minibatches, uint64_t seed)
    : rows_(rows), minibatches_(minibatches), seed_(seed) {
  TORCH_CHECK(minibatches >= 1 && minibatches <= rows, minibatches,
              " minibatches of ", rows, " rows");
}

std::vector<int64_t> MinibatchPlan::Rows(int64_t pass,
                                         int64_t minibatch) const {
  TORCH_CHECK(minibatch >= 0 && minibatch < minibatches_, "minibatch ",
              minibatch, " of ", minibatches_);
  std::vector<std::pair<uint64_t, int64_t>> order;
  for (int64_t row = 0; row < rows_; ++row) {
    order.emplace_back(
        KeyOf(seed_, static_cast<uint64_t>(pass), static_cast<uint64_t>(row)),
        row);
  }
  std::sort(order.begin(), order.end());
  // The first `rest` minibatches hold one row more.
  const int64_t size = rows_ / minibatches_, rest = rows_ % minibatches_;
  const int64_t from = minibatch * size + std::min(minibatch, rest);
  const int64_t to = from + size + (minibatch < rest ? 1 : 0);
  std::vector<int64_t> rows;
  for (int64_t i = from; i < to; ++i) rows.push_back(order[i].second);
  std::sort(rows.begin(), rows.end());
  return rows;
}

}  // namespace esper::ppo
