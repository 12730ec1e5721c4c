// Must not compile: a trainer that takes what acting gave for what it trains.
// With ESPER_TRAINS_ON_EVALUATION it is a correct one, and compiles.
#include "core/policy/evaluator.h"
#include "core/policy/gradient_contract.h"
#include "core/policy/sampler.h"

namespace esper::policy {

at::Tensor SurrogateLoss(const Evaluation& evaluation,
                         const ActionSample& sample,
                         const at::Tensor& advantages) {
#ifdef ESPER_TRAINS_ON_EVALUATION
  const DifferentiableTensor& now = evaluation.log_probs;
#else
  const BehaviourTensor& now = sample.log_probs;
#endif
  return PolicyLoss(ImportanceRatio(now, sample.log_probs).ratios, advantages);
}

}  // namespace esper::policy
