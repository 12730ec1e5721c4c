#include "core/host/transformer_host.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/aminmax.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/linear.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/error.h"
#include "core/host/layers.h"
#include "core/host/transformer_layers.h"
#include "core/slot/init_scope.h"

namespace esper::host {
namespace {

constexpr double kInitDeviation = 0.02;
// Keeps the masks apart from the weights, which start at the same seed.
constexpr uint64_t kDropoutStream = 1;

absl::Status Refuse(const std::string& field, const std::string& message) {
  return MakeStatus(absl::StatusCode::kInvalidArgument,
                    {.reason = "BAD_HOST_OPTION", .field = field}, message);
}

absl::Status CheckOptions(const TransformerHostOptions& options) {
  struct Range {
    const char* field;
    int64_t value, high;
  };
  const Range ranges[] = {
      {"vocab_size", options.vocab_size, 1 << 24},
      {"width", options.width, 1 << 16},
      {"heads", options.heads, options.width},
      {"layers", options.layers, 1024},
      {"block_size", options.block_size, 1 << 20},
      {"segments", options.segments, options.layers},
  };
  for (const Range& range : ranges) {
    if (range.value >= 1 && range.value <= range.high) continue;
    return Refuse(range.field,
                  absl::StrCat(range.field, " is ", range.value,
                               ", outside [1, ", range.high, "]."));
  }
  if (options.width % options.heads != 0) {
    return Refuse("heads", absl::StrCat("A width of ", options.width,
                                        " cannot be shared evenly by ",
                                        options.heads, " heads."));
  }
  if (options.layers % options.segments != 0) {
    return Refuse("segments",
                  absl::StrCat(options.layers, " layers do not make ",
                               options.segments, " equal segments."));
  }
  if (!(options.dropout >= 0 && options.dropout < 1)) {
    return Refuse("dropout", absl::StrCat("dropout is ", options.dropout,
                                          ", outside [0, 1)."));
  }
  return absl::OkStatus();
}

std::vector<slot::InjectionSpec> MakeSpecs(
    const TransformerHostOptions& options) {
  const int64_t group = options.layers / options.segments;
  std::vector<slot::InjectionSpec> specs;
  for (int64_t i = 0; i < options.segments; ++i) {
    slot::InjectionSpec spec;
    spec.slot_id = absl::StrCat("r0c", i);
    spec.channels = options.width;
    spec.position = static_cast<double>(i + 1) / options.segments;
    spec.layer_begin = i * group;
    spec.layer_end = (i + 1) * group;
    spec.surface = slot::SurfaceType::kBlockEnd;
    spec.order = i;
    spec.column = static_cast<int32_t>(i);
    specs.push_back(std::move(spec));
  }
  return specs;
}

std::vector<std::string> MakeExecutionOrder(
    const TransformerHostOptions& options) {
  std::vector<std::string> order;
  for (const slot::InjectionSpec& spec : MakeSpecs(options)) {
    order.push_back(spec.slot_id);
  }
  return order;
}

// What the constructors of the parts share.
struct Builder {
  Builder(const TransformerHostOptions& options, uint64_t seed)
      : options(options),
        live(options.init_profile == slot::InitProfile::kLive),
        generator(MakeGenerator(seed)) {}

  // `scale`: of the deviation, in the live profile.
  std::shared_ptr<LinearLayer> Linear(int64_t in, int64_t out,
                                      double scale = 1) {
    auto layer =
        std::make_shared<LinearLayer>(LinearLayer::Options{in, out}, generator);
    if (live) {
      layer->weight().detach().normal_(0, kInitDeviation * scale, generator);
      layer->bias().detach().zero_();
    }
    return layer;
  }

  // A layer that writes into the residual stream. As 2 of them do in each
  // block, their sum keeps the deviation of one.
  std::shared_ptr<LinearLayer> Projection(int64_t in, int64_t out) {
    return Linear(in, out, 1 / std::sqrt(2.0 * options.layers));
  }

  std::shared_ptr<EmbeddingLayer> Embedding(int64_t rows) {
    auto layer =
        std::make_shared<EmbeddingLayer>(rows, options.width, generator);
    if (live) layer->weight().detach().mul_(kInitDeviation);
    return layer;
  }

  std::shared_ptr<LayerNormLayer> Norm() const {
    return std::make_shared<LayerNormLayer>(options.width);
  }

  const TransformerHostOptions& options;
  const bool live;
  at::Generator generator;
};

}  // namespace

const std::map<std::string, TransformerHostOptions>& TransformerHostPresets() {
  static const auto* const presets =
      new std::map<std::string, TransformerHostOptions>{
          {"tinystories", TransformerHostOptions()}};
  return *presets;
}

int64_t TransformerHostParameterCount(const TransformerHostOptions& options) {
  const int64_t d = options.width;
  return (options.vocab_size + options.block_size) * d +
         options.layers * (12 * d * d + 13 * d) + 2 * d;
}

// x += attention(norm(x)), then x += mlp(norm(x)).
class TransformerHost::Block : public torch::nn::Module {
 public:
  Block(Builder& builder, SeededDropout& dropout)
      : heads_(builder.options.heads), dropout_(dropout) {
    const int64_t d = builder.options.width;
    ln1_ = register_module("ln1", builder.Norm());
    auto attention = std::make_shared<torch::nn::Module>();
    qkv_ = attention->register_module("c_attn", builder.Linear(d, 3 * d));
    mixed_ = attention->register_module("c_proj", builder.Projection(d, d));
    register_module("attn", std::move(attention));
    ln2_ = register_module("ln2", builder.Norm());
    auto mlp = std::make_shared<torch::nn::Module>();
    wide_ = mlp->register_module("c_fc", builder.Linear(d, 4 * d));
    narrow_ = mlp->register_module("c_proj", builder.Projection(4 * d, d));
    register_module("mlp", std::move(mlp));
  }

  at::Tensor Apply(const at::Tensor& x) const {
    SeededDropout* const dropout = is_training() ? &dropout_ : nullptr;
    const auto drop = [dropout](const at::Tensor& y) {
      return dropout == nullptr ? y : dropout->Apply(y);
    };
    const at::Tensor heard =
        CausalAttention(qkv_->Apply(ln1_->Apply(x)), heads_, dropout);
    const at::Tensor y = x + drop(mixed_->Apply(heard));
    const at::Tensor wide = at::gelu(wide_->Apply(ln2_->Apply(y)));
    return y + drop(narrow_->Apply(wide));
  }

 private:
  const int64_t heads_;
  SeededDropout& dropout_;  // The host's, which owns this block.
  std::shared_ptr<LayerNormLayer> ln1_;
  std::shared_ptr<LinearLayer> qkv_;
  std::shared_ptr<LinearLayer> mixed_;
  std::shared_ptr<LayerNormLayer> ln2_;
  std::shared_ptr<LinearLayer> wide_;
  std::shared_ptr<LinearLayer> narrow_;
};

absl::StatusOr<std::shared_ptr<TransformerHost>> TransformerHost::Create(
    const TransformerHostOptions& options, uint64_t seed) {
  if (absl::Status status = CheckOptions(options); !status.ok()) return status;
  // Parameters made under inference mode could never be trained.
  c10::InferenceMode no_inference(false);
  return std::shared_ptr<TransformerHost>(new TransformerHost(options, seed));
}

TransformerHost::TransformerHost(const TransformerHostOptions& options,
                                 uint64_t seed)
    : Host(MakeSpecs(options), MakeExecutionOrder(options)),
      options_(options),
      dropout_(std::make_unique<SeededDropout>(
          options.dropout, slot::MixSeed(seed, kDropoutStream, 0))) {
  Builder builder(options_, seed);
  token_embedding_ =
      register_module("tok_emb", builder.Embedding(options.vocab_size));
  position_embedding_ =
      register_module("pos_emb", builder.Embedding(options.block_size));
  auto layers = std::make_shared<torch::nn::Module>();
  for (int64_t i = 0; i < options.layers; ++i) {
    blocks_.push_back(layers->register_module(
        std::to_string(i), std::make_shared<Block>(builder, *dropout_)));
  }
  register_module("layers", std::move(layers));
  last_norm_ = register_module("ln_f", builder.Norm());
}

TransformerHost::~TransformerHost() = default;

void TransformerHost::SeedDropout(uint64_t seed) { dropout_->Seed(seed); }

void TransformerHost::CheckInput(int from, const at::Tensor& x) const {
  const bool tokens = from == kInput;
  const bool sequences =
      x.defined() && x.dim() == (tokens ? 2 : 3) && x.size(1) >= 1 &&
      x.size(1) <= options_.block_size &&
      (tokens ? x.scalar_type() == at::kLong
              : x.is_floating_point() && x.size(2) == options_.width);
  if (!sequences) {
    std::string actual = "undefined";
    if (x.defined()) {
      actual = absl::StrCat(c10::toString(x.scalar_type()), " [",
                            absl::StrJoin(x.sizes(), ", "), "]");
    }
    throw ShapeError("x",
                     absl::StrCat(tokens ? "int64 [B, T]"
                                         : absl::StrCat("floating [B, T, ",
                                                        options_.width, "]"),
                                  " with 1 <= T <= ", options_.block_size),
                     actual);
  }
  if (!tokens || !x.is_cpu() || x.numel() == 0) return;
  const auto [least, most] = at::aminmax(x);
  const int64_t low = least.item<int64_t>(), high = most.item<int64_t>();
  if (low >= 0 && high < options_.vocab_size) return;
  throw InvalidArgumentError(
      {.reason = "BAD_TOKEN", .tensor = "x"},
      absl::StrCat("Token ", low < 0 ? low : high,
                   " is outside the vocabulary of ", options_.vocab_size, "."));
}

at::Tensor TransformerHost::Embed(const at::Tensor& tokens) const {
  const at::Tensor positions =
      position_embedding_->weight().narrow(0, 0, tokens.size(1));
  const at::Tensor x = token_embedding_->Apply(tokens) + positions;
  return is_training() ? dropout_->Apply(x) : x;
}

at::Tensor TransformerHost::RunChecked(int from, int to,
                                       const at::Tensor& x) const {
  CheckInput(from, x);
  const int64_t group = options_.layers / options_.segments;
  // Behind the last point there is no block, only the head.
  const int64_t end = std::min((to + 1) * group, options_.layers);
  at::Tensor y = from == kInput ? Embed(x) : x;
  for (int64_t i = (from + 1) * group; i < end; ++i) y = blocks_[i]->Apply(y);
  if (to < output()) return y;
  return at::linear(last_norm_->Apply(y), token_embedding_->weight());
}

}  // namespace esper::host
