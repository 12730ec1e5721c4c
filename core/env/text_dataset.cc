#include "core/env/text_dataset.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <utility>

#include "core/env/data.h"

namespace esper::env {
namespace {

// Of the order of windows, the same in every run.
constexpr uint64_t kOrderSeed = 20240617;

}  // namespace

TextDataset::TextDataset(std::shared_ptr<const TextCorpus> corpus,
                         const std::vector<TokenRange>& ranges, int64_t window)
    : corpus_(std::move(corpus)), length_(window) {
  TORCH_CHECK(window >= 1, "a window of ", window, " tokens");
  std::vector<Window> windows;
  for (const auto& [first, end] : ranges) {
    TORCH_CHECK(first >= 0 && first <= end && end <= corpus_->size(), "tokens ",
                first, " to ", end, " of ", corpus_->size());
    // The last label lies one token behind the window.
    const int64_t last = end - length_ - 1;
    for (int64_t start = first; start <= last; start += length_) {
      windows.push_back({start, std::min(length_, last - start + 1)});
    }
  }
  const auto count = static_cast<int64_t>(windows.size());
  for (const int64_t i : EpochOrder(count, kOrderSeed, /*epoch=*/1)) {
    windows_.push_back(windows[i]);
  }
}

Batch TextDataset::Get(c10::IntArrayRef rows) const {
  std::vector<int64_t> starts;
  for (const int64_t row : rows) starts.push_back(windows_.at(row).start);
  return Make(starts);
}

Batch TextDataset::GetForTraining(c10::IntArrayRef rows, uint64_t key) const {
  std::vector<int64_t> starts;
  for (const int64_t row : rows) {
    const Window& window = windows_.at(row);
    const uint64_t bits = StreamBits(key, row) >> 32;
    starts.push_back(window.start +
                     static_cast<int64_t>((bits * window.moves) >> 32));
  }
  return Make(starts);
}

Batch TextDataset::Make(const std::vector<int64_t>& starts) const {
  const auto rows = static_cast<int64_t>(starts.size());
  Batch batch = {at::empty({rows, length_}, at::kLong),
                 at::empty({rows, length_}, at::kLong)};
  int64_t* inputs = batch.inputs.data_ptr<int64_t>();
  int64_t* labels = batch.labels.data_ptr<int64_t>();
  for (const int64_t start : starts) {
    const uint8_t* tokens = corpus_->tokens.data() + start;
    inputs = std::copy(tokens, tokens + length_, inputs);
    labels = std::copy(tokens + 1, tokens + 1 + length_, labels);
  }
  return batch;
}

}  // namespace esper::env
