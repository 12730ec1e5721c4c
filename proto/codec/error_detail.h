#ifndef ESPER_PROTO_CODEC_ERROR_DETAIL_H_
#define ESPER_PROTO_CODEC_ERROR_DETAIL_H_

#include <string>

#include "absl/status/status.h"
#include "core/error.h"
#include "esper/v1/errors.pb.h"
#include "grpcpp/client_context.h"
#include "grpcpp/support/status.h"

// Errors on the wire, both ways. Free of LibTorch, so clients use it as well.
//
// A failed unary call carries its ErrorDetail twice: serialized in the trailer
// `kErrorDetailTrailer`, and as the one detail of the google.rpc.Status that
// gRPC's tools print. A refusal inside a stream is an esper.v1.Refusal.
namespace esper::codec {

// Binary trailer that holds a serialized esper.v1.ErrorDetail.
inline constexpr char kErrorDetailTrailer[] = "esper-error-detail-bin";

v1::ErrorDetail EncodeErrorDetail(const ErrorDetail& detail);
ErrorDetail DecodeErrorDetail(const v1::ErrorDetail& message);

// Detail of any failed status: its own, or, if it carries none, one whose
// reason is the name of its code ("INTERNAL").
ErrorDetail DetailOrDefault(const absl::Status& status);

// The whole error with its sentence cut to `kMaxMessageBytes`, since trailers
// of more than 8 KiB are not delivered. An OK status gives an OK status. The
// caller adds the trailer (see server/grpc_status.h).
inline constexpr size_t kMaxMessageBytes = 1024;
grpc::Status EncodeStatus(const absl::Status& status);

// What a client got: the code, the sentence, and the detail if there is one
// (`esper::DetailOf` of the result).
absl::Status DecodeStatus(const grpc::Status& status);
// The same, when gRPC has not kept the detail in `status`: reads the trailer.
absl::Status DecodeStatus(const grpc::Status& status,
                          const grpc::ClientContext& context);

// Refusals of a stream.
v1::Refusal EncodeRefusal(const absl::Status& status);
absl::Status DecodeRefusal(const v1::Refusal& refusal);

}  // namespace esper::codec
#endif  // ESPER_PROTO_CODEC_ERROR_DETAIL_H_
