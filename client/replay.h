#ifndef ESPER_CLIENT_REPLAY_H_
#define ESPER_CLIENT_REPLAY_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "client/action_log.h"
#include "client/policy_client.h"
#include "esper/v1/policy.pb.h"
#include "esper/v1/trajectory.pb.h"

// Takes the steps of a recorded log, or of a recording of a server, again,
// against a server, and compares what it answers. The server's sampling is a
// function of weights, seed, step and what the policy was shown, so the same
// weights give the same actions.
namespace esper::client {

// Where a replay first differed.
struct ReplayDifference {
  std::string episode;  // Its environment key, or what it was begun with.
  int64_t step = 0;
  std::string head;      // Name of the head; "value" for V(s).
  std::string recorded;  // What was recorded, for people.
  std::string replayed;  // What the server answered.
  // Versions that acted; another version has other weights.
  int64_t recorded_version = 0;
  int64_t replayed_version = 0;
};

struct ReplayReport {
  int64_t steps = 0;     // Compared and, but for a difference, identical.
  int64_t episodes = 0;  // Begun.
  std::optional<ReplayDifference> difference;
  // Among identical actions: rounding of another batch, or nothing.
  double largest_log_prob_difference = 0;
  bool cut_off = false;         // The log ended inside a record.
  v1::ResponseHeader recorded;  // Of the log's first answer.
  v1::ResponseHeader served;    // Of the server, when the replay began.
};

// Replays until the end of the log or the first difference: an action of
// another index, or a log-probability, value or continuous action further off
// than `tolerance` (nats, or relative for large numbers). The episodes are
// opened anew, under keys of their own and with their seeds, and closed.
//
// tolerance: 0 stands for 1e-3, or 5e-2 where one of the two sides computes in
// bf16. Errors: DATA_LOSS for a damaged log, FAILED_PRECONDITION for a server
// of another specification, and the server's refusals.
absl::StatusOr<ReplayReport> Replay(ActionLogReader& log, PolicyClient& client,
                                    double tolerance = 0);

// The same for an episode that a server recorded.
absl::StatusOr<ReplayReport> Replay(const v1::Recording& recording,
                                    PolicyClient& client, double tolerance = 0);

// "1200 steps of 4 episodes identical", or what differed.
std::string DescribeReplay(const ReplayReport& report);

}  // namespace esper::client
#endif  // ESPER_CLIENT_REPLAY_H_
