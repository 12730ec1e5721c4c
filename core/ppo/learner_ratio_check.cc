#include <algorithm>

#include "ATen/ops/zeros.h"
#include "absl/strings/str_cat.h"
#include "core/error.h"
#include "core/ppo/learner_core.h"

// Whether acting and training agree.
namespace esper::ppo {

void LearnerCore::CheckRatios(const PreparedBatch& prepared, at::Tensor now,
                              bool first_pass, const RatioLimits& limits,
                              ForwardBackwardReport* report) {
  const TrajectoryBatch& batch = prepared.batch;
  if (counters.steps_since_publish > 0) {
    // Later passes of an update have moved on by design. A first pass on
    // moved weights means that an update was left unfinished: the published
    // weights are the ones that acted.
    if (!first_pass) return;
    now = at::zeros(batch.behaviour_log_probs.sizes(), at::kFloat);
    policy::EvaluateReference(Anchor(), prepared.inputs, Evaluating())
        .log_probs.CopyTo(now);
  }
  // Up to the first step of another version: behind it the recurrent state
  // was made by other weights, and differs rightly.
  const at::Tensor current = batch.policy_versions.eq(counters.version);
  const at::Tensor counted =
      batch.valid.logical_and(current.to(at::kLong).cumprod(1).to(at::kBool));
  const LogProbDifference difference =
      CompareLogProbs(now, batch.behaviour_log_probs, counted);
  if (difference.steps == 0) return;
  report->ratio_check_max = difference.max;
  report->ratio_check_mean = difference.mean;
  const bool bf16 = config.precision == policy::TrainingPrecision::kBf16;
  const double refuse =
      std::max(limits.ratio_refuse, bf16 ? kBf16RatioRefuse : 0.0);
  report->ratio_alarm = difference.max > std::max(limits.ratio_alarm,
                                                  bf16 ? kBf16RatioAlarm : 0.0);
  if (difference.max <= refuse) return;
  ErrorDetail detail;
  detail.reason = "BEHAVIOUR_MISMATCH";
  detail.field = spec.heads[difference.head].name;
  detail.row = difference.row;
  detail.step = difference.step;
  detail.tensor = "behaviour_log_probs";
  detail.hint =
      "Send observations, masks and initial state exactly as they were "
      "acted on.";
  throw Error(
      CodeOfReason(detail.reason), detail,
      absl::StrCat("The recorded log-probability of head ", detail.field,
                   " in row ", difference.row, " at step ", difference.step,
                   " differs by ", difference.max,
                   " from what the same version gives now; the limit "
                   "is ",
                   refuse, "."));
}

}  // namespace esper::ppo
