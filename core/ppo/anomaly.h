#ifndef ESPER_CORE_PPO_ANOMALY_H_
#define ESPER_CORE_PPO_ANOMALY_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

// What looks wrong in the numbers of an update. An anomaly is a name; none
// stops training.
namespace esper::ppo {

// Limits beyond which a number is worth a name. Defaults are those of the
// reference implementation.
struct AnomalyLimits {
  double ratio_explosion = 5.0;   // Joint ratio above.
  double ratio_collapse = 0.1;    // Joint ratio below.
  double value_loss = 5.0;        // Value loss above.
  double bellman_error = 5.0;     // Mean absolute TD error above.
  double entropy_collapse = 0.1;  // Normalised entropy below.
  double entropy_low = 0.3;
  double kl_extreme = 0.5;  // Divergence above, nats.
  double kl_spike = 0.1;
};

// The scalars of one pass.
struct AnomalyInputs {
  double ratio_max = 1;  // Of the joint ratio.
  double ratio_min = 1;
  bool nonfinite_metric = false;  // NaN or infinity among the scalar metrics.
  bool any_unforced = true;       // Some step left the policy a choice.
  double value_loss = 0;
  double bellman_error = 0;
  std::optional<double> entropy;  // Mean over heads, in [0, 1].
  std::optional<double> kl;
};

// The names, in the order of the checks:
//   ratio_nan_inf, else ratio_explosion and ratio_collapse;
//   numerical_instability; value_collapse (only with an unforced step);
//   entropy_collapse or entropy_low; kl_extreme or kl_spike.
std::vector<std::string> DetectAnomalies(const AnomalyInputs& inputs,
                                         const AnomalyLimits& limits = {});

// Health of a gradient by its norm alone: 0.3 below 1e-7 or above 100, or if it
// is not finite; 1 in between.
double GradientHealth(double norm);

// Watches the entropy of each head over updates: a head that stays under its
// limit three updates in a row has collapsed. The streak ends only above 1.5
// times the limit, so that an entropy at the limit does not flicker.
//
// A value. Not thread-safe.
class HeadCollapseMonitor {
 public:
  static constexpr int64_t kStreak = 3;
  static constexpr double kRecovery = 1.5;

  // Limits by head name, normalised entropy; other heads get `otherwise`.
  explicit HeadCollapseMonitor(
      std::map<std::string, double> limits = DefaultLimits(),
      double otherwise = 0.05);

  // Feeds the entropy of one head in one update. Returns
  // "entropy_collapse_<head>", "entropy_nan_inf_<head>" (the streak then stays
  // as it was), or nothing.
  std::optional<std::string> Update(const std::string& head, double entropy);

  int64_t streak(const std::string& head) const;

  // Of the network-growing policy's heads.
  static std::map<std::string, double> DefaultLimits();

 private:
  std::map<std::string, double> limits_;
  double otherwise_;
  std::map<std::string, int64_t> streaks_;
};

}  // namespace esper::ppo
#endif  // ESPER_CORE_PPO_ANOMALY_H_
