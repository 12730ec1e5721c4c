#ifndef ESPER_CORE_PPO_NORMALIZER_H_
#define ESPER_CORE_PPO_NORMALIZER_H_

#include <cstdint>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "core/ppo/moments.h"

namespace esper::ppo {

// The normalisers of training. Each holds a plain `Moments` that callers store
// and restore; non-finite data is refused and changes nothing. None is
// thread-safe except where it says so.

// Maps raw observations to what the network sees:
//   clamp((x - mean) / sqrt(var + epsilon), -clip, clip)
// Immutable once made, so acting and training can share one. Thread-safe.
class ObservationScaler {
 public:
  // Leaves observations as they are.
  ObservationScaler() = default;
  ObservationScaler(const Moments& moments, double epsilon, double clip);

  // observations: float32 [..., D], raw. Returns a new tensor of that shape on
  // the same device (the input itself if this is the identity).
  at::Tensor Apply(const at::Tensor& observations) const;

  // What an equal scaler elsewhere is made of, to the last bit.
  struct Parts {
    std::vector<double> mean;     // [D]; empty: the identity.
    std::vector<double> inverse;  // [D]; 1 / sqrt(var + epsilon), > 0.
    double clip = 0;              // > 0, but for the identity.
  };
  Parts parts() const;
  // INVALID_ARGUMENT unless the parts are in their ranges and of one width.
  static absl::StatusOr<ObservationScaler> FromParts(const Parts& parts);

  bool identity() const { return !mean_.defined(); }
  int64_t width() const { return identity() ? 0 : mean_.numel(); }

 private:
  at::Tensor mean_;     // float64 [D], host.
  at::Tensor inverse_;  // float64 [D], host: 1 / sqrt(var + epsilon).
  double clip_ = 0;
};

// Statistics of raw observations, per feature.
class ObservationNormalizer {
 public:
  struct Options {
    Averaging averaging = Averaging::ExactThenCapped(100'000);
    // Weight of the initial guess (mean 0, variance 1) in rows. The reference
    // implementation starts with 1e-4.
    double initial_count = 0;
    double epsilon = 1e-4;
    double clip = 10.0;
  };

  ObservationNormalizer(int64_t width, const Options& options);

  // rows: float32 [N, D] on the host. INVALID_ARGUMENT (NONFINITE_INPUT, with
  // the row) or BAD_SHAPE, statistics unchanged; an empty batch is ignored.
  absl::Status Update(const at::Tensor& rows);

  // A frozen copy for acting and training.
  ObservationScaler Scaler() const;

  const Moments& moments() const { return moments_; }
  // INVALID_ARGUMENT if the width differs or a number is not finite.
  absl::Status Restore(const Moments& moments);

 private:
  Options options_;
  Moments moments_;
};

// Divides rewards by the deviation of discounted returns, so that their size
// does not depend on the task. The statistics change only by `Update`, once per
// batch; `deviation` is meant to be frozen by its user for a whole update.
class ReturnScaler {
 public:
  struct Options {
    Averaging averaging = Averaging::ExactThenCapped(100'000);
    double deviation_floor = 1e-2;
  };

  explicit ReturnScaler(const Options& options);

  // Feeds the running sums G_t = gamma G_{t-1} + r_t of one episode from its
  // first step. NONFINITE_INPUT with the step leaves the statistics unchanged.
  absl::Status Update(absl::Span<const float> episode_rewards, double gamma);

  // max(deviation of returns, floor); 1 before two returns were seen.
  double deviation() const;

  const Moments& moments() const { return moments_; }
  absl::Status Restore(const Moments& moments);

 private:
  Options options_;
  Moments moments_;
};

// The reference implementation's reward normaliser, for comparisons: a running
// deviation of single rewards, updated before use. Doubles throughout.
class RewardNormalizer {
 public:
  RewardNormalizer(double clip, double epsilon)
      : clip_(clip), epsilon_(epsilon) {}

  // NONFINITE_INPUT; the statistics then stay as they were.
  absl::StatusOr<double> Normalize(double reward);
  absl::StatusOr<double> NormalizeOnly(double reward) const;

  struct State {
    double mean = 0;
    double m2 = 0;  // Sum of squared differences from the mean.
    int64_t count = 0;
  };
  const State& state() const { return state_; }
  void Restore(const State& state) { state_ = state; }

 private:
  double clip_;
  double epsilon_;
  State state_;
};

// Scale of the value function: V is trained on return / sigma. With fewer than
// `min_samples` returns sigma is 1. When sigma moves, the last layer of the
// value function should be multiplied by old / new (PopArt), which leaves
// V * sigma where it was; the learner does that.
class ValueNormalizer {
 public:
  struct Options {
    Averaging averaging = Averaging::ExactThenMomentum(32, 0.99);
    int64_t min_samples = 32;
    double epsilon = 1e-4;
  };

  explicit ValueNormalizer(const Options& options);

  // NONFINITE_INPUT leaves the statistics unchanged; empty is ignored.
  absl::Status Update(absl::Span<const float> returns);
  // Expresses the statistics in other units: values times `factor`, > 0.
  void Rescale(double factor);

  double sigma() const;
  bool has_valid_statistics() const;

  const Moments& moments() const { return moments_; }
  absl::Status Restore(const Moments& moments);

 private:
  Options options_;
  Moments moments_;
};

}  // namespace esper::ppo
#endif  // ESPER_CORE_PPO_NORMALIZER_H_
