#include "server/batch_rows.h"

#include <cstring>

#include "ATen/ops/from_blob.h"

namespace esper::server {
namespace {

static_assert(sizeof(bool) == 1, "masks are copied byte by byte");

// Appends rows of `x`, bytes or numbers, along its first axis.
template <typename To, typename From>
void Append(const at::Tensor& x, const std::vector<int64_t>& rows,
            std::vector<To>* out) {
  if (!x.defined()) return;
  const at::Tensor whole = x.contiguous();
  const int64_t width = whole.numel() / whole.size(0);
  const From* data = whole.const_data_ptr<From>();
  const size_t begin = out->size();
  out->resize(begin + rows.size() * width);
  To* to = out->data() + begin;
  for (const int64_t row : rows) {
    std::memcpy(to, data + row * width, width * sizeof(From));
    to += width;
  }
}

const bool* Bools(const std::vector<char>& bytes) {
  return bytes.empty() ? nullptr : reinterpret_cast<const bool*>(bytes.data());
}

}  // namespace

void BatchRows::Clear() {
  rows_ = 0;
  observations_.clear();
  categorical_.clear();
  masks_.clear();
  conditional_.clear();
  h_.clear();
  c_.clear();
  keys_.clear();
}

void BatchRows::Add(const at::Tensor& observations,
                    const at::Tensor& categorical,
                    const codec::ActionMasks* masks,
                    const std::vector<int64_t>& rows) {
  if (rows.empty()) return;
  rows_ += static_cast<int64_t>(rows.size());
  Append<float, float>(observations, rows, &observations_);
  Append<int64_t, int64_t>(categorical, rows, &categorical_);
  if (masks == nullptr) return;
  Append<char, bool>(masks->heads, rows, &masks_);
  Append<char, bool>(masks->conditional, rows, &conditional_);
}

void BatchRows::AddState(const float* h, const float* c) {
  h_.push_back(h);
  c_.push_back(c);
}

policy::NetworkStep BatchRows::Step(const ppo::ObservationScaler& scaler,
                                    int64_t hidden) {
  policy::NetworkStep step;
  step.rows = rows_;
  step.observations = observations_.data();
  if (!scaler.identity()) {
    const int64_t width = static_cast<int64_t>(observations_.size()) / rows_;
    scaled_ = scaler
                  .Apply(at::from_blob(observations_.data(), {rows_, width},
                                       at::kFloat))
                  .contiguous();
    step.observations = scaled_.const_data_ptr<float>();
  }
  step.categorical = categorical_.data();
  step.h = h_.data();
  step.c = c_.data();
  step.state_stride = hidden;
  return step;
}

policy::ChoiceInputs BatchRows::Choices() const {
  policy::ChoiceInputs choices;
  choices.rows = rows_;
  choices.masks = Bools(masks_);
  choices.conditional = Bools(conditional_);
  choices.keys = keys_.data();
  return choices;
}

}  // namespace esper::server
