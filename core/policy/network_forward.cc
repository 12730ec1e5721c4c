#include "core/policy/network_forward.h"

#include <utility>

#include "ATen/ops/arange.h"
#include "ATen/ops/bernoulli.h"
#include "ATen/ops/cat.h"
#include "ATen/ops/embedding.h"
#include "ATen/ops/empty.h"
#include "ATen/ops/layer_norm.h"
#include "ATen/ops/linear.h"
#include "ATen/ops/stack.h"
#include "ATen/ops/where.h"
#include "ATen/ops/zeros.h"
#include "core/policy/lstm_sequence.h"

namespace esper::policy {
namespace {

constexpr double kNormEpsilon = 1e-5;
constexpr double kDropoutRate = 0.1;

at::Tensor Linear(const at::Tensor& x, const at::Tensor& weight,
                  const at::Tensor& bias, TrainingPrecision precision) {
  return precision == TrainingPrecision::kFp32
             ? at::linear(x, weight, bias)
             : RoundedLinear(x, weight, bias, precision);
}

at::Tensor Apply(const LinearWeights& layer, const at::Tensor& x) {
  return Linear(x, layer.weight, layer.bias, layer.precision);
}

at::Tensor Apply(const LayerNormWeights& layer, const at::Tensor& x) {
  return at::layer_norm(x, layer.weight.sizes(), layer.weight, layer.bias,
                        kNormEpsilon);
}

// What follows the first layer of V and of Q.
at::Tensor ValueTail(const ValueNetWeights& net, const at::Tensor& first) {
  const at::Tensor a = Apply(net.first_norm, first).relu();
  const at::Tensor b = Apply(net.second_norm, Apply(net.second, a)).relu();
  return Apply(net.last, Apply(net.third, b).relu());
}

at::Tensor Embed(const NetworkWeights& weights, const at::Tensor& categorical) {
  const int64_t null_index = weights.embedding.size(0) - 1;
  const at::Tensor index =
      at::where(categorical.lt(0), null_index, categorical);
  return at::embedding(weights.embedding, index).flatten(-2);
}

at::Tensor InitialLayerState(const at::Tensor& state, int64_t layer,
                             int64_t batch, int64_t hidden,
                             const at::Tensor& like) {
  return state.defined() ? state.select(0, layer)
                         : at::zeros({batch, hidden}, like.options());
}

class Packer {
 public:
  Packer(const WeightLookup& lookup, TrainingPrecision precision)
      : lookup_(lookup), precision_(precision) {}

  // A hidden layer.
  LinearWeights Linear(const std::string& name) const {
    return {lookup_(name + ".weight"), lookup_(name + ".bias"), precision_};
  }
  LinearWeights OutputLayer(const std::string& name) const {
    return {lookup_(name + ".weight"), lookup_(name + ".bias")};
  }
  LayerNormWeights LayerNorm(const std::string& name) const {
    return {lookup_(name + ".weight"), lookup_(name + ".bias")};
  }
  LstmLayerWeights Lstm(int64_t layer) const {
    const std::string l = std::to_string(layer);
    const std::string name = "lstm.layers." + l;
    LstmLayerWeights weights;
    weights.weight_ih = lookup_(name + ".weight_ih_l0");
    weights.weight_hh = lookup_(name + ".weight_hh_l0");
    weights.bias =
        lookup_(name + ".bias_ih_l0").add(lookup_(name + ".bias_hh_l0"));
    weights.norm = LayerNorm("lstm.layer_norms." + l);
    weights.precision = precision_;
    return weights;
  }
  // All but the first layer.
  ValueNetWeights ValueNet(const std::string& name) const {
    ValueNetWeights net;
    net.first_norm = LayerNorm(name + ".1");
    net.second = Linear(name + ".3");
    net.second_norm = LayerNorm(name + ".4");
    net.third = Linear(name + ".6");
    net.last = OutputLayer(name + ".8");
    return net;
  }

 private:
  const WeightLookup& lookup_;
  const TrainingPrecision precision_;
};

// All but what is joined or not: `first_fan` holds the first layers.
NetworkWeights Pack(const PolicySpec& spec, const WeightLookup& lookup,
                    TrainingPrecision precision) {
  const Packer packer(lookup, precision);
  NetworkWeights weights;
  if (spec.categorical.has_value()) {
    weights.embedding =
        lookup(spec.categorical->name + "_embedding.embedding.weight");
  }
  weights.feature = packer.Linear("feature_net.0");
  weights.feature_norm = packer.LayerNorm("feature_net.1");
  if (spec.feature_dim != spec.hidden_dim) {
    weights.input_projection = packer.Linear("lstm.input_proj");
  }
  for (int64_t l = 0; l < spec.lstm_layers; ++l) {
    weights.lstm.push_back(packer.Lstm(l));
  }

  std::vector<at::Tensor> log_stds;
  const auto add_first = [&](LinearWeights first, bool relu) {
    weights.first_widths.push_back(first.weight.size(0));
    weights.first_fan.weights.push_back(std::move(first.weight));
    weights.first_fan.biases.push_back(std::move(first.bias));
    weights.first_fan.relu.push_back(relu);
  };
  for (const HeadSpec& head : spec.heads) {
    const auto layer = [&](size_t i) {
      const std::string name = head.name + "_head." + std::to_string(2 * i);
      return i < head.hidden.size() ? packer.Linear(name)
                                    : packer.OutputLayer(name);
    };
    const size_t joined = head.hidden.empty() ? 0 : 1;
    if (joined == 1) {
      add_first(layer(0), /*relu=*/true);
    } else {
      weights.first_widths.push_back(0);
    }
    std::vector<LinearWeights> layers;
    for (size_t i = joined; i <= head.hidden.size(); ++i) {
      layers.push_back(layer(i));
    }
    weights.head_layers.push_back(std::move(layers));
    weights.gaussian.push_back(head.kind == HeadKind::kGaussian);
    if (weights.gaussian.back()) {
      log_stds.push_back(lookup(head.name + "_head.log_std"));
    }
  }
  if (!log_stds.empty()) weights.log_std = at::cat(log_stds);
  add_first(packer.Linear("state_value_head.0"), /*relu=*/false);

  weights.value = packer.ValueNet("state_value_head");
  if (!spec.q_head.empty()) {
    weights.q = packer.ValueNet("q_head");
    weights.q.first = packer.Linear("q_head.0");
  }
  if (spec.contribution_outputs > 0) {
    const std::string name = "contribution_predictor";
    weights.contribution_first = packer.Linear(name + ".0");
    weights.contribution_norm = packer.LayerNorm(name + ".1");
    weights.contribution_second = packer.Linear(name + ".4");
    weights.contribution_last = packer.OutputLayer(name + ".6");
  }
  return weights;
}

}  // namespace

NetworkWeights PackWeights(const PolicySpec& spec, const WeightLookup& lookup) {
  NetworkWeights weights = Pack(spec, lookup, TrainingPrecision::kFp32);
  weights.first_layers = {at::cat(weights.first_fan.weights),
                          at::cat(weights.first_fan.biases)};
  weights.first_fan = {};
  return weights;
}

NetworkWeights TrainingWeights(const PolicySpec& spec,
                               const WeightLookup& lookup,
                               TrainingPrecision precision) {
  return Pack(spec, lookup, precision);
}

TrunkOutput Trunk(const NetworkWeights& weights, const at::Tensor& observations,
                  const at::Tensor& categorical, const RecurrentState& state,
                  const at::Tensor& reset) {
  TrunkOutput out;
  at::Tensor x = observations;
  if (weights.embedding.defined()) {
    out.embeddings = Embed(weights, categorical);
    x = at::cat({x, out.embeddings}, -1);
  }
  out.features = Apply(weights.feature_norm, Apply(weights.feature, x)).relu();
  x = weights.input_projection.weight.defined()
          ? Apply(weights.input_projection, out.features)
          : out.features;
  const int64_t batch = x.size(0);
  const int64_t hidden = x.size(2);
  std::vector<at::Tensor> h;
  std::vector<at::Tensor> c;
  for (size_t l = 0; l < weights.lstm.size(); ++l) {
    const LstmLayerWeights& layer = weights.lstm[l];
    const at::Tensor gates_x =
        Linear(x, layer.weight_ih, layer.bias, layer.precision);
    const LstmOutput lstm =
        LstmSequence(gates_x, layer.weight_hh,
                     InitialLayerState(state.h, l, batch, hidden, x),
                     InitialLayerState(state.c, l, batch, hidden, x), reset,
                     layer.precision);
    x = x.add(Apply(layer.norm, lstm.y));
    h.push_back(lstm.h);
    c.push_back(lstm.c);
  }
  out.trunk = x;
  out.state.h = h.size() == 1 ? h[0].unsqueeze(0) : at::stack(h);
  out.state.c = c.size() == 1 ? c[0].unsqueeze(0) : at::stack(c);
  return out;
}

namespace {

// Outputs of the first layers, max(0, y) for the heads': in storage order,
// undefined for a head without one, then that of V.
std::vector<at::Tensor> FirstLayers(const NetworkWeights& weights,
                                    const at::Tensor& trunk) {
  std::vector<at::Tensor> all(weights.first_widths.size());
  if (weights.first_layers.weight.defined()) {
    const at::Tensor joined = Apply(weights.first_layers, trunk);
    int64_t offset = 0;
    for (size_t k = 0; k < all.size(); ++k) {
      const int64_t width = weights.first_widths[k];
      if (width == 0) continue;
      all[k] = joined.narrow(1, offset, width);
      if (k + 1 < all.size()) all[k] = all[k].relu();
      offset += width;
    }
    return all;
  }
  const std::vector<at::Tensor> apart =
      ApplyFan(weights.first_fan, trunk, weights.feature.precision);
  size_t next = 0;
  for (size_t k = 0; k < all.size(); ++k) {
    if (weights.first_widths[k] > 0) all[k] = apart[next++];
  }
  return all;
}

}  // namespace

HeadOutput Heads(const NetworkWeights& weights, const at::Tensor& trunk) {
  const std::vector<at::Tensor> first = FirstLayers(weights, trunk);
  std::vector<at::Tensor> logits;
  std::vector<at::Tensor> means;
  for (size_t k = 0; k < weights.head_layers.size(); ++k) {
    at::Tensor x = first[k].defined() ? first[k] : trunk;
    const std::vector<LinearWeights>& layers = weights.head_layers[k];
    for (size_t i = 0; i < layers.size(); ++i) {
      x = Apply(layers[i], i == 0 ? x : x.relu());
    }
    (weights.gaussian[k] ? means : logits).push_back(x);
  }
  HeadOutput out;
  out.logits = logits.empty() ? at::empty({trunk.size(0), 0}, trunk.options())
                              : at::cat(logits, 1);
  if (!means.empty()) out.means = at::cat(means, 1);
  out.values = ValueTail(weights.value, first.back()).squeeze(1);
  return out;
}

at::Tensor Value(const NetworkWeights& weights, const at::Tensor& trunk) {
  at::Tensor first;
  if (weights.first_layers.weight.defined()) {
    const LinearWeights& all = weights.first_layers;
    const int64_t width = weights.first_widths.back();
    const int64_t offset = all.weight.size(0) - width;
    first = at::linear(trunk, all.weight.narrow(0, offset, width),
                       all.bias.narrow(0, offset, width));
  } else {
    const LinearFan& fan = weights.first_fan;
    first = Linear(trunk, fan.weights.back(), fan.biases.back(),
                   weights.feature.precision);
  }
  return ValueTail(weights.value, first).squeeze(1);
}

at::Tensor QValue(const NetworkWeights& weights, const at::Tensor& trunk,
                  const at::Tensor& choices) {
  const int64_t hidden = trunk.size(1);
  const at::Tensor& weight = weights.q.first.weight;
  // One-hot inputs select columns.
  const at::Tensor columns =
      weight.narrow(1, hidden, weight.size(1) - hidden).t();
  const at::Tensor first =
      Linear(trunk.detach(), weight.narrow(1, 0, hidden), weights.q.first.bias,
             weights.q.first.precision)
          .add(columns.index_select(0, choices));
  return ValueTail(weights.q, first).squeeze(1);
}

at::Tensor QAllChoices(const NetworkWeights& weights, const at::Tensor& trunk) {
  const int64_t rows = trunk.size(0);
  const int64_t choices = weights.q.first.weight.size(1) - trunk.size(1);
  const at::Tensor each =
      at::arange(choices, trunk.options().dtype(at::kLong)).repeat({rows});
  return QValue(weights, trunk.repeat_interleave(choices, 0), each)
      .view({rows, choices});
}

at::Tensor Contributions(const NetworkWeights& weights, const at::Tensor& trunk,
                         bool stop_gradient,
                         std::optional<at::Generator> dropout) {
  const at::Tensor input = stop_gradient ? trunk.detach() : trunk;
  at::Tensor x =
      Apply(weights.contribution_norm, Apply(weights.contribution_first, input))
          .relu();
  if (dropout.has_value()) {
    const at::Tensor keep = at::bernoulli(
        at::empty(x.sizes(), x.options()).fill_(1 - kDropoutRate), dropout);
    x = x.mul(keep.div_(1 - kDropoutRate));
  }
  return Apply(weights.contribution_last,
               Apply(weights.contribution_second, x).relu());
}

}  // namespace esper::policy
