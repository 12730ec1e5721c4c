#ifndef ESPER_CORE_PPO_LSTM_HEALTH_H_
#define ESPER_CORE_PPO_LSTM_HEALTH_H_

#include <string>
#include <vector>

#include "ATen/core/Tensor.h"

namespace esper::ppo {

// Size of one part (h or c) of a recurrent state. RMS is L2 norm / sqrt(number
// of elements).
struct StateSize {
  double l2 = 0;
  double rms = 0;
  double row_rms_mean = 0;  // Over rows, each over layers and width.
  double row_rms_max = 0;
  double max = 0;  // Largest magnitude.
};

// Health of recurrent memory: whether it saturates, dies or is broken.
struct LstmHealth {
  static constexpr double kExplosion = 10.0;  // Largest row RMS above.
  static constexpr double kVanishing = 1e-6;  // Overall RMS below.

  StateSize h;
  StateSize c;
  bool has_nan = false;
  bool has_inf = false;

  // "lstm_nan", "lstm_inf", "lstm_h_explosion", "lstm_h_vanishing" and the
  // same for c; empty if all is well.
  std::vector<std::string> Anomalies() const;
  bool healthy() const { return Anomalies().empty(); }
};

// h, c: floating point [L, B, H], host, B >= 1. No gradient. Thread-safe.
LstmHealth MeasureLstm(const at::Tensor& h, const at::Tensor& c);

}  // namespace esper::ppo
#endif  // ESPER_CORE_PPO_LSTM_HEALTH_H_
