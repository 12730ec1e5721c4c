#include "client/status.h"

#include <utility>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"

namespace esper::client {
namespace {

constexpr char kPayloadUrl[] = "type.googleapis.com/esper.v1.ErrorDetail";

void SetDetail(absl::Status& status, const v1::ErrorDetail& detail) {
  status.SetPayload(kPayloadUrl, absl::Cord(detail.SerializeAsString()));
}

}  // namespace

absl::Status FromGrpc(const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  // Both use google.rpc.Code numbers.
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()),
                      status.error_message());
}

absl::Status FromGrpc(const grpc::Status& status,
                      const grpc::ClientContext& context) {
  absl::Status result = FromGrpc(status);
  if (result.ok()) return result;
  const auto& trailers = context.GetServerTrailingMetadata();
  const auto it = trailers.find(kErrorDetailTrailer);
  v1::ErrorDetail detail;
  if (it != trailers.end() &&
      detail.ParseFromArray(it->second.data(),
                            static_cast<int>(it->second.size()))) {
    SetDetail(result, detail);
  }
  return result;
}

grpc::Status ToGrpc(const absl::Status& status, grpc::ServerContext& context) {
  if (status.ok()) return grpc::Status::OK;
  if (const auto detail = ErrorDetailOf(status)) {
    context.AddTrailingMetadata(kErrorDetailTrailer,
                                detail->SerializeAsString());
  }
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()),
                      std::string(status.message()));
}

absl::Status Refusal(absl::StatusCode code, const std::string& reason,
                     const std::string& message, const std::string& hint) {
  absl::Status status(code, hint.empty() ? message : message + " " + hint);
  v1::ErrorDetail detail;
  detail.set_reason(reason);
  detail.set_hint(hint);
  SetDetail(status, detail);
  return status;
}

std::optional<v1::ErrorDetail> ErrorDetailOf(const absl::Status& status) {
  const auto payload = status.GetPayload(kPayloadUrl);
  v1::ErrorDetail detail;
  if (!payload.has_value() || !detail.ParseFromString(std::string(*payload))) {
    return std::nullopt;
  }
  return detail;
}

std::string ReasonOf(const absl::Status& status) {
  const auto detail = ErrorDetailOf(status);
  return detail ? detail->reason() : std::string();
}

bool IsEpisodeLost(const absl::Status& status) {
  const std::string reason = ReasonOf(status);
  return reason == "UNKNOWN_EPISODE" || reason == "EPISODE_EXPIRED" ||
         reason == "WRONG_INCARNATION";
}

absl::Status FromRefusal(const v1::Refusal& refusal) {
  absl::Status status(static_cast<absl::StatusCode>(refusal.code()),
                      refusal.message());
  if (refusal.has_detail()) SetDetail(status, refusal.detail());
  return status;
}

std::string Describe(const absl::Status& status) {
  std::string text = absl::StatusCodeToString(status.code());
  if (const auto detail = ErrorDetailOf(status)) {
    absl::StrAppend(&text, " ", detail->reason());
    if (!detail->field().empty()) {
      absl::StrAppend(&text, " (field ", detail->field(), ")");
    }
    if (detail->has_row()) absl::StrAppend(&text, " (row ", detail->row(), ")");
    if (detail->has_step()) {
      absl::StrAppend(&text, " (step ", detail->step(), ")");
    }
  }
  absl::StrAppend(&text, ": ", std::string(status.message()));
  return text;
}

}  // namespace esper::client
