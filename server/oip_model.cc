#include "server/oip_model.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "proto/codec/mask_codec.h"
#include "server/inference_reply.h"
#include "server/oip_tensors.h"
#include "server/refusal.h"

namespace esper::server {
namespace {

constexpr char kObservations[] = "observations";
constexpr char kCategorical[] = "categorical";
constexpr char kActionMasks[] = "action_masks";
constexpr char kActions[] = "actions";
constexpr char kContinuous[] = "continuous_actions";
constexpr char kLogProbs[] = "log_probs";
constexpr char kValues[] = "values";

// An episode's key holds the sequence and a row, in 256 bytes.
constexpr size_t kMaxSequenceBytes = 200;
constexpr int64_t kAnyRows = -1;

absl::Status Malformed(const std::string& field, const std::string& message,
                       const std::string& hint) {
  return Refuse("MALFORMED_REQUEST", field, message, hint);
}

absl::Status WrongType(const std::string& parameter, const char* type) {
  return Malformed(
      parameter,
      absl::StrCat("The parameter ", parameter, " is no ", type, "."),
      absl::StrCat("Send a ", type, "."));
}

template <typename Tensors>
void AddMetadata(const char* name, v1::DataType dtype,
                 const std::vector<int64_t>& shape, Tensors* tensors) {
  auto* tensor = tensors->Add();
  tensor->set_name(name);
  tensor->set_datatype(OipDataType(dtype));
  tensor->mutable_shape()->Assign(shape.begin(), shape.end());
}

inference::ModelMetadataResponse Metadata(const policy::PolicySpec& spec) {
  inference::ModelMetadataResponse metadata;
  metadata.set_name(spec.name);
  metadata.set_platform("esper_policy");
  auto* inputs = metadata.mutable_inputs();
  AddMetadata(kObservations, v1::DATA_TYPE_FLOAT32,
              {kAnyRows, spec.observation_width()}, inputs);
  if (spec.categorical_count() > 0) {
    const bool wide = spec.categorical->cardinality > 128;
    AddMetadata(kCategorical, wide ? v1::DATA_TYPE_INT64 : v1::DATA_TYPE_INT8,
                {kAnyRows, spec.categorical_count()}, inputs);
  }
  if (spec.action_width() > 0) {
    AddMetadata(kActionMasks, v1::DATA_TYPE_UINT8,
                {kAnyRows, codec::MaskCodec(spec).row_bytes()}, inputs);
  }
  auto* outputs = metadata.mutable_outputs();
  AddMetadata(kActions,
              HasWideHead(spec) ? v1::DATA_TYPE_INT64 : v1::DATA_TYPE_UINT8,
              {kAnyRows, spec.num_heads()}, outputs);
  if (spec.continuous_width() > 0) {
    AddMetadata(kContinuous, v1::DATA_TYPE_FLOAT32,
                {kAnyRows, spec.continuous_width()}, outputs);
  }
  AddMetadata(kLogProbs, v1::DATA_TYPE_FLOAT32, {kAnyRows, spec.num_heads()},
              outputs);
  AddMetadata(kValues, v1::DATA_TYPE_FLOAT32, {kAnyRows}, outputs);
  return metadata;
}

// A whole number of either type.
std::optional<int64_t> Whole(const inference::InferParameter& value) {
  if (value.has_int64_param()) return value.int64_param();
  if (value.has_uint64_param()) {
    return static_cast<int64_t>(value.uint64_param());
  }
  return std::nullopt;
}

// The sequence as errors print it; empty if the value names none.
std::string SequenceName(const inference::InferParameter& value) {
  if (value.has_string_param() && !value.string_param().empty()) {
    return absl::StrCat("\"", value.string_param(), "\"");
  }
  const std::optional<int64_t> number = Whole(value);
  if (!number.has_value() || *number == 0) return "";
  return value.has_uint64_param() ? absl::StrCat(value.uint64_param())
                                  : absl::StrCat(*number);
}

}  // namespace

OipModel::OipModel(const policy::PolicySpec& spec,
                   const InferenceOptions& options)
    : name_(spec.name),
      options_(options),
      decoder_(spec, options),
      metadata_(Metadata(spec)),
      wide_actions_(HasWideHead(spec)) {}

void OipModel::Describe(inference::ModelMetadataResponse* response) const {
  *response = metadata_;
}

bool OipModel::HasOutput(const std::string& output) const {
  return std::any_of(metadata_.outputs().begin(), metadata_.outputs().end(),
                     [&](auto& each) { return each.name() == output; });
}

absl::StatusOr<OipParameters> OipModel::DecodeParameters(
    const inference::ModelInferRequest& request) const {
  OipParameters parameters;
  for (const auto& [name, value] : request.parameters()) {
    bool* flag = name == "sequence_start"  ? &parameters.start
                 : name == "sequence_end"  ? &parameters.end
                 : name == "deterministic" ? &parameters.deterministic
                                           : nullptr;
    if (flag != nullptr) {
      if (!value.has_bool_param()) return WrongType(name, "bool");
      *flag = value.bool_param();
    } else if (name == "sequence_id") {
      parameters.sequence = SequenceName(value);
    } else if (name == "seed") {
      const std::optional<int64_t> seed = Whole(value);
      if (!seed.has_value()) return WrongType(name, "whole number");
      parameters.seed = static_cast<uint64_t>(*seed);
    } else if (name == "timeout") {
      const std::optional<int64_t> timeout = Whole(value);
      if (!timeout.has_value() || *timeout < 0) {
        return WrongType(name, "whole number of microseconds");
      }
      // Zero is the protocol's word for none.
      if (*timeout > 0) parameters.timeout = absl::Microseconds(*timeout);
    } else {
      return Malformed(name, absl::StrCat("There is no parameter ", name, "."),
                       "Send sequence_id, sequence_start, sequence_end, seed, "
                       "deterministic and timeout only.");
    }
  }
  if (parameters.sequence.empty()) {
    return Malformed(
        "sequence_id",
        "The request names no sequence, and the policy's state belongs to one.",
        "Send the parameter sequence_id, not 0 and not empty; for a single "
        "step with fresh state add sequence_start and sequence_end.");
  }
  if (parameters.sequence.size() > kMaxSequenceBytes) {
    return Malformed("sequence_id",
                     absl::StrCat("The parameter sequence_id is longer than ",
                                  kMaxSequenceBytes, " bytes."),
                     "Send a shorter one.");
  }
  if (!parameters.start &&
      (parameters.seed.has_value() || parameters.deterministic)) {
    return Malformed(parameters.deterministic ? "deterministic" : "seed",
                     "A sequence gets its seed and its kind when it starts.",
                     "Send seed and deterministic with sequence_start only.");
  }
  return parameters;
}

absl::StatusOr<v1::GetActionRequest> OipModel::DecodeInputs(
    const inference::ModelInferRequest& request) const {
  const int raw = request.raw_input_contents_size();
  if (raw > 0 && raw != request.inputs_size()) {
    return Malformed("raw_input_contents",
                     absl::StrCat("There are ", request.inputs_size(),
                                  " inputs and ", raw, " raw_input_contents."),
                     "Send one for each input, or none.");
  }
  v1::GetActionRequest action;
  for (int i = 0; i < request.inputs_size(); ++i) {
    const std::string& name = request.inputs(i).name();
    v1::Tensor* field = name == kObservations  ? action.mutable_observations()
                        : name == kCategorical ? action.mutable_categorical()
                        : name == kActionMasks ? action.mutable_action_masks()
                                               : nullptr;
    if (field == nullptr) {
      return Malformed(name, absl::StrCat("There is no input \"", name, "\"."),
                       "Send the inputs that ModelMetadata lists.");
    }
    if (field->dtype() != v1::DATA_TYPE_UNSPECIFIED) {
      return Malformed(name, absl::StrCat("The input ", name, " comes twice."),
                       "Send each input once.");
    }
    auto tensor = DecodeOipInput(request, i);
    if (!tensor.ok()) return tensor.status();
    *field = *std::move(tensor);
  }
  const auto& shape = action.observations().shape();
  if (shape.empty() || shape[0] < 1) {
    return Refuse("BAD_SHAPE", kObservations,
                  action.has_observations()
                      ? "The input observations has no row."
                      : "The input observations is missing.",
                  "Send the shape [rows, width] that ModelMetadata gives.");
  }
  if (shape[0] > options_.max_rows_per_call) {
    return Refuse("BUDGET_EXCEEDED", "max_rows_per_call",
                  absl::StrCat("The budget max_rows_per_call is ",
                               options_.max_rows_per_call, ", the call has ",
                               shape[0], "."),
                  "Use several sequences.");
  }
  // The sequence knows the episodes; the decoder wants to see some.
  for (int64_t row = 0; row < shape[0]; ++row) {
    action.add_rows()->set_episode_id(std::string(16, '\0'));
  }
  return action;
}

absl::StatusOr<OipRequest> OipModel::Decode(
    const inference::ModelInferRequest& request) const {
  OipRequest decoded;
  auto parameters = DecodeParameters(request);
  if (!parameters.ok()) return parameters.status();
  decoded.parameters = *std::move(parameters);
  for (const auto& output : request.outputs()) {
    if (!HasOutput(output.name()) || !output.parameters().empty()) {
      return Malformed(
          output.name(),
          absl::StrCat(
              "The output \"", output.name(), "\" ",
              HasOutput(output.name()) ? "has parameters." : "does not exist."),
          "Ask for outputs that ModelMetadata lists, without parameters.");
    }
    decoded.outputs.push_back(output.name());
  }
  if (decoded.outputs.empty()) {
    for (const auto& output : metadata_.outputs()) {
      decoded.outputs.push_back(output.name());
    }
  }
  decoded.typed = request.raw_input_contents_size() == 0;
  const auto action = DecodeInputs(request);
  if (!action.ok()) return action.status();
  auto input = decoder_.DecodeAction(*action);
  if (!input.ok()) return input.status();
  decoded.input = *std::move(input);
  return decoded;
}

void OipModel::Encode(const std::vector<StepTicket>& tickets,
                      const OipRequest& request,
                      inference::ModelInferResponse* response) const {
  const int64_t rows = static_cast<int64_t>(tickets.size());
  const auto add_floats = [&](const std::string& name,
                              std::vector<float> StepAnswer::*member) {
    std::vector<float> values;
    for (const StepTicket& ticket : tickets) {
      const std::vector<float>& row = ticket.answer.*member;
      values.insert(values.end(), row.begin(), row.end());
    }
    const int64_t width = static_cast<int64_t>(values.size()) / rows;
    AddOipOutput(name, {rows, width}, values, request.typed, response);
  };
  for (const std::string& output : request.outputs) {
    if (output == kActions) {
      std::vector<int64_t> actions;
      for (const StepTicket& ticket : tickets) {
        const auto& row = ticket.answer.actions;
        actions.insert(actions.end(), row.begin(), row.end());
      }
      const int64_t heads = static_cast<int64_t>(actions.size()) / rows;
      AddOipOutput(output, {rows, heads}, actions, wide_actions_, request.typed,
                   response);
    } else if (output == kContinuous) {
      add_floats(output, &StepAnswer::continuous);
    } else if (output == kLogProbs) {
      add_floats(output, &StepAnswer::log_probs);
    } else {
      std::vector<float> values;
      for (const StepTicket& ticket : tickets) {
        values.push_back(ticket.answer.value);
      }
      AddOipOutput(output, {rows}, values, request.typed, response);
    }
  }
}

}  // namespace esper::server
