#ifndef ESPER_TESTS_CORE_POLICY_TEST_POLICY_H_
#define ESPER_TESTS_CORE_POLICY_TEST_POLICY_H_

#include <memory>
#include <utility>
#include <vector>

#include "ATen/core/Generator.h"
#include "ATen/core/Tensor.h"
#include "core/policy/evaluator.h"
#include "core/policy/inference_policy.h"
#include "core/policy/recurrent_policy.h"

namespace esper::policy {

// A freshly initialised policy in both forms, with livelier weights than
// initialisation gives, and random inputs to it. Draws from a generator of its
// own.
class TestPolicy {
 public:
  explicit TestPolicy(const PolicySpec& spec);

  const PolicySpec& spec() const { return module_->spec(); }
  RecurrentPolicy& module() { return *module_; }  // In evaluation mode.
  const InferencePolicy& inference() const { return *inference_; }

  at::Tensor Normal(at::IntArrayRef sizes);
  // True with probability 1/2.
  at::Tensor Bits(at::IntArrayRef sizes);
  std::vector<NoiseKey> Keys(int64_t batch) const;
  // Masks with at least one choice for every head, bool [rows, A].
  at::Tensor RandomMasks(int64_t rows);
  // A random step with state and masks, conditional ones included.
  PolicyInputs RandomStep(int64_t batch);

  // One acted step: what was given, what came out, and the same as a recorded
  // sequence of one step.
  struct Step {
    PolicyInputs inputs;
    ActionSample sample;
    EvaluationInputs recorded;
  };
  Step SampleStep(int64_t batch);
  std::pair<ActionSample, EvaluationInputs> SampleAndRecord(int64_t batch);
  // Numbers of one acted step in the shape [B, 1, K] of an evaluation.
  BehaviourTensor Recorded(const ActionSample& sample) const;
  // Whole episodes acted step by step: log-probs [B, T, K], and the recording.
  std::pair<at::Tensor, EvaluationInputs> Rollout(int64_t batch, int64_t steps);

 private:
  // `base` masks with the conditional head's replaced by the row in force.
  at::Tensor MasksInForce(const at::Tensor& base, const at::Tensor& conditional,
                          const at::Tensor& actions) const;

  std::shared_ptr<RecurrentPolicy> module_;
  std::shared_ptr<const InferencePolicy> inference_;
  at::Generator generator_;
};

}  // namespace esper::policy
#endif  // ESPER_TESTS_CORE_POLICY_TEST_POLICY_H_
