#ifndef ESPER_CORE_PPO_SCHEDULE_H_
#define ESPER_CORE_PPO_SCHEDULE_H_

#include <cstdint>

namespace esper::ppo {

// Coefficients of the loss as functions of the number of finished updates. All
// are values: they hold settings, never a position. Thread-safe.

// Coefficient of the entropy bonus: linear from `start` to `end` over
// `anneal_updates`, never below `minimum`. Without annealing it is
// max(fixed, minimum).
struct EntropySchedule {
  double fixed = 0.05;         // >= 0.
  double start = 0.05;         // >= 0; read only when annealing.
  double end = 0.05;           // >= 0; read only when annealing.
  int64_t anneal_updates = 0;  // 0: no annealing.
  double minimum = 0.01;       // >= 0.

  double At(int64_t updates) const;
};

// Coefficient of the value loss: linear from `start` to `target` over
// `warmup_updates`; 0 updates means `target` from the first.
struct ValueSchedule {
  double target = 0.5;  // >= 0.
  double start = 0.05;  // >= 0; read only when warming up.
  int64_t warmup_updates = 0;

  double At(int64_t updates) const;
};

// Coefficient of the contribution auxiliary loss: grows linearly from 0 to
// `coefficient` over `warmup_updates`.
struct ContributionSchedule {
  double coefficient = 0.05;  // >= 0; 0 turns the term off.
  int64_t warmup_updates = 1000;

  double At(int64_t updates) const;
};

// Factor on the entropy-floor penalty: 1.5 in the first quarter of training,
// 1.0 up to three quarters, then down linearly to 0.5 at the end. `progress` is
// clamped to [0, 1].
double FloorPenaltyFactor(double progress);

}  // namespace esper::ppo
#endif  // ESPER_CORE_PPO_SCHEDULE_H_
