#include "core/ppo/learner_core.h"

// A point to come back to.
namespace esper::ppo {

std::shared_ptr<const LearnerMark> LearnerCore::Mark() const {
  std::vector<at::Tensor> gradients;
  for (const at::Tensor& parameter : parameters) {
    gradients.push_back(parameter.grad());
  }
  return std::make_shared<LearnerMark>(LearnerMark{
      identity, generation, network->StateDict(), std::move(gradients),
      adam.slots(), adam.options().learning_rate, statistics, start, deviation,
      value_units, scaler_moments, snapshot, counters, moved_since_publish,
      pass_options, step_options, drift, collapse});
}

void LearnerCore::ReturnTo(const LearnerMark& mark) {
  TORCH_CHECK(mark.identity == identity, "the mark is another learner's");
  if (mark.generation != generation) {
    const absl::Status status = network->LoadStateDict(mark.weights);
    TORCH_INTERNAL_ASSERT(status.ok(), status.ToString());
    // Graphs made before the weights moved cannot be used again.
    generation = NextIdentity();
  }
  PutGradients(mark.gradients);
  adam.slots() = mark.slots;
  adam.options().learning_rate = mark.learning_rate;
  statistics = mark.statistics;
  start = mark.start;
  deviation = mark.deviation;
  value_units = mark.value_units;
  scaler_moments = mark.scaler_moments;
  snapshot = mark.snapshot;
  counters = mark.counters;
  moved_since_publish = mark.moved_since_publish;
  pass_options = mark.pass_options;
  step_options = mark.step_options;
  drift = mark.drift;
  collapse = mark.collapse;
  anchor_ = nullptr;
}

}  // namespace esper::ppo
