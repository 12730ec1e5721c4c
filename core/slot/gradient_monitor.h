#ifndef ESPER_CORE_SLOT_GRADIENT_MONITOR_H_
#define ESPER_CORE_SLOT_GRADIENT_MONITOR_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <vector>

namespace esper::slot {

// The gradient of a set of parameters after one backward pass, still on the
// device. Made once per sampled batch for the host and shared by its slots.
struct GradientSample {
  // float64 [n], device; L2 norm of each existing gradient; undefined if none.
  at::Tensor norms;
  int64_t elements = 0;  // Elements of the trainable parameters.
};

// Norms of the gradients that exist. Inputs are promoted to float64 before
// they are squared. Reads no device data on the host; results are detached.
GradientSample SampleGradients(const std::vector<at::Tensor>& parameters);

// What one sample says about a seed. An absent number was not measured.
struct GradientReading {
  // A gradient sample was taken. Without one only `output_finite` can be
  // present; with one that found no gradient, nothing is measured.
  bool sampled = false;
  std::optional<double> seed_norm;  // Absent as well if not finite.
  std::optional<double> ratio;      // Intensity against the host's; see below.
  std::optional<double> health;     // In [0, 1].
  std::optional<bool> has_vanishing;
  std::optional<bool> has_exploding;  // True if a gradient is not finite.
  std::optional<bool> output_finite;  // The seed's features.

  bool measured() const { return health.has_value(); }
};

inline constexpr double kGradientEpsilon = 1e-8;
inline constexpr double kMaxGradientRatio = 10.0;
inline constexpr double kVanishingThreshold = 1e-7;
inline constexpr double kExplodingThreshold = 10.0;
inline constexpr double kGradientEmaDecay = 0.9;

// Intensity is norm / sqrt(elements). The ratio is seed intensity over host
// intensity plus epsilon, at most kMaxGradientRatio; 0 if either norm is below
// epsilon or either count is 0. Absent if a norm is not finite.
std::optional<double> GradientRatio(double seed_norm, int64_t seed_elements,
                                    double host_norm, int64_t host_elements);

// Health of `norms`, one per tensor: 1 - 0.5 (share below the vanishing
// threshold) - 0.8 (share above the exploding one or not finite), in [0, 1]; 0
// if their total is not finite. Without norms nothing is measured.
GradientReading HealthOf(const std::vector<double>& norms);

// Keeps the last gradient sample of a seed until the epoch ends, and then
// reads it with a single device-to-host copy. A value: copies share tensors
// that nobody writes to. Not thread safe.
class GradientMonitor {
 public:
  // Replaces the pending sample. All tensors may be on any one device.
  void Capture(const GradientSample& seed, const GradientSample& host);
  // Replaces the pending finiteness flag: bool, 0-dim.
  void CaptureOutput(const at::Tensor& finite);

  bool pending() const { return captured_ || output_finite_.defined(); }

  // Reads and clears what is pending; absent if nothing is.
  std::optional<GradientReading> Finalize();

  void Clear();

 private:
  GradientSample seed_;
  GradientSample host_;
  at::Tensor output_finite_;
  bool captured_ = false;
};

// Exponential averages of gradient norm and health, and how far the newest
// reading lies from them. momentum 0.99, epsilon 1e-8.
class GradientDrift {
 public:
  struct Result {
    double norm = 0;  // abs(x - average) / (average + epsilon).
    double health = 0;
    bool alarm = false;  // Either above 0.5.
  };

  // Drift is taken against the averages before this reading; the first
  // reading sets them. Absent, with nothing changed, if an input is not finite.
  std::optional<Result> Update(double norm, double health);

  double average_norm() const { return norm_; }
  double average_health() const { return health_; }
  int64_t update_count() const { return count_; }

 private:
  double norm_ = 0;
  double health_ = 1;
  int64_t count_ = 0;
};

}  // namespace esper::slot
#endif  // ESPER_CORE_SLOT_GRADIENT_MONITOR_H_
