#ifndef ESPER_CORE_PPO_PASS_DIAGNOSIS_H_
#define ESPER_CORE_PPO_PASS_DIAGNOSIS_H_

#include "core/policy/evaluator.h"
#include "core/policy/recurrent_policy.h"
#include "core/policy/recurrent_state.h"
#include "core/ppo/anomaly.h"
#include "core/ppo/learner.h"
#include "core/ppo/losses.h"

namespace esper::ppo {

// What of a pass, besides its report, is looked at for anomalies.
struct PassDiagnosis {
  // Memory, Q and collapsing heads are looked at once per update.
  bool first_pass = false;
  // Of a loss that assumes them near 1; null otherwise.
  const RatioStatistics* ratios = nullptr;
  policy::RecurrentState state;  // After the last step, detached.
};

// Names in `report` what looks wrong in its metrics, and adds those of memory
// and Q in a first pass, which feeds `collapse`. For whole batches and
// minibatches: a part of a batch has no numbers of its own to judge.
void Diagnose(const policy::RecurrentPolicy& network,
              const policy::EvaluationInputs& inputs,
              const PassDiagnosis& diagnosis, HeadCollapseMonitor* collapse,
              ForwardBackwardReport* report);

}  // namespace esper::ppo
#endif  // ESPER_CORE_PPO_PASS_DIAGNOSIS_H_
