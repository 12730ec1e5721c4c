#include "server/loss_messages.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/error.h"
#include "proto/config/field_rules.h"
#include "server/ppo_messages.h"
#include "server/refusal.h"

namespace esper::server {
namespace {

absl::StatusOr<ppo::PassOptions> Decode(
    const v1::ImportanceSamplingLoss& message) {
  absl::Status valid = config::CheckFields(message, "importance_sampling");
  if (!valid.ok()) return valid;
  ppo::ImportanceSamplingOptions options;
  if (message.has_gamma()) options.gamma = message.gamma();
  if (message.has_rho_bar()) options.rho_bar = message.rho_bar();
  options.c_bar = message.has_c_bar()
                      ? message.c_bar()
                      : std::min(options.c_bar, options.rho_bar);
  if (message.has_trace_lambda()) options.trace_lambda = message.trace_lambda();
  if (message.has_reward_clip()) options.reward_clip = message.reward_clip();
  if (message.has_value_coef()) options.value_coef = message.value_coef();
  if (message.has_entropy_coef()) options.entropy_coef = message.entropy_coef();
  if (message.has_contribution_coef()) {
    options.contribution_coef = message.contribution_coef();
  }
  if (message.has_contribution_clip()) {
    options.contribution_clip = message.contribution_clip();
  }
  if (message.has_max_version_lag()) {
    options.max_version_lag = message.max_version_lag();
  }
  if (message.has_ratio_alarm()) options.ratio_alarm = message.ratio_alarm();
  if (message.has_ratio_refuse()) options.ratio_refuse = message.ratio_refuse();
  try {
    options.Check();  // What concerns two fields: c_bar <= rho_bar.
  } catch (const Error& error) {
    return ToStatus(error);
  }
  return ppo::PassOptions(std::move(options));
}

absl::StatusOr<ppo::PassOptions> Decode(
    const v1::BehaviourCloningLoss& message) {
  absl::Status valid = config::CheckFields(message, "behaviour_cloning");
  if (!valid.ok()) return valid;
  ppo::BehaviourCloningOptions options;
  if (message.has_entropy_coef()) options.entropy_coef = message.entropy_coef();
  return ppo::PassOptions(std::move(options));
}

template <typename Request>
absl::StatusOr<ppo::PassOptions> DecodeLossOf(const Request& request) {
  if (!v1::Profile_IsValid(request.profile())) {
    return Refuse(
        "MALFORMED_REQUEST", "profile",
        absl::StrCat("profile = ", request.profile(), " is no known profile."),
        "Leave it unset for the default profile.");
  }
  if (request.has_ppo()) {
    auto options = DecodePpoLoss(request.ppo(), request.profile());
    if (!options.ok()) return options.status();
    return ppo::PassOptions(*std::move(options));
  }
  if (request.has_importance_sampling()) {
    return Decode(request.importance_sampling());
  }
  if (request.has_behaviour_cloning()) {
    return Decode(request.behaviour_cloning());
  }
  return Refuse("MALFORMED_REQUEST", "loss", "The request names no loss.",
                "Set ppo, importance_sampling or behaviour_cloning, or use "
                "EvaluateActions with a loss of your own.");
}

v1::ImportanceSamplingLoss Encode(
    const ppo::ImportanceSamplingOptions& options) {
  v1::ImportanceSamplingLoss message;
  message.set_gamma(options.gamma);
  message.set_rho_bar(options.rho_bar);
  message.set_c_bar(options.c_bar);
  message.set_trace_lambda(options.trace_lambda);
  message.set_reward_clip(options.reward_clip);
  message.set_value_coef(options.value_coef);
  message.set_entropy_coef(options.entropy_coef);
  message.set_contribution_coef(options.contribution_coef);
  message.set_contribution_clip(options.contribution_clip);
  message.set_max_version_lag(options.max_version_lag);
  message.set_ratio_alarm(options.ratio_alarm);
  message.set_ratio_refuse(options.ratio_refuse);
  return message;
}

}  // namespace

absl::StatusOr<ppo::PassOptions> DecodeLoss(
    const v1::ForwardBackwardRequest& request) {
  return DecodeLossOf(request);
}

absl::StatusOr<ppo::PassOptions> DecodeLoss(
    const v1::UpdatePolicyRequest& request) {
  return DecodeLossOf(request);
}

void EncodeEffective(const ppo::PassOptions& options,
                     const ppo::LossOptions& used,
                     v1::ForwardBackwardResponse* response) {
  if (const auto* ppo = std::get_if<ppo::PpoOptions>(&options)) {
    *response->mutable_effective() = EncodePpoLoss(*ppo, used);
  } else if (const auto* importance =
                 std::get_if<ppo::ImportanceSamplingOptions>(&options)) {
    *response->mutable_effective_importance_sampling() = Encode(*importance);
  } else if (const auto* cloning =
                 std::get_if<ppo::BehaviourCloningOptions>(&options)) {
    response->mutable_effective_behaviour_cloning()->set_entropy_coef(
        cloning->entropy_coef);
  }
}

}  // namespace esper::server
