#include "proto/codec/error_detail.h"

#include <optional>

#include "google/protobuf/any.pb.h"

namespace esper::codec {
namespace {

// Cuts at a character's first byte, so that UTF-8 stays valid.
std::string Shortened(const std::string& message) {
  if (message.size() <= kMaxMessageBytes) return message;
  size_t end = kMaxMessageBytes - 3;
  while (end > 0 && (message[end] & 0xC0) == 0x80) --end;
  return message.substr(0, end) + "...";
}

std::optional<v1::ErrorDetail> DetailInRpcStatus(const std::string& bytes) {
  v1::RpcStatus rpc_status;
  if (bytes.empty() || !rpc_status.ParseFromString(bytes)) return std::nullopt;
  v1::ErrorDetail detail;
  for (const auto& any : rpc_status.details()) {
    if (any.UnpackTo(&detail)) return detail;
  }
  return std::nullopt;
}

absl::Status MakeDecoded(int code, const std::string& message,
                         const std::optional<v1::ErrorDetail>& detail) {
  const auto absl_code = static_cast<absl::StatusCode>(code);
  if (!detail.has_value()) return absl::Status(absl_code, message);
  // The sentence on the wire ends with the hint already.
  ErrorDetail decoded = DecodeErrorDetail(*detail);
  const std::string hint = decoded.hint;
  std::string sentence = message;
  if (!hint.empty() && sentence.size() > hint.size() &&
      sentence.compare(sentence.size() - hint.size(), hint.size(), hint) == 0) {
    sentence.resize(sentence.size() - hint.size() - 1);
  }
  return MakeStatus(absl_code, decoded, sentence);
}

}  // namespace

v1::ErrorDetail EncodeErrorDetail(const ErrorDetail& detail) {
  v1::ErrorDetail message;
  message.set_reason(detail.reason);
  message.set_field(detail.field);
  if (detail.row >= 0) message.set_row(detail.row);
  if (detail.step >= 0) message.set_step(detail.step);
  message.set_tensor(detail.tensor);
  message.set_hint(detail.hint);
  return message;
}

ErrorDetail DecodeErrorDetail(const v1::ErrorDetail& message) {
  ErrorDetail detail;
  detail.reason = message.reason();
  detail.field = message.field();
  if (message.has_row()) detail.row = message.row();
  if (message.has_step()) detail.step = message.step();
  detail.tensor = message.tensor();
  detail.hint = message.hint();
  return detail;
}

ErrorDetail DetailOrDefault(const absl::Status& status) {
  auto detail = DetailOf(status);
  if (detail.has_value()) return *detail;
  ErrorDetail made;
  made.reason = absl::StatusCodeToString(status.code());
  return made;
}

grpc::Status EncodeStatus(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  const auto code = static_cast<grpc::StatusCode>(status.code());
  const std::string message = Shortened(std::string(status.message()));
  v1::RpcStatus rpc_status;
  rpc_status.set_code(code);
  rpc_status.set_message(message);
  rpc_status.add_details()->PackFrom(
      EncodeErrorDetail(DetailOrDefault(status)));
  return grpc::Status(code, message, rpc_status.SerializeAsString());
}

absl::Status DecodeStatus(const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  return MakeDecoded(status.error_code(), status.error_message(),
                     DetailInRpcStatus(status.error_details()));
}

absl::Status DecodeStatus(const grpc::Status& status,
                          const grpc::ClientContext& context) {
  if (status.ok()) return absl::OkStatus();
  const auto& trailers = context.GetServerTrailingMetadata();
  const auto it = trailers.find(kErrorDetailTrailer);
  v1::ErrorDetail detail;
  if (it == trailers.end() ||
      !detail.ParseFromArray(it->second.data(), it->second.size())) {
    return DecodeStatus(status);
  }
  return MakeDecoded(status.error_code(), status.error_message(), detail);
}

v1::Refusal EncodeRefusal(const absl::Status& status) {
  v1::Refusal refusal;
  refusal.set_code(static_cast<int>(status.code()));
  refusal.set_message(Shortened(std::string(status.message())));
  *refusal.mutable_detail() = EncodeErrorDetail(DetailOrDefault(status));
  return refusal;
}

absl::Status DecodeRefusal(const v1::Refusal& refusal) {
  std::optional<v1::ErrorDetail> detail;
  if (refusal.has_detail()) detail = refusal.detail();
  return MakeDecoded(refusal.code(), refusal.message(), detail);
}

}  // namespace esper::codec
