#include "core/policy/packed_network.h"

#include <algorithm>
#include <cstring>

#include "ATen/ops/cat.h"

namespace esper::policy {
namespace {

constexpr float kNormEpsilon = 1e-5f;

std::vector<float> Numbers(const at::Tensor& x) {
  const at::Tensor host = x.contiguous();
  const float* data = host.const_data_ptr<float>();
  return std::vector<float>(data, data + host.numel());
}

void Grow(std::vector<float>* x, int64_t size) {
  if (static_cast<int64_t>(x->size()) < size) x->resize(size);
}

void CopyFloats(const float* from, int64_t count, float* to) {
  std::memcpy(to, from, count * sizeof(float));
}

}  // namespace

PackedNetwork::PackedNetwork(const PolicySpec& spec,
                             const NetworkWeights& weights,
                             InferencePrecision precision,
                             const PackedKernels& kernels)
    : kernels_(&kernels),
      precision_(precision),
      observation_width_(spec.observation_width()),
      positions_(spec.categorical_count()),
      hidden_(spec.hidden_dim) {
  if (weights.embedding.defined()) {
    embedding_ = Numbers(weights.embedding);
    embedding_width_ = weights.embedding.size(1);
    null_index_ = weights.embedding.size(0) - 1;
  }
  feature_ = Pack(weights.feature);
  feature_norm_ = PackNorm(weights.feature_norm);
  if (weights.input_projection.weight.defined()) {
    input_projection_ = Pack(weights.input_projection);
  }
  for (const LstmLayerWeights& layer : weights.lstm) {
    layers_.push_back(
        {Pack({at::cat({layer.weight_ih, layer.weight_hh}, 1), layer.bias}),
         PackNorm(layer.norm)});
  }
  int64_t joined = 0;  // Outputs of the heads' first layers.
  for (size_t k = 0; k < weights.head_layers.size(); ++k) {
    Head head;
    head.reads_trunk = weights.first_widths[k] == 0;
    head.first_offset = joined;
    joined += weights.first_widths[k];
    const std::vector<LinearWeights>& layers = weights.head_layers[k];
    for (size_t i = 0; i < layers.size(); ++i) {
      head.layers.push_back(Pack(layers[i], /*output=*/i + 1 == layers.size()));
    }
    head.gaussian = weights.gaussian[k];
    head.size = spec.heads[k].size;
    int64_t& width = head.gaussian ? means_width_ : logits_width_;
    head.offset = width;
    width += head.size;
    heads_.push_back(std::move(head));
  }
  const LinearWeights& first = weights.first_layers;
  if (joined > 0) {
    heads_first_ = Pack(
        {first.weight.narrow(0, 0, joined), first.bias.narrow(0, 0, joined)});
  }
  const int64_t rest = first.weight.size(0) - joined;
  value_first_ = Pack({first.weight.narrow(0, joined, rest),
                       first.bias.narrow(0, joined, rest)});
  value_first_norm_ = PackNorm(weights.value.first_norm);
  value_second_ = Pack(weights.value.second);
  value_second_norm_ = PackNorm(weights.value.second_norm);
  value_third_ = Pack(weights.value.third);
  value_last_ = Pack(weights.value.last, /*output=*/true);

  widest_ = std::max(
      {feature_.padded_outputs(), hidden_, value_first_.padded_outputs(),
       value_second_.padded_outputs(), value_third_.padded_outputs()});
  for (const Head& head : heads_) {
    for (const PackedLinear& layer : head.layers) {
      widest_ = std::max(widest_, layer.padded_outputs());
    }
  }
}

PackedNetwork::Norm PackedNetwork::PackNorm(
    const LayerNormWeights& weights) const {
  return {Numbers(weights.weight), Numbers(weights.bias)};
}

PackedLinear PackedNetwork::Pack(const LinearWeights& weights,
                                 bool output) const {
  return PackedLinear(weights.weight, weights.bias,
                      output ? InferencePrecision::kFp32 : precision_,
                      *kernels_);
}

void PackedNetwork::Apply(const PackedLinear& layer, const float* x,
                          int64_t ldx, int64_t rows, float* y, int64_t ldy,
                          bool relu, NetworkResult* result) const {
  Grow(&result->scratch, layer.ScratchSize(rows));
  layer.Apply(x, ldx, rows, y, ldy, relu, result->scratch.data());
}

void PackedNetwork::Normalize(const Norm& norm, const float* x, int64_t ldx,
                              int64_t rows, bool relu, float* y, int64_t ldy,
                              const float* residual, int64_t ldr) const {
  LayerNormCall call;
  call.x = x;
  call.ldx = ldx;
  call.rows = rows;
  call.width = static_cast<int64_t>(norm.weight.size());
  call.weight = norm.weight.data();
  call.bias = norm.bias.data();
  call.epsilon = kNormEpsilon;
  call.relu = relu;
  call.residual = residual;
  call.ldr = ldr;
  call.y = y;
  call.ldy = ldy;
  kernels_->layer_norm(call);
}

void PackedNetwork::Embed(const NetworkStep& step,
                          NetworkResult* result) const {
  const int64_t width = observation_width_ + positions_ * embedding_width_;
  Grow(&result->input, step.rows * width);
  for (int64_t row = 0; row < step.rows; ++row) {
    float* to = result->input.data() + row * width;
    CopyFloats(step.observations + row * observation_width_, observation_width_,
               to);
    to += observation_width_;
    for (int64_t s = 0; s < positions_; ++s) {
      const int64_t value = step.categorical[row * positions_ + s];
      const int64_t index = value < 0 ? null_index_ : value;
      CopyFloats(embedding_.data() + index * embedding_width_, embedding_width_,
                 to + s * embedding_width_);
    }
  }
}

void PackedNetwork::RunTrunk(const NetworkStep& step,
                             NetworkResult* result) const {
  const int64_t rows = step.rows;
  const int64_t layers = static_cast<int64_t>(layers_.size());
  Embed(step, result);
  Grow(&result->a, rows * widest_);
  Grow(&result->b, rows * widest_);
  Grow(&result->wide, rows * layers_[0].gates.padded_outputs());
  // The trunk's row holds x, then h of the layer at hand: the gates' input.
  const int64_t stride =
      std::max(2 * hidden_, input_projection_.defined()
                                ? input_projection_.padded_outputs()
                                : 2 * hidden_);
  result->trunk_stride = stride;
  Grow(&result->trunk, rows * stride);
  Grow(&result->h, rows * layers * hidden_);
  Grow(&result->c, rows * layers * hidden_);

  const int64_t width = observation_width_ + positions_ * embedding_width_;
  Apply(feature_, result->input.data(), width, rows, result->a.data(), widest_,
        /*relu=*/false, result);
  float* trunk = result->trunk.data();
  if (input_projection_.defined()) {
    Normalize(feature_norm_, result->a.data(), widest_, rows, /*relu=*/true,
              result->a.data(), widest_);
    Apply(input_projection_, result->a.data(), widest_, rows, trunk, stride,
          /*relu=*/false, result);
  } else {
    Normalize(feature_norm_, result->a.data(), widest_, rows, /*relu=*/true,
              trunk, stride);
  }
  for (int64_t l = 0; l < layers; ++l) RunLayer(step, l, result);
}

void PackedNetwork::RunLayer(const NetworkStep& step, int64_t l,
                             NetworkResult* result) const {
  const int64_t rows = step.rows;
  const int64_t layers = static_cast<int64_t>(layers_.size());
  const int64_t stride = result->trunk_stride;
  float* trunk = result->trunk.data();
  for (int64_t row = 0; row < rows; ++row) {
    float* to = trunk + row * stride + hidden_;
    if (step.h == nullptr || step.h[row] == nullptr) {
      std::memset(to, 0, hidden_ * sizeof(float));
    } else {
      CopyFloats(step.h[row] + l * step.state_stride, hidden_, to);
    }
  }
  const PackedLinear& gates = layers_[l].gates;
  const int64_t ldg = gates.padded_outputs();
  Apply(gates, trunk, stride, rows, result->wide.data(), ldg, /*relu=*/false,
        result);
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t at = (row * layers + l) * hidden_;
    LstmCellCall cell;
    cell.gates = result->wide.data() + row * ldg;
    cell.width = hidden_;
    cell.next_h = result->h.data() + at;
    cell.next_c = result->c.data() + at;
    if (step.c == nullptr || step.c[row] == nullptr) {
      std::memset(cell.next_c, 0, hidden_ * sizeof(float));
      cell.c = cell.next_c;
    } else {
      cell.c = step.c[row] + l * step.state_stride;
    }
    kernels_->lstm_cell(cell);
  }
  Normalize(layers_[l].norm, result->h.data() + l * hidden_, layers * hidden_,
            rows, /*relu=*/false, trunk, stride, /*residual=*/trunk, stride);
}

void PackedNetwork::RunHeads(int64_t rows, NetworkResult* result) const {
  Grow(&result->logits, rows * logits_width_);
  Grow(&result->means, rows * means_width_);
  if (heads_first_.defined()) {
    const int64_t ld = heads_first_.padded_outputs();
    Grow(&result->first, rows * ld);
    Apply(heads_first_, result->trunk.data(), result->trunk_stride, rows,
          result->first.data(), ld, /*relu=*/true, result);
  }
  for (const Head& head : heads_) RunHead(head, rows, result);
}

void PackedNetwork::RunHead(const Head& head, int64_t rows,
                            NetworkResult* result) const {
  float* buffers[2] = {result->a.data(), result->b.data()};
  const float* x = result->trunk.data();
  int64_t ldx = result->trunk_stride;
  if (!head.reads_trunk) {
    x = result->first.data() + head.first_offset;
    ldx = heads_first_.padded_outputs();
  }
  for (size_t i = 0; i < head.layers.size(); ++i) {
    float* y = buffers[i % 2];
    Apply(head.layers[i], x, ldx, rows, y, widest_,
          /*relu=*/i + 1 < head.layers.size(), result);
    x = y;
    ldx = widest_;
  }
  std::vector<float>& out = head.gaussian ? result->means : result->logits;
  const int64_t width = head.gaussian ? means_width_ : logits_width_;
  for (int64_t row = 0; row < rows; ++row) {
    CopyFloats(x + row * ldx, head.size,
               out.data() + row * width + head.offset);
  }
}

void PackedNetwork::RunV(int64_t rows, NetworkResult* result) const {
  Grow(&result->values, rows);
  float* a = result->a.data();
  float* b = result->b.data();
  Apply(value_first_, result->trunk.data(), result->trunk_stride, rows, a,
        widest_, /*relu=*/false, result);
  Normalize(value_first_norm_, a, widest_, rows, /*relu=*/true, a, widest_);
  Apply(value_second_, a, widest_, rows, b, widest_, /*relu=*/false, result);
  Normalize(value_second_norm_, b, widest_, rows, /*relu=*/true, b, widest_);
  Apply(value_third_, b, widest_, rows, a, widest_, /*relu=*/true, result);
  Apply(value_last_, a, widest_, rows, b, widest_, /*relu=*/false, result);
  for (int64_t row = 0; row < rows; ++row) {
    result->values[row] = b[row * widest_];
  }
}

void PackedNetwork::RunValue(const NetworkStep& step,
                             NetworkResult* result) const {
  RunTrunk(step, result);
  RunV(step.rows, result);
}

void PackedNetwork::Run(const NetworkStep& step, NetworkResult* result) const {
  RunTrunk(step, result);
  RunHeads(step.rows, result);
  RunV(step.rows, result);
}

}  // namespace esper::policy
