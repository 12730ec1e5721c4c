#include "core/policy/parameter_list.h"

#include <cmath>

namespace esper::policy {
namespace {

const double kHiddenGain = std::sqrt(2.0);
constexpr double kOutputGain = 0.1;  // V, Q and contributions.

class Lister {
 public:
  void Linear(const std::string& name, int64_t out, int64_t in, double gain) {
    Add(name + ".weight", {out, in}, ParameterKind::kOrthogonal, gain);
    Add(name + ".bias", {out}, ParameterKind::kZero);
  }

  void LayerNorm(const std::string& name, int64_t width) {
    Add(name + ".weight", {width}, ParameterKind::kOne);
    Add(name + ".bias", {width}, ParameterKind::kZero);
  }

  void Lstm(const std::string& name, int64_t hidden) {
    const int64_t gates = 4 * hidden;
    Add(name + ".weight_ih_l0", {gates, hidden}, ParameterKind::kOrthogonal, 1);
    Add(name + ".weight_hh_l0", {gates, hidden}, ParameterKind::kOrthogonal, 1);
    Add(name + ".bias_ih_l0", {gates}, ParameterKind::kLstmBias);
    Add(name + ".bias_hh_l0", {gates}, ParameterKind::kLstmBias);
  }

  void Head(const HeadSpec& head, int64_t in) {
    // First, so that the output layer stays the last of every head.
    if (head.kind == HeadKind::kGaussian) {
      Add(head.name + "_head.log_std", {head.size}, ParameterKind::kLogStd,
          head.initial_log_std);
    }
    int64_t index = 0;
    for (const int64_t width : head.hidden) {
      Linear(head.name + "_head." + std::to_string(index), width, in,
             kHiddenGain);
      in = width;
      index += 2;  // A ReLU lies between.
    }
    Linear(head.name + "_head." + std::to_string(index), head.size, in,
           head.final_gain);
  }

  void ValueNet(const std::string& name, int64_t in, int64_t hidden) {
    Linear(name + ".0", hidden / 2, in, kHiddenGain);
    LayerNorm(name + ".1", hidden / 2);
    Linear(name + ".3", hidden / 4, hidden / 2, kHiddenGain);
    LayerNorm(name + ".4", hidden / 4);
    Linear(name + ".6", hidden / 8, hidden / 4, kHiddenGain);
    Linear(name + ".8", 1, hidden / 8, kOutputGain);
  }

  void Contribution(int64_t outputs, int64_t hidden) {
    const std::string name = "contribution_predictor";
    Linear(name + ".0", hidden / 2, hidden, kHiddenGain);
    LayerNorm(name + ".1", hidden / 2);
    Linear(name + ".4", hidden / 4, hidden / 2, kHiddenGain);
    Linear(name + ".6", outputs, hidden / 4, kOutputGain);
  }

  void Add(const std::string& name, std::vector<int64_t> shape,
           ParameterKind kind, double gain = 0) {
    list_.push_back({name, std::move(shape), kind, gain});
  }

  std::vector<ParameterInfo> Take() { return std::move(list_); }

 private:
  std::vector<ParameterInfo> list_;
};

}  // namespace

std::vector<ParameterInfo> ListParameters(const PolicySpec& spec) {
  const int64_t hidden = spec.hidden_dim;
  int64_t input = spec.observation_width();
  if (spec.categorical.has_value()) {
    input += spec.categorical->count * spec.categorical->width;
  }
  Lister lister;
  lister.Linear("feature_net.0", spec.feature_dim, input, kHiddenGain);
  lister.LayerNorm("feature_net.1", spec.feature_dim);
  if (spec.feature_dim != hidden) {
    lister.Linear("lstm.input_proj", hidden, spec.feature_dim, kHiddenGain);
  }
  for (int64_t l = 0; l < spec.lstm_layers; ++l) {
    lister.Lstm("lstm.layers." + std::to_string(l), hidden);
  }
  for (int64_t l = 0; l < spec.lstm_layers; ++l) {
    lister.LayerNorm("lstm.layer_norms." + std::to_string(l), hidden);
  }
  // Upstream lists heads of one hidden layer first, deeper ones after the
  // embedding.
  for (const HeadSpec& head : spec.heads) {
    if (head.hidden.size() <= 1) lister.Head(head, hidden);
  }
  if (spec.categorical.has_value()) {
    const std::string name = spec.categorical->name + "_embedding";
    lister.Add(name + "._null_idx", {}, ParameterKind::kNullIndex);
    lister.Add(name + ".embedding.weight",
               {spec.categorical->cardinality + 1, spec.categorical->width},
               ParameterKind::kEmbedding);
  }
  for (const HeadSpec& head : spec.heads) {
    if (head.hidden.size() > 1) lister.Head(head, hidden);
  }
  lister.ValueNet("state_value_head", hidden, hidden);
  if (!spec.q_head.empty()) {
    const int64_t choices = spec.heads[spec.HeadIndex(spec.q_head)].size;
    lister.ValueNet("q_head", hidden + choices, hidden);
  }
  if (spec.contribution_outputs > 0) {
    lister.Contribution(spec.contribution_outputs, hidden);
  }
  return lister.Take();
}

}  // namespace esper::policy
