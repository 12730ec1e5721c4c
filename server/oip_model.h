#ifndef ESPER_SERVER_OIP_MODEL_H_
#define ESPER_SERVER_OIP_MODEL_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "core/policy/policy_spec.h"
#include "inference/grpc_service.pb.h"
#include "server/episode_types.h"
#include "server/inference_options.h"
#include "server/inference_request.h"

namespace esper::server {

// What the parameters of a ModelInfer say.
struct OipParameters {
  // The sequence as errors print it: 5 for a number, "5" for a string, which
  // are different sequences.
  std::string sequence;
  bool start = false;  // Begins the sequence, or begins it anew.
  bool end = false;    // Ends it after this step.
  // At the start only. Without a seed the server draws one.
  std::optional<uint64_t> seed;
  bool deterministic = false;
  absl::Duration timeout = absl::InfiniteDuration();
};

// One ModelInfer, checked. The claims of `input` name no episodes yet.
struct OipRequest {
  std::string caller;  // As EpisodeStart::owner: sequences are its own.
  OipParameters parameters;
  ActionInput input;
  std::vector<std::string> outputs;  // Wanted, in order.
  bool typed = false;                // Answer with contents, not raw bytes.
};

// The policy as a model of the Open Inference Protocol: its name, its tensors,
// and the way between their messages and what the engine takes and gives.
//
// Immutable; any thread may use it.
class OipModel {
 public:
  OipModel(const policy::PolicySpec& spec, const InferenceOptions& options);

  // The name of the policy's specification.
  const std::string& name() const { return name_; }

  // Fills everything but the versions.
  void Describe(inference::ModelMetadataResponse* response) const;

  // Errors, naming the tensor or parameter: those of
  // InferenceRequestDecoder::DecodeAction, and MALFORMED_REQUEST for a missing
  // sequence, unknown or repeated inputs, outputs and parameters, and
  // raw_input_contents of another number than inputs. Does not look at the
  // model's name and version.
  absl::StatusOr<OipRequest> Decode(
      const inference::ModelInferRequest& request) const;

  // Appends the outputs that were asked for; one ticket per row.
  void Encode(const std::vector<StepTicket>& tickets, const OipRequest& request,
              inference::ModelInferResponse* response) const;

 private:
  absl::StatusOr<OipParameters> DecodeParameters(
      const inference::ModelInferRequest& request) const;
  absl::StatusOr<v1::GetActionRequest> DecodeInputs(
      const inference::ModelInferRequest& request) const;
  bool HasOutput(const std::string& output) const;

  const std::string name_;
  const InferenceOptions options_;
  const InferenceRequestDecoder decoder_;
  const inference::ModelMetadataResponse metadata_;
  const bool wide_actions_;  // Some head has more than 256 choices.
};

}  // namespace esper::server
#endif  // ESPER_SERVER_OIP_MODEL_H_
