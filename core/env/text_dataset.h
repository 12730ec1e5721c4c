#ifndef ESPER_CORE_ENV_TEXT_DATASET_H_
#define ESPER_CORE_ENV_TEXT_DATASET_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "core/env/dataset.h"
#include "core/env/text_corpus.h"

namespace esper::env {

// Windows of a text for predicting each next token: inputs int64 [B, T] and
// labels int64 [B, T], the same one token later.
//
// Windows follow each other without overlap inside each stretch; the rest of a
// stretch, shorter than a window, is left out. They are numbered in a shuffled
// order, so that any prefix is a fair sample. For training each window is
// moved forward by up to T - 1 tokens, as far as its stretch reaches, so that
// the host sees every alignment of the text.
class TextDataset : public Dataset {
 public:
  // `ranges` lie in the corpus; those shorter than T + 1 give no window.
  TextDataset(std::shared_ptr<const TextCorpus> corpus,
              const std::vector<TokenRange>& ranges, int64_t window);

  int64_t size() const override {
    return static_cast<int64_t>(windows_.size());
  }
  Batch Get(c10::IntArrayRef rows) const override;
  Batch GetForTraining(c10::IntArrayRef rows, uint64_t key) const override;

 private:
  struct Window {
    int64_t start;
    int64_t moves;  // Places that training may put it at, from `start` on; > 0.
  };

  Batch Make(const std::vector<int64_t>& starts) const;

  const std::shared_ptr<const TextCorpus> corpus_;
  const int64_t length_;  // T.
  std::vector<Window> windows_;
};

}  // namespace esper::env
#endif  // ESPER_CORE_ENV_TEXT_DATASET_H_
