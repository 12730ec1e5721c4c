#include "core/policy/graph_bytes.h"

#include <algorithm>

namespace esper::policy {
namespace {

// Tensors as large as all choices that masks, floors, log-probabilities and
// entropies save.
constexpr int64_t kChoiceTensors = 10;
// What does not grow with the steps: nodes of the graph, small tensors.
constexpr int64_t kFixedBytes = 256 << 10;

}  // namespace

int64_t EvaluationGraphBytes(const PolicySpec& spec,
                             TrainingPrecision precision, int64_t rows,
                             int64_t steps) {
  const int64_t hidden = spec.hidden_dim;
  const int64_t half = hidden / 2, quarter = hidden / 4, eighth = hidden / 8;
  const int64_t embedded =
      spec.categorical.has_value()
          ? spec.categorical_count() * (spec.categorical->width + 2)
          : 0;
  const int64_t input = spec.observation_width() + embedded;
  // Floats of one step. An operand that was rounded is kept beside the number.
  int64_t floats = input + 2 * spec.feature_dim;
  int64_t operands = input;
  if (spec.feature_dim != hidden) {
    floats += hidden;
    operands += spec.feature_dim;
  }
  // Gates, cells, outputs, and what goes on.
  floats += spec.lstm_layers * 7 * hidden;
  operands += spec.lstm_layers * hidden + hidden;
  int64_t widest = 0;
  for (const HeadSpec& head : spec.heads) {
    for (const int64_t width : head.hidden) floats += width;
    for (size_t i = 1; i < head.hidden.size(); ++i) {
      operands += head.hidden[i - 1];
    }
    widest = std::max(widest, head.size);
  }
  floats += kChoiceTensors * widest * spec.num_heads();
  const int64_t tail = 2 * half + 2 * quarter + eighth;
  floats += tail;
  operands += half + quarter;
  if (!spec.q_head.empty()) {
    floats += tail;
    operands += hidden + half + quarter;
  }
  if (spec.contribution_outputs > 0) {
    floats += 4 * half + quarter;
    operands += hidden + half;
  }
  if (precision == TrainingPrecision::kBf16) floats += operands;
  return rows * steps * floats * static_cast<int64_t>(sizeof(float)) +
         kFixedBytes;
}

}  // namespace esper::policy
