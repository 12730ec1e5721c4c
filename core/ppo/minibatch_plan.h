#ifndef ESPER_CORE_PPO_MINIBATCH_PLAN_H_
#define ESPER_CORE_PPO_MINIBATCH_PLAN_H_

#include <cstdint>
#include <vector>

namespace esper::ppo {

// How often and in what pieces an update goes over its batch.
struct UpdateShape {
  int64_t passes = 4;       // Over the whole batch, >= 1.
  int64_t minibatches = 1;  // Optimiser steps per pass, >= 1.
  uint64_t shuffle_seed = 0;

  // One pass, one step: every ratio is 1 in it.
  static UpdateShape Upstream() { return {1, 1, 0}; }
  // Throws InvalidArgumentError (MALFORMED_REQUEST), naming the field: a number
  // below 1, more minibatches than rows, or several steps with value clipping
  // (`value_clip` > 0), which would clip around values of the first step's
  // policy for ever.
  void Check(int64_t rows, double value_clip) const;
};

// Minibatches of whole rows, shuffled by row. A row is a recorded episode: it
// is never cut, because its recurrent state is made from its first step.
//
// Counter-based: the order of a pass is a function of seed and pass alone, so
// that any pass can be repeated, or continued after a restart. Every row is in
// exactly one minibatch of a pass; sizes differ by at most one.
//
// An immutable value; thread-safe.
class MinibatchPlan {
 public:
  // 1 <= minibatches <= rows.
  MinibatchPlan(int64_t rows, int64_t minibatches, uint64_t seed);

  // Rows of one minibatch in ascending order. `minibatch` < minibatches.
  std::vector<int64_t> Rows(int64_t pass, int64_t minibatch) const;

  int64_t rows() const { return rows_; }
  int64_t minibatches() const { return minibatches_; }

 private:
  int64_t rows_;
  int64_t minibatches_;
  uint64_t seed_;
};

}  // namespace esper::ppo
#endif  // ESPER_CORE_PPO_MINIBATCH_PLAN_H_
