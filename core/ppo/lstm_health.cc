#include "core/ppo/lstm_health.h"

#include <cmath>

#include "ATen/TensorOperators.h"
#include "ATen/ops/isinf.h"
#include "ATen/ops/isnan.h"
#include "c10/core/GradMode.h"

namespace esper::ppo {
namespace {

StateSize SizeOf(const at::Tensor& state) {
  const at::Tensor x = state.detach().to(at::kDouble);
  // [B, L * H]: one row per environment.
  const at::Tensor rows = x.transpose(0, 1).flatten(1);
  const at::Tensor rms = rows.square().mean(1).sqrt();
  StateSize size;
  size.l2 = x.square().sum().sqrt().item<double>();
  size.rms = size.l2 / std::sqrt(static_cast<double>(x.numel()));
  size.row_rms_mean = rms.mean().item<double>();
  size.row_rms_max = rms.max().item<double>();
  size.max = x.abs().max().item<double>();
  return size;
}

void Judge(const StateSize& size, const std::string& part,
           std::vector<std::string>* names) {
  if (size.row_rms_max > LstmHealth::kExplosion) {
    names->push_back("lstm_" + part + "_explosion");
  }
  if (size.rms < LstmHealth::kVanishing) {
    names->push_back("lstm_" + part + "_vanishing");
  }
}

}  // namespace

std::vector<std::string> LstmHealth::Anomalies() const {
  std::vector<std::string> names;
  if (has_nan) names.push_back("lstm_nan");
  if (has_inf) names.push_back("lstm_inf");
  Judge(h, "h", &names);
  Judge(c, "c", &names);
  return names;
}

LstmHealth MeasureLstm(const at::Tensor& h, const at::Tensor& c) {
  const c10::NoGradGuard no_grad;
  LstmHealth health;
  health.h = SizeOf(h);
  health.c = SizeOf(c);
  const auto any = [&](const auto& test) {
    return test(h).any().template item<bool>() ||
           test(c).any().template item<bool>();
  };
  health.has_nan = any([](const at::Tensor& x) { return at::isnan(x); });
  health.has_inf = any([](const at::Tensor& x) { return at::isinf(x); });
  return health;
}

}  // namespace esper::ppo
