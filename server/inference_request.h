#ifndef ESPER_SERVER_INFERENCE_REQUEST_H_
#define ESPER_SERVER_INFERENCE_REQUEST_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/policy/policy_spec.h"
#include "esper/v1/policy_inference.pb.h"
#include "google/protobuf/message_lite.h"
#include "proto/codec/mask_codec.h"
#include "server/episode_types.h"
#include "server/inference_options.h"
#include "server/policy_heads.h"
#include "server/state_codec.h"

namespace esper::server {

// One GetAction call, checked; N rows. Host tensors.
struct ActionInput {
  std::vector<StepClaim> claims;  // [N].
  at::Tensor observations;        // float32 [N, D], raw, finite.
  at::Tensor categorical;         // int64 [N, S], in range; or undefined.
  codec::ActionMasks masks;       // No row can run into an empty mask.
};

// One CloseEpisodes call, checked; N rows.
struct CloseInput {
  std::vector<CloseClaim> claims;  // [N].
  // As above; rows of truncated episodes only are checked and read. Undefined
  // if no episode is truncated.
  at::Tensor observations;
  at::Tensor categorical;
};

// Says whose the claims of a call are.
template <typename Claim>
void SetCaller(const std::string& caller, std::vector<Claim>* claims) {
  for (Claim& claim : *claims) claim.caller = caller;
}

// Checks requests of the inference service, and turns them into tensors.
// Nothing of a request reaches LibTorch or the episode table unchecked.
//
// Immutable; any thread may use it.
class InferenceRequestDecoder {
 public:
  InferenceRequestDecoder(const policy::PolicySpec& spec,
                          const InferenceOptions& options);

  // Errors: MALFORMED_REQUEST (no row), BUDGET_EXCEEDED (max_rows_per_call,
  // max_message_bytes).
  absl::StatusOr<std::vector<EpisodeStart>> DecodeOpen(
      const v1::OpenEpisodesRequest& request) const;

  // Errors: those, INFERENCE_ONLY, BAD_SHAPE, NONFINITE_INPUT,
  // BAD_BLUEPRINT_INDEX, EMPTY_ACTION_MASK, MALFORMED_REQUEST, INVALID_ACTION
  // (an effective choice that does not exist), and of rows whose client holds
  // the state BAD_STATE, SPEC_MISMATCH and STEP_OUT_OF_ORDER; each names the
  // row at fault.
  absl::StatusOr<ActionInput> DecodeAction(
      const v1::GetActionRequest& request) const;

  // Errors: those, and MALFORMED_REQUEST for an unset end kind.
  absl::StatusOr<CloseInput> DecodeClose(
      const v1::CloseEpisodesRequest& request) const;

  const StateCodec& states() const { return states_; }

 private:
  absl::Status CheckSize(const google::protobuf::MessageLite& request, int rows,
                         const std::string& field) const;
  absl::StatusOr<Outcome> DecodeOutcome(const v1::StepOutcome& message,
                                        const std::string& field,
                                        int64_t row) const;
  // What a row says of the state that its client holds; null if the server
  // holds it.
  absl::StatusOr<std::shared_ptr<const HeldState>> DecodeHeld(
      const v1::StepRow& message, int64_t row) const;
  absl::StatusOr<StepClaim> DecodeRow(const v1::StepRow& message,
                                      int64_t row) const;
  // int64 [N, S], or undefined if the policy has none. `read`: rows whose
  // values are checked; empty: all.
  absl::StatusOr<at::Tensor> DecodeCategorical(
      const v1::Tensor& message, int64_t rows, const std::string& field,
      const std::vector<bool>& read) const;

  const InferenceOptions options_;
  const codec::MaskCodec masks_;
  const StateCodec states_;
  const int64_t observation_width_;
  const int64_t categorical_count_;
  const int64_t cardinality_;     // Categorical values are -1 or below it.
  const int64_t driver_choices_;  // Of the driver head; unbounded without.
  const int64_t contributions_;   // Outputs of the contribution predictor.
};

}  // namespace esper::server
#endif  // ESPER_SERVER_INFERENCE_REQUEST_H_
