#include "core/slot/gradient_monitor.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/stack.h>

#include <algorithm>
#include <cmath>

namespace esper::slot {
namespace {

double TotalNorm(const std::vector<double>& norms) {
  double sum = 0;
  for (double norm : norms) sum += norm * norm;
  return std::sqrt(sum);
}

}  // namespace

GradientSample SampleGradients(const std::vector<at::Tensor>& parameters) {
  GradientSample sample;
  std::vector<at::Tensor> norms;
  for (const at::Tensor& parameter : parameters) {
    if (!parameter.requires_grad()) continue;
    sample.elements += parameter.numel();
    const at::Tensor& gradient = parameter.grad();
    if (!gradient.defined()) continue;
    norms.push_back(at::linalg_vector_norm(gradient.detach(), 2, std::nullopt,
                                           /*keepdim=*/false, at::kDouble));
  }
  if (!norms.empty()) sample.norms = at::stack(norms);
  return sample;
}

std::optional<double> GradientRatio(double seed_norm, int64_t seed_elements,
                                    double host_norm, int64_t host_elements) {
  if (!std::isfinite(seed_norm) || !std::isfinite(host_norm)) {
    return std::nullopt;
  }
  if (seed_elements <= 0 || host_elements <= 0 ||
      seed_norm < kGradientEpsilon || host_norm < kGradientEpsilon) {
    return 0.0;
  }
  const double seed = seed_norm / std::sqrt(double(seed_elements));
  const double host = host_norm / std::sqrt(double(host_elements));
  return std::min(kMaxGradientRatio, seed / (host + kGradientEpsilon));
}

GradientReading HealthOf(const std::vector<double>& norms) {
  GradientReading reading;
  reading.sampled = true;
  if (norms.empty()) return reading;
  double vanishing = 0, exploding = 0;
  for (double norm : norms) {
    if (norm < kVanishingThreshold) ++vanishing;
    if (!std::isfinite(norm) || norm > kExplodingThreshold) ++exploding;
  }
  const double total = TotalNorm(norms);
  const double n = static_cast<double>(norms.size());
  reading.has_vanishing = vanishing > 0;
  reading.has_exploding = exploding > 0;
  if (std::isfinite(total)) {
    reading.seed_norm = total;
    reading.health =
        std::max(0.0, 1.0 - 0.5 * vanishing / n - 0.8 * exploding / n);
  } else {
    reading.has_exploding = true;
    reading.health = 0.0;
  }
  return reading;
}

void GradientMonitor::Capture(const GradientSample& seed,
                              const GradientSample& host) {
  seed_ = seed;
  host_ = host;
  captured_ = true;
}

void GradientMonitor::CaptureOutput(const at::Tensor& finite) {
  output_finite_ = finite;
}

std::optional<GradientReading> GradientMonitor::Finalize() {
  if (!pending()) return std::nullopt;
  // Everything in one tensor, and so in one copy: flag, host, seed.
  std::vector<at::Tensor> parts;
  const bool flag = output_finite_.defined();
  if (flag) parts.push_back(output_finite_.reshape({1}).to(at::kDouble));
  int64_t host_count = 0;
  if (host_.norms.defined()) {
    host_count = host_.norms.numel();
    parts.push_back(host_.norms);
  }
  if (seed_.norms.defined()) parts.push_back(seed_.norms);
  std::vector<double> numbers;
  if (!parts.empty()) {
    const at::Tensor read = at::cat(parts).to(at::kCPU);
    const double* data = read.const_data_ptr<double>();
    numbers.assign(data, data + read.numel());
  }

  const auto host_begin = numbers.begin() + (flag ? 1 : 0);
  const auto seed_begin = host_begin + host_count;
  const std::vector<double> host(host_begin, seed_begin);
  const std::vector<double> seed(seed_begin, numbers.end());
  GradientReading reading;
  if (captured_) {
    reading = HealthOf(seed);
    if (reading.measured()) {
      reading.ratio = GradientRatio(TotalNorm(seed), seed_.elements,
                                    TotalNorm(host), host_.elements);
    }
  }
  if (flag) reading.output_finite = numbers[0] != 0;
  Clear();
  return reading;
}

void GradientMonitor::Clear() { *this = GradientMonitor(); }

std::optional<GradientDrift::Result> GradientDrift::Update(double norm,
                                                           double health) {
  if (!std::isfinite(norm) || !std::isfinite(health)) return std::nullopt;
  constexpr double kMomentum = 0.99;
  constexpr double kAlarm = 0.5;
  Result result;
  if (count_++ == 0) {
    norm_ = norm;
    health_ = health;
    return result;
  }
  result.norm = std::abs(norm - norm_) / (norm_ + kGradientEpsilon);
  result.health = std::abs(health - health_) / (health_ + kGradientEpsilon);
  result.alarm = result.norm > kAlarm || result.health > kAlarm;
  norm_ = kMomentum * norm_ + (1 - kMomentum) * norm;
  health_ = kMomentum * health_ + (1 - kMomentum) * health;
  return result;
}

}  // namespace esper::slot
