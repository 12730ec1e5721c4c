#include "core/host/embedding_host.h"

#include <ATen/ops/linear.h>
#include <c10/core/InferenceMode.h>

#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/error.h"
#include "core/host/layers.h"
#include "core/host/transformer_layers.h"
#include "core/slot/init_scope.h"

namespace esper::host {
namespace {

absl::Status Refuse(const std::string& field, const std::string& range) {
  return MakeStatus(absl::StatusCode::kInvalidArgument,
                    {.reason = "BAD_HOST_OPTION", .field = field},
                    absl::StrCat(field, " must be ", range, "."));
}

absl::Status Check(const EmbeddingHostOptions& options) {
  const auto within = [](int64_t value, int64_t high) {
    return value >= 1 && value <= high;
  };
  if (!within(options.vocab_size, 1 << 24)) {
    return Refuse("vocab_size", "in [1, 2^24]");
  }
  if (!within(options.width, 1 << 16)) return Refuse("width", "in [1, 2^16]");
  if (!within(options.segments, 1024))
    return Refuse("segments", "in [1, 1024]");
  if (!std::isfinite(options.deviation) || options.deviation <= 0) {
    return Refuse("deviation", "finite and positive");
  }
  return absl::OkStatus();
}

std::vector<slot::InjectionSpec> Specs(const EmbeddingHostOptions& options) {
  std::vector<slot::InjectionSpec> specs;
  for (int64_t i = 0; i < options.segments; ++i) {
    slot::InjectionSpec spec;
    spec.slot_id = absl::StrCat("r0c", i);
    spec.channels = options.width;
    spec.position = static_cast<double>(i + 1) / options.segments;
    spec.surface = slot::SurfaceType::kBlockEnd;
    spec.order = i;
    spec.column = static_cast<int32_t>(i);
    specs.push_back(std::move(spec));
  }
  return specs;
}

std::vector<std::string> Order(const EmbeddingHostOptions& options) {
  std::vector<std::string> order;
  for (const slot::InjectionSpec& spec : Specs(options)) {
    order.push_back(spec.slot_id);
  }
  return order;
}

}  // namespace

absl::StatusOr<std::shared_ptr<EmbeddingHost>> EmbeddingHost::Create(
    const EmbeddingHostOptions& options, uint64_t seed) {
  if (absl::Status status = Check(options); !status.ok()) return status;
  // Parameters made under inference mode could never be trained.
  c10::InferenceMode no_inference(false);
  return std::shared_ptr<EmbeddingHost>(new EmbeddingHost(options, seed));
}

EmbeddingHost::EmbeddingHost(const EmbeddingHostOptions& options, uint64_t seed)
    : Host(Specs(options), Order(options)),
      vocab_size_(options.vocab_size),
      width_(options.width) {
  at::Generator generator = MakeGenerator(seed);
  embedding_ = register_module(
      "tok_emb", std::make_shared<EmbeddingLayer>(options.vocab_size,
                                                  options.width, generator));
  embedding_->weight().detach().mul_(options.deviation);
  norm_ =
      register_module("ln_f", std::make_shared<LayerNormLayer>(options.width));
}

EmbeddingHost::~EmbeddingHost() = default;

at::Tensor EmbeddingHost::RunChecked(int from, int to,
                                     const at::Tensor& x) const {
  const bool tokens = from == kInput;
  const bool fits = x.defined() && x.dim() == (tokens ? 2 : 3) &&
                    (tokens ? x.scalar_type() == at::kLong
                            : x.is_floating_point() && x.size(2) == width_);
  if (!fits) {
    throw ShapeError(
        "x",
        tokens ? "int64 [B, T]" : absl::StrCat("floating [B, T, ", width_, "]"),
        x.defined() ? absl::StrCat(c10::toString(x.scalar_type()), " [",
                                   absl::StrJoin(x.sizes(), ", "), "]")
                    : "undefined");
  }
  // The embedding refuses tokens outside the vocabulary. A result must not
  // alias the features that came in.
  const at::Tensor y = tokens ? embedding_->Apply(x) : x;
  if (to == output()) {
    return at::linear(norm_->Apply(y), embedding_->weight());
  }
  return tokens ? y : y.clone();
}

}  // namespace esper::host
