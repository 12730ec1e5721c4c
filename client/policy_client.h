#ifndef ESPER_CLIENT_POLICY_CLIENT_H_
#define ESPER_CLIENT_POLICY_CLIENT_H_

#include <grpcpp/channel.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/action_log.h"
#include "client/call.h"
#include "esper/v1/policy_inference.grpc.pb.h"

// Asks a policy server for actions. Needs no tensor library: rows are plain
// vectors. D is the observation width, S the width of the categorical input,
// K the number of heads in storage order.
namespace esper::client {

struct EpisodeStart {
  std::string environment_key;  // At most 256 bytes.
  uint64_t incarnation = 1;     // >= 1.
  uint64_t seed = 0;            // Of the policy's sampling noise.
  bool deterministic = false;   // Most probable actions, no noise.
  // The server keeps what training needs, under the episode's id; every step
  // but the first must then carry the outcome of the one before.
  bool record = false;
};

// An episode that is open on the server.
struct EpisodeHandle {
  std::string id;  // 16 bytes.
  uint64_t incarnation = 1;
};

// What happened after an action, told by the environment.
struct StepOutcome {
  float reward = 0;              // Raw, finite.
  int32_t effective_choice = 0;  // Driver action that took effect.
  bool forced = false;           // The policy had no choice.
  // float32 [S], percentage points, and which were measured; empty if none.
  std::vector<float> contribution_targets;
  std::vector<uint8_t> contribution_mask;
  // The rewards of all steps before count as 0: of recorded episodes only.
  bool forfeits_earlier_rewards = false;
};

// What the policy is shown.
struct PolicyInput {
  std::vector<float> observation;    // float32 [D], raw.
  std::vector<int8_t> categorical;   // int8 [S]; empty if the policy has none.
  std::vector<uint8_t> packed_mask;  // See mask_packing.h; empty = all allowed.
};

// An episode whose recurrent state the client holds, so that any replica of
// the policy can take its next step; no server remembers it.
struct ClientEpisode {
  uint64_t seed = 0;  // As in EpisodeStart.
  bool deterministic = false;
};

// One step of one episode: either of one that was opened, or of one whose state
// the client holds (`client_episode` at step 0, `recurrent_state` later).
struct StepRow {
  EpisodeHandle episode;
  std::optional<ClientEpisode> client_episode;
  std::string recurrent_state;  // ActionRow's, of the step before.
  int64_t step = 0;             // 0 for the first one.
  std::optional<StepOutcome> previous_outcome;
  PolicyInput input;
};

struct ActionRow {
  std::vector<int64_t> actions;  // [K]; 0 for a Gaussian head.
  // [C]: values of the Gaussian heads, to be clipped for the environment but
  // recorded as they are; empty if the policy has none.
  std::vector<float> continuous;
  std::vector<float> log_probs;  // [K], nats.
  float value = 0;               // V(s).
  // [K], in [0, 1] for categorical heads; empty unless asked for.
  std::vector<float> entropies;
  int64_t policy_version = 0;
  std::string recurrent_state;  // If the client holds it: for the next step.
};

struct EpisodeClose {
  EpisodeHandle episode;
  int64_t steps = 0;  // Steps taken.
  std::optional<StepOutcome> last_outcome;
  v1::EndKind end_kind = v1::END_KIND_UNSPECIFIED;
  // After the last step; required for END_KIND_TRUNCATED, else unused.
  std::optional<PolicyInput> final_input;
};

struct ClosedEpisode {
  float bootstrap_value = 0;  // 0 unless truncated.
  double episode_return = 0;  // Sum of the rewards that the server saw.
};

// Every call has a deadline, is all or nothing, and is retried as `RetryPolicy`
// says: a lost connection is made again, and the step that was under way is
// asked for again, so episodes go on as if nothing had happened. A server that
// has restarted has lost them: see `IsEpisodeLost` (client/status.h). Errors
// are the server's, with their ErrorDetail; INVALID_ARGUMENT for rows of
// unequal widths, and INTERNAL for a reply that breaks the protocol.
//
// Thread safety: any thread may call any method.
class PolicyClient {
 public:
  static absl::StatusOr<std::unique_ptr<PolicyClient>> Connect(
      const ConnectOptions& connect, const RetryPolicy& retry = {});

  // Over a channel that exists already.
  explicit PolicyClient(std::shared_ptr<grpc::Channel> channel,
                        const RetryPolicy& retry = {});

  absl::StatusOr<v1::GetPolicyResponse> GetPolicy();

  // One handle per episode, in order. If the reply of an attempt was lost, the
  // episodes may be open already: the retry then opens them one incarnation
  // higher, which closes the first ones; the handles say which it became.
  absl::StatusOr<std::vector<EpisodeHandle>> OpenEpisodes(
      std::vector<EpisodeStart> episodes);

  // One action per row, in order. A retry repeats the same steps, and so gets
  // the same answer whether or not the first attempt arrived.
  absl::StatusOr<std::vector<ActionRow>> GetAction(
      const std::vector<StepRow>& rows, bool return_entropies = false);

  // The same with messages.
  absl::StatusOr<v1::GetActionResponse> GetActionMessage(
      const v1::GetActionRequest& request);

  absl::StatusOr<std::vector<ClosedEpisode>> CloseEpisodes(
      const std::vector<EpisodeClose>& episodes);

  // From now on what is asked and told is appended to `log`, which must outlive
  // the calls; null: no more. A call whose record cannot be written fails with
  // UNAVAILABLE. Not to be called while calls are under way.
  void RecordTo(ActionLogWriter* log) { log_ = log; }

 private:
  const RetryPolicy retry_;
  const std::unique_ptr<v1::PolicyInference::Stub> stub_;
  ActionLogWriter* log_ = nullptr;
};

}  // namespace esper::client
#endif  // ESPER_CLIENT_POLICY_CLIENT_H_
