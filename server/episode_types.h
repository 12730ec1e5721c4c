#ifndef ESPER_SERVER_EPISODE_TYPES_H_
#define ESPER_SERVER_EPISODE_TYPES_H_

#include <cstdint>
#include <list>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"

// The values that travel between the inference service and the episode table.
namespace esper::server {

// Wishes for a new episode.
struct EpisodeStart {
  std::string environment_key;
  uint64_t incarnation = 0;
  uint64_t seed = 0;
  bool deterministic = false;
  // Name of the caller that opens it: nobody else can use it, or supersede it.
  // Empty where callers are not told apart.
  std::string owner;
  bool record = false;
};

// What an environment tells of the step before.
struct Outcome {
  float reward = 0;  // Raw, finite.
  int64_t effective_choice = 0;
  // What only recordings keep.
  bool forced = false;
  bool forfeits_earlier_rewards = false;
  std::vector<float> targets;     // [P] contributions, finite; empty if none.
  uint64_t targets_measured = 0;  // Bit p: targets[p] was measured.
};

// An episode that no server remembers: what its client brings along with a
// step, and gets back for the next one.
struct HeldState {
  uint64_t seed = 0;
  int64_t step = 0;  // That comes next.
  bool deterministic = false;
  // float32 [L, H] each; empty before the first step, which starts from zeros.
  std::vector<float> h;
  std::vector<float> c;
};

// One row of a GetAction call.
struct StepClaim {
  // Null if the server holds the state; otherwise the fields below are unused.
  std::shared_ptr<const HeldState> held;
  std::string caller;  // As EpisodeStart::owner.
  std::string episode_id;
  uint64_t incarnation = 0;
  int64_t step = 0;
  std::optional<Outcome> previous;
};

// One row of a CloseEpisodes call.
struct CloseClaim {
  std::string caller;  // As EpisodeStart::owner.
  std::string episode_id;
  uint64_t incarnation = 0;
  int64_t steps = 0;
  std::optional<Outcome> last;
  bool truncated = false;
  bool aborted = false;
};

// What the policy answered at one step; K heads in storage order.
struct StepAnswer {
  int64_t version = 0;            // Of the policy.
  std::vector<int64_t> actions;   // [K].
  std::vector<float> continuous;  // [C]; empty without Gaussian heads.
  std::vector<float> log_probs;   // [K], nats.
  std::vector<float> entropies;   // [K], normalised.
  float value = 0;
};

class Recording;  // server/recording.h

// How a recorded episode ended.
struct RecordingEnd {
  enum class Why {
    kTerminated,
    kTruncated,
    // Incomplete from here on.
    kAborted,
    kExpired,
    kSuperseded,
    kDrained,
  } why = Why::kTerminated;
  float bootstrap = 0;  // V of the final observation, if truncated.

  bool complete() const { return why <= Why::kTruncated; }
};

// One open episode. Owned by the table, which guards every field; what a
// recording holds is written by whoever holds the claim.
struct Episode {
  std::string id;
  EpisodeStart start;
  int64_t state_row = -1;
  int64_t next_step = 0;
  StepAnswer last_answer;  // Of step next_step - 1.
  double episode_return = 0;
  absl::Time expiry;
  bool claimed = false;
  bool ended = false;  // Out of the table; its row waits for the claim to end.
  std::shared_ptr<Recording> recording;  // Null if none is made.
  RecordingEnd recording_end;            // Once `ended`.
  std::list<std::shared_ptr<Episode>>::iterator lease_position;
};

// A claim on one step.
struct StepTicket {
  std::shared_ptr<Episode> episode;  // Null if the client holds the state.
  std::shared_ptr<const HeldState> held;
  HeldState next;  // After the step, if `held`.
  std::optional<Outcome> previous;
  // The last step again: `answer` is the stored one and nothing is computed.
  bool repeated = false;
  StepAnswer answer;

  // Copies of what never changes while the claim lasts.
  int64_t state_row = -1;
  uint64_t seed = 0;
  int64_t step = 0;
  bool deterministic = false;
};

// A claim on ending one episode.
struct CloseTicket {
  std::shared_ptr<Episode> episode;  // Null if it was closed before.
  std::optional<Outcome> last;
  bool truncated = false;  // Needs the value of the final observation.
  bool aborted = false;
  int64_t state_row = -1;
  // The answer; `episode_return` includes the last outcome.
  float bootstrap = 0;
  double episode_return = 0;
};

}  // namespace esper::server
#endif  // ESPER_SERVER_EPISODE_TYPES_H_
