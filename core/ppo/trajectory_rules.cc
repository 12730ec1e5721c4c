#include "core/ppo/trajectory_rules.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/error.h"
#include "core/policy/diagonal_gaussian.h"
#include "core/tensor/checks.h"

namespace esper::ppo {
namespace {

constexpr float kLogProbSlack = 1e-5f;  // Rounding of a probability of 1.
constexpr float kSmallestLogProb = -1e3f;

[[noreturn]] void Refuse(const std::string& reason, const std::string& field,
                         int64_t row, int64_t step, const std::string& message,
                         const std::string& hint) {
  ErrorDetail detail;
  detail.reason = reason;
  detail.field = field;
  detail.row = row;
  detail.step = step;
  detail.hint = hint;
  throw Error(CodeOfReason(reason), detail, message);
}

std::string NameOf(const Trajectory& trajectory, int64_t row) {
  return trajectory.episode.empty()
             ? absl::StrCat("The episode in row ", row)
             : absl::StrCat("Episode ", trajectory.episode, " in row ", row);
}

// Throws ShapeError unless `x` is a contiguous host tensor of this dtype and
// shape.
void CheckTensor(const at::Tensor& x, const std::string& name,
                 at::ScalarType dtype, const std::vector<int64_t>& sizes) {
  if (x.defined() && x.scalar_type() == dtype && x.device().is_cpu() &&
      x.sizes().vec() == sizes && x.is_contiguous()) {
    return;
  }
  throw ShapeError(name,
                   absl::StrCat("contiguous ", c10::toString(dtype), " [",
                                absl::StrJoin(sizes, ", "), "] on the host"),
                   tensor::Describe(x));
}

// As CheckTensor, for a tensor that may be absent.
void CheckOptional(const at::Tensor& x, const std::string& name,
                   at::ScalarType dtype, const std::vector<int64_t>& sizes) {
  if (x.defined()) CheckTensor(x, name, dtype, sizes);
}

void CheckFinite(const at::Tensor& x, const std::string& name, int64_t row,
                 bool has_steps = true) {
  if (!x.defined()) return;
  const int64_t position = tensor::FirstNonFinite(x);
  if (position < 0) return;
  const int64_t step = has_steps ? position / (x.numel() / x.size(0)) : -1;
  throw NonFiniteError::Input(name, row, step);
}

}  // namespace

TrajectoryRules::TrajectoryRules(const policy::PolicySpec& spec,
                                 int64_t max_length)
    : spec_(spec),
      layout_(spec),
      digest_(spec.Digest()),
      max_length_(max_length) {
  for (int64_t k = 0; k < spec_.num_heads(); ++k) {
    const int64_t driver = spec_.DriverOf(k);
    if (driver < 0) continue;
    const bool idles = spec_.heads[driver].idle_choice >= 0;
    if (driver_ < 0 || (idles && spec_.heads[driver_].idle_choice < 0)) {
      driver_ = driver;
    }
  }
}

absl::Status TrajectoryRules::Validate(const Trajectory& trajectory,
                                       int64_t row, TrajectoryUse use) const {
  const bool outcomes = use == TrajectoryUse::kReinforcement;
  try {
    CheckHeader(trajectory, row);
    if (outcomes) CheckEnd(trajectory, row);
    CheckShapes(trajectory);
    if (outcomes) CheckOutcomeShapes(trajectory);
    CheckNumbers(trajectory, row);
    if (outcomes) CheckOutcomeNumbers(trajectory, row);
    CheckChoices(trajectory, row, use);
  } catch (const Error& error) {
    if (error.detail().row >= 0) return ToStatus(error);
    ErrorDetail detail = error.detail();
    detail.row = row;
    return ToStatus(
        Error(error.code(), detail,
              absl::StrCat(NameOf(trajectory, row), ": ", error.what())));
  }
  return absl::OkStatus();
}

at::Tensor TrajectoryRules::Available(const at::Tensor& masks) const {
  at::Tensor available = layout_.Availability(masks);
  for (int64_t k = 0; k < layout_.num_heads(); ++k) {
    if (layout_.driver(k) < 0) available.select(1, k).fill_(true);
  }
  return available;
}

void TrajectoryRules::CheckHeader(const Trajectory& trajectory,
                                  int64_t row) const {
  const std::string name = NameOf(trajectory, row);
  if (trajectory.spec_digest != digest_) {
    Refuse("SPEC_MISMATCH", "spec_digest", row, -1,
           absl::StrCat(name, " was recorded under the specification ",
                        trajectory.spec_digest.empty() ? "(none)"
                                                       : trajectory.spec_digest,
                        ", this policy's is ", digest_, "."),
           "Train on episodes that this policy's specification produced.");
  }
  if (trajectory.length() < 1) {
    Refuse("MALFORMED_REQUEST", "observations", row, -1,
           absl::StrCat(name, " has no steps."), "Leave empty episodes out.");
  }
  if (trajectory.length() > max_length_) {
    Refuse("BUDGET_EXCEEDED", "max_episode_length", row, -1,
           absl::StrCat(name, " has ", trajectory.length(), " steps, ",
                        max_length_, " are allowed."),
           "Cut long episodes and mark the parts as truncated.");
  }
}

void TrajectoryRules::CheckEnd(const Trajectory& trajectory,
                               int64_t row) const {
  const std::string name = NameOf(trajectory, row);
  if (trajectory.end == EpisodeEnd::kUnset) {
    Refuse("MALFORMED_REQUEST", "end_kind", row, -1,
           absl::StrCat(name, " is neither terminated nor truncated."),
           "Say how the episode ended; aborted ones cannot be trained on.");
  }
  const bool truncated = trajectory.end == EpisodeEnd::kTruncated;
  if (truncated && !trajectory.bootstrap_value.has_value()) {
    Refuse("MALFORMED_REQUEST", "bootstrap_value", row, -1,
           absl::StrCat(name, " is truncated but has no bootstrap value."),
           "Send the value of the final observation, as CloseEpisodes gave "
           "it.");
  }
  const float bootstrap = trajectory.bootstrap_value.value_or(0.0f);
  if (!std::isfinite(bootstrap)) {
    throw NonFiniteError::Input("bootstrap_value", row);
  }
  if (!truncated && bootstrap != 0) {
    Refuse("MALFORMED_REQUEST", "bootstrap_value", row, -1,
           absl::StrCat(name, " is terminated but has a bootstrap value."),
           "A terminated episode has no future: leave it out.");
  }
}

void TrajectoryRules::CheckShapes(const Trajectory& trajectory) const {
  const Trajectory& t = trajectory;
  const int64_t steps = t.length(), heads = spec_.num_heads();
  CheckTensor(t.observations, "observations", at::kFloat,
              {steps, spec_.observation_width()});
  if (spec_.categorical_count() > 0) {
    CheckTensor(t.categorical, "categorical", at::kLong,
                {steps, spec_.categorical_count()});
  } else if (t.categorical.defined()) {
    throw ShapeError("categorical", "absent: the policy has no such input",
                     tensor::Describe(t.categorical));
  }
  CheckTensor(t.action_masks, "action_masks", at::kBool,
              {steps, layout_.width()});
  CheckTensor(t.actions, "actions", at::kLong, {steps, heads});
  if (layout_.continuous_width() > 0) {
    CheckTensor(t.continuous_actions, "continuous_actions", at::kFloat,
                {steps, layout_.continuous_width()});
  } else if (t.continuous_actions.defined()) {
    throw ShapeError("continuous_actions",
                     "absent: the policy has no Gaussian head",
                     tensor::Describe(t.continuous_actions));
  }
  CheckOptional(t.effective_choices, "effective_choices", at::kLong, {steps});
  CheckOptional(t.forced, "forced", at::kBool, {steps});
  if (t.initial_h.defined() != t.initial_c.defined()) {
    throw ShapeError("initial_c", "sent together with initial_h",
                     tensor::Describe(t.initial_c));
  }
  const std::vector<int64_t> state = {spec_.lstm_layers, spec_.hidden_dim};
  CheckOptional(t.initial_h, "initial_h", at::kFloat, state);
  CheckOptional(t.initial_c, "initial_c", at::kFloat, state);
}

void TrajectoryRules::CheckOutcomeShapes(const Trajectory& trajectory) const {
  const Trajectory& t = trajectory;
  const int64_t steps = t.length(), heads = spec_.num_heads();
  CheckTensor(t.behaviour_log_probs, "behaviour_log_probs", at::kFloat,
              {steps, heads});
  CheckTensor(t.values, "values", at::kFloat, {steps});
  CheckTensor(t.rewards, "rewards", at::kFloat, {steps});
  CheckTensor(t.policy_versions, "policy_versions", at::kLong, {steps});
  const int64_t outputs = spec_.contribution_outputs;
  if (t.contribution_targets.defined() != t.contribution_mask.defined()) {
    throw ShapeError("contribution_mask", "sent together with the targets",
                     tensor::Describe(t.contribution_mask));
  }
  CheckOptional(t.contribution_targets, "contribution_targets", at::kFloat,
                {steps, outputs});
  CheckOptional(t.contribution_mask, "contribution_mask", at::kBool,
                {steps, outputs});
  CheckOptional(t.contribution_fresh, "contribution_fresh", at::kBool, {steps});
}

void TrajectoryRules::CheckNumbers(const Trajectory& trajectory,
                                   int64_t row) const {
  const Trajectory& t = trajectory;
  CheckFinite(t.observations, "observations", row);
  CheckFinite(t.continuous_actions, "continuous_actions", row);
  CheckFinite(t.initial_h, "initial_h", row, /*has_steps=*/false);
  CheckFinite(t.initial_c, "initial_c", row, /*has_steps=*/false);
  if (t.categorical.defined()) {
    const int64_t position = tensor::FirstOutside(
        t.categorical, -1, spec_.categorical->cardinality - 1);
    if (position >= 0) {
      const int64_t step = position / t.categorical.size(1);
      Refuse("BAD_BLUEPRINT_INDEX", spec_.categorical->name, row, step,
             absl::StrCat("The categorical input in row ", row, " at step ",
                          step, " is outside [-1, ",
                          spec_.categorical->cardinality - 1, "]."),
             "Send -1 for nothing, otherwise an index in range.");
    }
  }
}

void TrajectoryRules::CheckOutcomeNumbers(const Trajectory& trajectory,
                                          int64_t row) const {
  const Trajectory& t = trajectory;
  CheckFinite(t.rewards, "rewards", row);
  CheckFinite(t.values, "values", row);
  CheckFinite(t.behaviour_log_probs, "behaviour_log_probs", row);
  CheckFinite(t.contribution_targets, "contribution_targets", row);
  const int64_t version = tensor::FirstOutside(t.policy_versions, 1, INT64_MAX);
  if (version >= 0) {
    Refuse("UNKNOWN_VERSION", "policy_versions", row, version,
           absl::StrCat("Policy versions start at 1; row ", row, " at step ",
                        version, " has a lower one."),
           "Send the version that GetAction returned.");
  }
}

void TrajectoryRules::CheckChoices(const Trajectory& trajectory, int64_t row,
                                   TrajectoryUse use) const {
  const int64_t steps = trajectory.length(), heads = layout_.num_heads();
  const int64_t* actions = trajectory.actions.const_data_ptr<int64_t>();
  for (int64_t t = 0; t < steps; ++t) {
    const int64_t* taken = actions + t * heads;
    for (int64_t k = 0; k < heads; ++k) {
      // A Gaussian head has no choices; 0 stands for it.
      const int64_t choices = layout_.is_gaussian(k) ? 1 : layout_.size(k);
      if (taken[k] >= 0 && taken[k] < choices) continue;
      throw InvalidActionError(
          spec_.heads[k].name, row, t, taken[k],
          absl::StrCat("is outside [0, ", choices - 1, "]"));
    }
    for (int64_t k = 0; k < heads; ++k) {
      const int64_t driver = layout_.driver(k);
      const bool used = driver < 0 || layout_.Relevant(k, taken[driver]);
      if (layout_.is_gaussian(k)) {
        CheckGaussian(trajectory, row, t, k, used);
      } else {
        CheckChoice(trajectory, row, t, k, used);
      }
      if (use == TrajectoryUse::kReinforcement) {
        CheckLogProb(trajectory, row, t, k, used);
      }
    }
    CheckEffective(trajectory, row, t);
  }
}

void TrajectoryRules::CheckChoice(const Trajectory& trajectory, int64_t row,
                                  int64_t t, int64_t k, bool used) const {
  const std::string& name = spec_.heads[k].name;
  const int64_t taken =
      trajectory.actions.const_data_ptr<int64_t>()[t * layout_.num_heads() + k];
  const bool* mask = trajectory.action_masks.const_data_ptr<bool>() +
                     t * layout_.width() + layout_.offset(k);
  const bool* first = std::find(mask, mask + layout_.size(k), true);
  const bool empty = first == mask + layout_.size(k);
  if (used) {
    if (empty) throw EmptyMaskError(name, row, t);
    if (mask[taken]) return;
    throw InvalidActionError(name, row, t, taken, "is disallowed by its mask");
  }
  int64_t placeholder = layout_.placeholder(k);
  if (placeholder < 0) placeholder = empty ? 0 : first - mask;
  if (taken == placeholder) return;
  throw InvalidActionError(
      name, row, t, taken,
      absl::StrCat("is not the placeholder ", placeholder,
                   " of a head that the driver's choice does not use"));
}

void TrajectoryRules::CheckGaussian(const Trajectory& trajectory, int64_t row,
                                    int64_t t, int64_t k, bool used) const {
  if (used) return;
  const float* values = trajectory.continuous_actions.const_data_ptr<float>() +
                        t * layout_.continuous_width() +
                        layout_.continuous_offset(k);
  if (std::all_of(values, values + layout_.dimensions(k),
                  [](float value) { return value == 0; })) {
    return;
  }
  const std::string& name = spec_.heads[k].name;
  Refuse(
      "INVALID_ACTION", name, row, t,
      absl::StrCat("The values of head ", name, " in row ", row, " at step ", t,
                   " are not zeros, though the driver's choice does not "
                   "use the head."),
      "Send the continuous actions that GetAction returned.");
}

void TrajectoryRules::CheckLogProb(const Trajectory& trajectory, int64_t row,
                                   int64_t t, int64_t k, bool used) const {
  const float log_prob =
      trajectory.behaviour_log_probs
          .const_data_ptr<float>()[t * layout_.num_heads() + k];
  const float dimensions =
      layout_.is_gaussian(k) ? static_cast<float>(layout_.dimensions(k)) : 0;
  // A density may be above 1, by as much as deviations may be below 1.
  const float largest =
      kLogProbSlack + dimensions * static_cast<float>(policy::kLogStdLimit);
  const float smallest = kSmallestLogProb * std::max(dimensions, 1.0f);
  if (used ? log_prob <= largest && log_prob >= smallest
           : std::fabs(log_prob) <= kLogProbSlack) {
    return;
  }
  const std::string& name = spec_.heads[k].name;
  Refuse("BAD_BEHAVIOUR", name, row, t,
         absl::StrCat("The behaviour log-probability ", log_prob, " of head ",
                      name, " in row ", row, " at step ", t,
                      used ? absl::StrCat(" is not in [", smallest, ", ",
                                          largest - kLogProbSlack, "].")
                           : " is not 0, though the driver's choice does "
                             "not use the head."),
         "Send the log-probabilities that GetAction returned.");
}

void TrajectoryRules::CheckEffective(const Trajectory& trajectory, int64_t row,
                                     int64_t t) const {
  if (!trajectory.effective_choices.defined() || driver_ < 0) return;
  const int64_t effective =
      trajectory.effective_choices.const_data_ptr<int64_t>()[t];
  const int64_t taken =
      trajectory.actions
          .const_data_ptr<int64_t>()[t * layout_.num_heads() + driver_];
  const policy::HeadSpec& head = spec_.heads[driver_];
  if (effective != taken && effective != head.idle_choice) {
    throw InvalidActionError(
        head.name, row, t, effective,
        absl::StrCat("took effect, though ", taken,
                     " was chosen: only that or the idle choice ",
                     head.idle_choice, " can"));
  }
  if (effective < 0) {
    throw InvalidActionError(head.name, row, t, effective, "is negative");
  }
}

}  // namespace esper::ppo
