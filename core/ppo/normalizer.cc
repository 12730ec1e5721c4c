#include "core/ppo/normalizer.h"

#include <algorithm>
#include <cmath>

#include "ATen/ops/from_blob.h"
#include "absl/strings/str_cat.h"
#include "core/error.h"

namespace esper::ppo {
namespace {

at::Tensor HostVector(const std::vector<double>& values) {
  return at::from_blob(const_cast<double*>(values.data()),
                       {static_cast<int64_t>(values.size())}, at::kDouble)
      .clone();
}

// Moments of a batch of scalars; two passes, so that large means do no harm.
Moments ScalarMoments(absl::Span<const double> values) {
  Moments moments = Moments::Initial(1, static_cast<double>(values.size()));
  double sum = 0;
  for (double value : values) sum += value;
  const double mean = sum / values.size();
  double squares = 0;
  for (double value : values) squares += (value - mean) * (value - mean);
  moments.mean[0] = mean;
  moments.variance[0] = squares / values.size();
  return moments;
}

absl::Status NonFinite(const std::string& tensor, int64_t row, int64_t step) {
  return ToStatus(NonFiniteError::Input(tensor, row, step));
}

// Moments of the columns of `rows`: float32 [N, D], contiguous, finite.
Moments ColumnMoments(const at::Tensor& rows) {
  const int64_t n = rows.size(0), width = rows.size(1);
  const float* data = rows.const_data_ptr<float>();
  Moments moments = Moments::Initial(width, static_cast<double>(n));
  moments.variance.assign(width, 0.0);
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j < width; ++j) moments.mean[j] += data[i * width + j];
  }
  for (double& mean : moments.mean) mean /= n;
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j < width; ++j) {
      const double delta = data[i * width + j] - moments.mean[j];
      moments.variance[j] += delta * delta;
    }
  }
  for (double& variance : moments.variance) variance /= n;
  return moments;
}

}  // namespace

ObservationScaler::ObservationScaler(const Moments& moments, double epsilon,
                                     double clip)
    : clip_(clip) {
  std::vector<double> inverse;
  inverse.reserve(moments.variance.size());
  for (double variance : moments.variance) {
    inverse.push_back(1.0 / std::sqrt(variance + epsilon));
  }
  mean_ = HostVector(moments.mean);
  inverse_ = HostVector(inverse);
}

ObservationScaler::Parts ObservationScaler::parts() const {
  Parts parts;
  if (identity()) return parts;
  const double* mean = mean_.const_data_ptr<double>();
  const double* inverse = inverse_.const_data_ptr<double>();
  parts.mean.assign(mean, mean + width());
  parts.inverse.assign(inverse, inverse + width());
  parts.clip = clip_;
  return parts;
}

absl::StatusOr<ObservationScaler> ObservationScaler::FromParts(
    const Parts& parts) {
  const bool identity = parts.mean.empty() && parts.inverse.empty();
  bool sound = parts.mean.size() == parts.inverse.size() &&
               std::isfinite(parts.clip) && (parts.clip > 0 || identity);
  for (double mean : parts.mean) sound = sound && std::isfinite(mean);
  for (double inverse : parts.inverse) {
    sound = sound && std::isfinite(inverse) && inverse > 0;
  }
  if (!sound) {
    return absl::InvalidArgumentError(absl::StrCat(
        "The observation scaler must have finite means, positive factors for "
        "as many features, and a positive limit; got ",
        parts.mean.size(), " means, ", parts.inverse.size(),
        " factors and limit ", parts.clip, "."));
  }
  ObservationScaler scaler;
  if (identity) return scaler;
  scaler.mean_ = HostVector(parts.mean);
  scaler.inverse_ = HostVector(parts.inverse);
  scaler.clip_ = parts.clip;
  return scaler;
}

at::Tensor ObservationScaler::Apply(const at::Tensor& observations) const {
  if (identity()) return observations;
  if (observations.dim() < 1 || observations.size(-1) != width()) {
    throw ShapeError("observations", absl::StrCat("[..., ", width(), "]"),
                     absl::StrCat("last axis ", observations.dim() < 1
                                                    ? int64_t{0}
                                                    : observations.size(-1)));
  }
  // In double: a feature far from zero with little spread would lose its
  // digits in float32.
  return observations.to(at::kDouble)
      .sub(mean_.to(observations.device()))
      .mul_(inverse_.to(observations.device()))
      .clamp_(-clip_, clip_)
      .to(at::kFloat);
}

ObservationNormalizer::ObservationNormalizer(int64_t width,
                                             const Options& options)
    : options_(options),
      moments_(Moments::Initial(width, options.initial_count)) {}

absl::Status ObservationNormalizer::Update(const at::Tensor& rows) {
  const int64_t width = static_cast<int64_t>(moments_.mean.size());
  if (!rows.defined() || rows.dim() != 2 || rows.size(1) != width ||
      rows.scalar_type() != at::kFloat || !rows.device().is_cpu()) {
    return ToStatus(ShapeError(
        "observations", absl::StrCat("float32 [N, ", width, "] on the host"),
        rows.defined() ? absl::StrCat(rows.dim(), " axes") : "nothing"));
  }
  if (rows.size(0) == 0) return absl::OkStatus();
  const at::Tensor data = rows.contiguous();
  const float* values = data.const_data_ptr<float>();
  for (int64_t i = 0; i < data.numel(); ++i) {
    if (!std::isfinite(values[i])) {
      return NonFinite("observations", i / width, -1);
    }
  }
  AddBatch(ColumnMoments(data), options_.averaging, moments_);
  return absl::OkStatus();
}

ObservationScaler ObservationNormalizer::Scaler() const {
  return ObservationScaler(moments_, options_.epsilon, options_.clip);
}

absl::Status ObservationNormalizer::Restore(const Moments& moments) {
  const absl::Status status =
      moments.Check(static_cast<int64_t>(moments_.mean.size()));
  if (status.ok()) moments_ = moments;
  return status;
}

ReturnScaler::ReturnScaler(const Options& options)
    : options_(options), moments_(Moments::Initial(1, 0)) {}

absl::Status ReturnScaler::Update(absl::Span<const float> episode_rewards,
                                  double gamma) {
  if (episode_rewards.empty()) return absl::OkStatus();
  std::vector<double> sums;
  sums.reserve(episode_rewards.size());
  double sum = 0;
  for (size_t t = 0; t < episode_rewards.size(); ++t) {
    if (!std::isfinite(episode_rewards[t])) {
      return NonFinite("rewards", -1, static_cast<int64_t>(t));
    }
    sum = gamma * sum + episode_rewards[t];
    sums.push_back(sum);
  }
  AddBatch(ScalarMoments(sums), options_.averaging, moments_);
  return absl::OkStatus();
}

double ReturnScaler::deviation() const {
  if (moments_.count < 2) return 1.0;
  return std::max(std::sqrt(moments_.variance[0]), options_.deviation_floor);
}

absl::Status ReturnScaler::Restore(const Moments& moments) {
  const absl::Status status = moments.Check(1);
  if (status.ok()) moments_ = moments;
  return status;
}

absl::StatusOr<double> RewardNormalizer::NormalizeOnly(double reward) const {
  if (!std::isfinite(reward)) return NonFinite("rewards", -1, -1);
  if (state_.count < 2) return std::clamp(reward, -clip_, clip_);
  const double deviation = std::max(
      epsilon_, std::sqrt(state_.m2 / static_cast<double>(state_.count - 1)));
  return std::clamp(reward / deviation, -clip_, clip_);
}

absl::StatusOr<double> RewardNormalizer::Normalize(double reward) {
  if (!std::isfinite(reward)) return NonFinite("rewards", -1, -1);
  ++state_.count;
  const double delta = reward - state_.mean;
  state_.mean += delta / static_cast<double>(state_.count);
  state_.m2 += delta * (reward - state_.mean);
  return NormalizeOnly(reward);
}

ValueNormalizer::ValueNormalizer(const Options& options)
    : options_(options), moments_(Moments::Initial(1, 0)) {}

absl::Status ValueNormalizer::Update(absl::Span<const float> returns) {
  if (returns.empty()) return absl::OkStatus();
  for (float value : returns) {
    if (!std::isfinite(value)) return NonFinite("returns", -1, -1);
  }
  const std::vector<double> values(returns.begin(), returns.end());
  AddBatch(ScalarMoments(values), options_.averaging, moments_);
  return absl::OkStatus();
}

void ValueNormalizer::Rescale(double factor) {
  moments_.mean[0] *= factor;
  moments_.variance[0] *= factor * factor;
}

bool ValueNormalizer::has_valid_statistics() const {
  return moments_.count >= static_cast<double>(options_.min_samples);
}

double ValueNormalizer::sigma() const {
  if (!has_valid_statistics()) return 1.0;
  return std::sqrt(moments_.variance[0] + options_.epsilon);
}

absl::Status ValueNormalizer::Restore(const Moments& moments) {
  const absl::Status status = moments.Check(1);
  if (status.ok()) moments_ = moments;
  return status;
}

}  // namespace esper::ppo
