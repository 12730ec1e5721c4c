#ifndef ESPER_CLIENT_ENV_TRAJECTORY_RECORDER_H_
#define ESPER_CLIENT_ENV_TRAJECTORY_RECORDER_H_

#include <cstdint>
#include <string>
#include <vector>

#include "client/policy_client.h"
#include "esper/v1/trajectory.pb.h"

namespace esper::client {

// Records one episode, step by step, as the message that training takes. Holds
// what the policy was shown and answered, exactly as it travelled.
//
// Thread safety: none.
class TrajectoryRecorder {
 public:
  // One step: what the policy saw, what it answered, what came of it. Rows must
  // have the same widths at every step.
  void Add(const PolicyInput& input, const ActionRow& action,
           const StepOutcome& outcome);

  // Makes the rewards of all steps but the last one 0.
  void ForfeitEarlierRewards();

  int64_t steps() const { return static_cast<int64_t>(rewards_.size()); }

  // The episode. `bootstrap_value` counts for END_KIND_TRUNCATED only.
  v1::Trajectory Finish(const std::string& spec_digest,
                        const std::string& episode_key, v1::EndKind end_kind,
                        float bootstrap_value) const;

 private:
  std::vector<float> observations_;   // [T, D].
  std::vector<int8_t> categorical_;   // [T, S].
  std::vector<uint8_t> masks_;        // [T, M].
  std::vector<int64_t> actions_;      // [T, K].
  std::vector<float> continuous_;     // [T, C].
  std::vector<float> log_probs_;      // [T, K].
  std::vector<float> values_;         // [T].
  std::vector<int64_t> versions_;     // [T].
  std::vector<float> rewards_;        // [T].
  std::vector<int64_t> effective_;    // [T].
  std::vector<uint8_t> forced_;       // [T].
  std::vector<float> targets_;        // [T, S]; 0 where not measured.
  std::vector<uint8_t> target_mask_;  // [T, S].
  bool measured_ = false;             // Some target was.
};

}  // namespace esper::client
#endif  // ESPER_CLIENT_ENV_TRAJECTORY_RECORDER_H_
