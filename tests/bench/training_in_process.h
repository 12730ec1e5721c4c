#ifndef ESPER_TESTS_BENCH_TRAINING_IN_PROCESS_H_
#define ESPER_TESTS_BENCH_TRAINING_IN_PROCESS_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/policy/policy_spec.h"
#include "core/policy/training_precision.h"
#include "core/ppo/learner.h"
#include "core/ppo/trajectory.h"
#include "core/tensor/safetensors.h"
#include "tests/bench/training_loss.h"

namespace esper::bench {

// The network-growing policy, 512 wide, with the floors of the reference
// project, so that the twin computes the same.
policy::PolicySpec BenchSpec();

// Evaluates one batch of that policy, differentiates a
// client's loss of it and takes the gradient, without a server. One thread.
class InProcessTraining {
 public:
  // `rows` episodes of `steps` steps.
  static absl::StatusOr<std::unique_ptr<InProcessTraining>> Create(
      int64_t rows, int64_t steps, policy::TrainingPrecision precision);

  // Evaluate, loss, backward. The gradient is dropped first.
  absl::Status Step();
  // The loss of the last step.
  double loss() const { return loss_; }
  // Of the last step, by parameter.
  tensor::NamedTensors Gradients() const { return learner_->Gradients(); }

  // Weights, batch, targets, and the loss and gradient of one step, for the
  // twin, as a safetensors file.
  absl::Status Export(const std::string& path);

 private:
  std::unique_ptr<ppo::Learner> learner_;
  std::vector<ppo::Trajectory> episodes_;
  LossTargets targets_;
  double loss_ = 0;
};

}  // namespace esper::bench
#endif  // ESPER_TESTS_BENCH_TRAINING_IN_PROCESS_H_
