#include "core/policy/packed_policy.h"

#include <algorithm>

#include "ATen/ops/empty.h"
#include "ATen/ops/from_blob.h"
#include "ATen/ops/zeros.h"
#include "core/policy/input_checks.h"

namespace esper::policy {
namespace {

// [L, rows, H] of state rows that may be null.
at::Tensor Gathered(const PolicySpec& spec, const NetworkStep& step,
                    const float* const* rows) {
  const int64_t hidden = spec.hidden_dim;
  at::Tensor out = at::zeros({spec.lstm_layers, step.rows, hidden}, at::kFloat);
  float* to = out.mutable_data_ptr<float>();
  for (int64_t l = 0; l < spec.lstm_layers; ++l) {
    for (int64_t row = 0; row < step.rows; ++row, to += hidden) {
      if (rows == nullptr || rows[row] == nullptr) continue;
      std::copy_n(rows[row] + l * step.state_stride, hidden, to);
    }
  }
  return out;
}

bool StateIsFinite(const PackedKernels& kernels, const PolicySpec& spec,
                   const NetworkStep& step, const float* const* rows) {
  if (rows == nullptr) return true;
  for (int64_t row = 0; row < step.rows; ++row) {
    if (rows[row] == nullptr) continue;
    for (int64_t l = 0; l < spec.lstm_layers; ++l) {
      if (!kernels.all_finite(rows[row] + l * step.state_stride,
                              spec.hidden_dim)) {
        return false;
      }
    }
  }
  return true;
}

}  // namespace

PackedPolicy::PackedPolicy(const PolicySpec& spec, const HeadLayout& layout,
                           const NetworkWeights& weights,
                           InferencePrecision precision,
                           const PackedKernels& kernels)
    : spec_(spec),
      observation_width_(spec.observation_width()),
      positions_(spec.categorical_count()),
      cardinality_(spec.categorical ? spec.categorical->cardinality : 0),
      network_(spec, weights, precision, kernels),
      sampler_(spec, layout) {
  if (weights.log_std.defined()) {
    const at::Tensor log_std = weights.log_std.contiguous();
    const float* data = log_std.const_data_ptr<float>();
    log_std_.assign(data, data + log_std.numel());
  }
}

bool PackedPolicy::InputsAreFine(const NetworkStep& step) const {
  const PackedKernels& kernels = network_.kernels();
  if (!kernels.all_finite(step.observations, step.rows * observation_width_)) {
    return false;
  }
  if (!StateIsFinite(kernels, spec_, step, step.h) ||
      !StateIsFinite(kernels, spec_, step, step.c)) {
    return false;
  }
  const int64_t* values = step.categorical;
  return std::all_of(values, values + step.rows * positions_,
                     [&](int64_t x) { return x >= -1 && x < cardinality_; });
}

void PackedPolicy::CheckInputs(const NetworkStep& step) const {
  if (InputsAreFine(step)) return;
  // Finds what is wrong, and throws.
  at::Tensor categorical;
  if (positions_ > 0) {
    categorical = at::from_blob(const_cast<int64_t*>(step.categorical),
                                {step.rows, 1, positions_}, at::kLong);
  }
  CheckInputValues(
      spec_,
      at::from_blob(const_cast<float*>(step.observations),
                    {step.rows, 1, observation_width_}, at::kFloat),
      categorical,
      {Gathered(spec_, step, step.h), Gathered(spec_, step, step.c)});
}

void PackedPolicy::Act(const NetworkStep& step, ChoiceInputs choices,
                       const FloorSettings& floors,
                       ActingResult* result) const {
  CheckInputs(step);
  network_.Run(step, &result->network);
  choices.rows = step.rows;
  choices.logits = result->network.logits.data();
  choices.means = result->network.means.data();
  choices.log_std = log_std_.data();
  sampler_.Sample(choices, floors, &result->choices);
}

void PackedPolicy::WarmUp(int64_t max_rows) const {
  const bool every_size = network_.prepares_sizes();
  NetworkResult result;
  for (int64_t rows = 1;; rows *= 2) {
    const std::vector<float> observations(rows * observation_width_);
    const std::vector<int64_t> categorical(rows * positions_, -1);
    NetworkStep step;
    step.rows = rows;
    step.observations = observations.data();
    step.categorical = categorical.data();
    network_.Run(step, &result);
    if (!every_size || rows >= max_rows) return;
  }
}

void PackedPolicy::Value(const NetworkStep& step, ActingResult* result) const {
  CheckInputs(step);
  network_.RunValue(step, &result->network);
}

}  // namespace esper::policy
