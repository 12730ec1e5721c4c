#include "core/host/cnn_host.h"

#include <ATen/ops/max_pool2d.h>
#include <ATen/ops/mean.h>
#include <ATen/ops/relu.h>
#include <c10/core/InferenceMode.h>

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

namespace esper::host {
namespace {

absl::Status CheckOptions(const CnnHostOptions& options) {
  struct Range {
    const char* field;
    int64_t value, low, high;
  };
  const Range ranges[] = {
      {"in_channels", options.in_channels, 1, 4096},
      {"num_classes", options.num_classes, 1, 1 << 20},
      {"n_blocks", options.n_blocks, 2, 16},
      {"base_channels", options.base_channels, 1, 4096},
      {"pool_layers", options.pools(), 0, options.n_blocks},
      {"kernel", options.kernel, 1, 31},
  };
  for (const Range& range : ranges) {
    if (range.value >= range.low && range.value <= range.high) continue;
    return MakeStatus(
        absl::StatusCode::kInvalidArgument,
        {.reason = "BAD_HOST_OPTION", .field = range.field},
        absl::StrCat(range.field, " is ", range.value, ", outside [", range.low,
                     ", ", range.high, "]."));
  }
  if (options.kernel % 2 == 0) {
    return MakeStatus(
        absl::StatusCode::kInvalidArgument,
        {.reason = "BAD_HOST_OPTION", .field = "kernel"},
        absl::StrCat("kernel is ", options.kernel,
                     ", but only an odd one keeps height and width."));
  }
  return absl::OkStatus();
}

slot::InjectionSpec MakeSpec(const CnnHostOptions& options, int32_t row,
                             int64_t block) {
  slot::InjectionSpec spec;
  spec.row = row;
  spec.column = static_cast<int32_t>(block);
  spec.slot_id = absl::StrCat("r", row, "c", block);
  spec.channels = options.channels(block);
  spec.position = static_cast<double>(2 * block + 1 + row) /
                  static_cast<double>(2 * options.n_blocks);
  spec.layer_begin = block;
  spec.layer_end = block + 1;
  spec.surface =
      row == 0 ? slot::SurfaceType::kPrePool : slot::SurfaceType::kPostPool;
  spec.order = row * options.n_blocks + block;
  return spec;
}

std::vector<slot::InjectionSpec> MakeSpecs(const CnnHostOptions& options) {
  std::vector<slot::InjectionSpec> specs;
  for (int64_t i = 0; i < options.n_blocks; ++i) {
    specs.push_back(MakeSpec(options, /*row=*/0, i));
  }
  for (int64_t i = 0; i < options.pools(); ++i) {
    specs.push_back(MakeSpec(options, /*row=*/1, i));
  }
  return specs;
}

std::vector<std::string> MakeExecutionOrder(const CnnHostOptions& options) {
  std::vector<std::string> order;
  for (int64_t i = 0; i < options.n_blocks; ++i) {
    order.push_back(MakeSpec(options, /*row=*/0, i).slot_id);
    if (i < options.pools()) {
      order.push_back(MakeSpec(options, /*row=*/1, i).slot_id);
    }
  }
  return order;
}

CnnHostOptions Preset(int64_t base, int64_t blocks, int64_t pools,
                      int64_t kernel) {
  CnnHostOptions options;
  options.base_channels = base;
  options.n_blocks = blocks;
  options.pool_layers = pools;
  options.kernel = kernel;
  return options;
}

}  // namespace

int64_t CnnHostOptions::pools() const { return pool_layers.value_or(n_blocks); }

int64_t CnnHostOptions::channels(int64_t block) const {
  return base_channels << block;
}

const std::map<std::string, CnnHostOptions>& CnnHostPresets() {
  static const auto* const presets = new std::map<std::string, CnnHostOptions>{
      {"cifar_baseline", Preset(8, 3, 3, 3)},
      {"cifar_multichannel", Preset(8, 3, 3, 3)},
      {"cifar_postpool", Preset(16, 3, 3, 3)},
      {"cifar_highres", Preset(16, 3, 3, 3)},
      {"cifar_scale", Preset(8, 5, 5, 3)},
      {"cifar_deep_multichannel", Preset(8, 5, 5, 3)},
      {"cifar_impaired", Preset(1, 3, 3, 1)},
      {"cifar_minimal", Preset(2, 3, 0, 1)},
      {"cifar_deep_impaired", Preset(2, 5, 5, 1)},
  };
  return *presets;
}

int64_t CnnHostParameterCount(const CnnHostOptions& options) {
  int64_t count = 0;
  int64_t in = options.in_channels;
  for (int64_t i = 0; i < options.n_blocks; ++i) {
    const int64_t out = options.channels(i);
    count += options.kernel * options.kernel * in * out + 2 * out;
    in = out;
  }
  return count + (in + 1) * options.num_classes;
}

// Convolution, batch normalisation, ReLU.
class CnnHost::ConvBlock : public torch::nn::Module {
 public:
  ConvBlock(const ConvLayer::Options& options, at::Generator& generator)
      : conv_(register_module("conv",
                              std::make_shared<ConvLayer>(options, generator))),
        bn_(register_module("bn",
                            std::make_shared<BatchNormLayer>(options.out))) {}

  at::Tensor Apply(const at::Tensor& x) const {
    at::Tensor y = bn_->Apply(conv_->Apply(x));
    return at::relu_(y);  // In place: nothing else reads the norm's output.
  }

 private:
  const std::shared_ptr<ConvLayer> conv_;
  const std::shared_ptr<BatchNormLayer> bn_;
};

absl::StatusOr<std::shared_ptr<CnnHost>> CnnHost::Create(
    const CnnHostOptions& options, uint64_t seed) {
  if (absl::Status status = CheckOptions(options); !status.ok()) return status;
  // Parameters made under inference mode could never be trained.
  c10::InferenceMode no_inference(false);
  return std::shared_ptr<CnnHost>(new CnnHost(options, seed));
}

CnnHost::CnnHost(const CnnHostOptions& options, uint64_t seed)
    : Host(MakeSpecs(options), MakeExecutionOrder(options)), options_(options) {
  at::Generator generator = MakeGenerator(seed);
  auto blocks = std::make_shared<torch::nn::Module>();
  int64_t in = options.in_channels;
  for (int64_t i = 0; i < options.n_blocks; ++i) {
    const ConvLayer::Options conv{in, options.channels(i), options.kernel};
    blocks_.push_back(blocks->register_module(
        std::to_string(i), std::make_shared<ConvBlock>(conv, generator)));
    in = conv.out;
  }
  register_module("blocks", std::move(blocks));
  classifier_ = register_module(
      "classifier",
      std::make_shared<LinearLayer>(
          LinearLayer::Options{in, options.num_classes}, generator));

  for (int64_t i = 0; i < options.n_blocks; ++i) {
    ops_.push_back({Op::kBlock, i});
    ops_before_.push_back(static_cast<int>(ops_.size()));
    if (i >= options.pools()) continue;
    ops_.push_back({Op::kPool, i});
    ops_before_.push_back(static_cast<int>(ops_.size()));
  }
  ops_.push_back({Op::kClassify, 0});
  ops_before_.push_back(static_cast<int>(ops_.size()));
}

CnnHost::~CnnHost() = default;

void CnnHost::CheckInput(int from, const at::Tensor& x) const {
  const int64_t channels = from == kInput
                               ? options_.in_channels
                               : segment_channels().at(execution_order()[from]);
  const bool image = x.defined() && x.dim() == 4 && x.is_floating_point() &&
                     x.size(1) == channels;
  const int64_t least = from == kInput ? int64_t{1} << options_.pools() : 1;
  if (image && x.size(2) >= least && x.size(3) >= least) return;
  std::string actual = "undefined";
  if (x.defined()) {
    actual = absl::StrCat(c10::toString(x.scalar_type()), " [",
                          absl::StrJoin(x.sizes(), ", "), "]");
  }
  throw ShapeError("x",
                   absl::StrCat("floating [B, ", channels, ", H, W] with H, W ",
                                ">= ", least),
                   actual);
}

at::Tensor CnnHost::RunChecked(int from, int to, const at::Tensor& x) const {
  CheckInput(from, x);
  at::Tensor y = x;
  if (from == kInput && options_.channels_last) {
    y = y.contiguous(at::MemoryFormat::ChannelsLast);
  }
  const int begin = from == kInput ? 0 : ops_before_[from];
  for (int i = begin; i < ops_before_[to]; ++i) {
    switch (ops_[i].kind) {
      case Op::kBlock:
        y = blocks_[ops_[i].block]->Apply(y);
        break;
      case Op::kPool:
        y = at::max_pool2d(y, /*kernel_size=*/2, /*stride=*/2);
        break;
      case Op::kClassify:
        y = classifier_->Apply(at::mean(y, {2, 3}));
        break;
    }
  }
  return y;
}

}  // namespace esper::host
