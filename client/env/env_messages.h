#ifndef ESPER_CLIENT_ENV_ENV_MESSAGES_H_
#define ESPER_CLIENT_ENV_ENV_MESSAGES_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "client/policy_client.h"
#include "core/env/episode_types.h"
#include "core/policy/actions.h"
#include "esper/v1/coordinator.pb.h"

// Between the environment's records and what travels. Pure functions.
namespace esper::client {

// What the policy is shown of an observation.
PolicyInput ToPolicyInput(const env::Observation& observation);

// INVALID_ARGUMENT if the policy's heads are not those of this environment.
absl::StatusOr<policy::FactoredAction> ToFactoredAction(const ActionRow& row,
                                                        int num_slots);

StepOutcome ToStepOutcome(const env::StepResult& result);

// `slot_ids` in action order.
v1::StepReport ToStepReport(const env::StepResult& result,
                            const std::vector<std::string>& slot_ids);

// END_KIND_ABORTED unless it was terminated or truncated.
v1::EndKind EndKindOf(bool terminated, bool truncated);

v1::EpisodeSummary ToSummary(const env::EpisodeSummary& summary);

}  // namespace esper::client
#endif  // ESPER_CLIENT_ENV_ENV_MESSAGES_H_
