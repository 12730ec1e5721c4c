#include "server/grpc_status.h"

#include <exception>
#include <new>
#include <string>

#include "c10/util/Exception.h"
#include "core/error.h"
#include "proto/codec/error_detail.h"
#include "spdlog/spdlog.h"

namespace esper::server {
namespace {

absl::Status Plain(absl::StatusCode code, const std::string& reason,
                   const std::string& message) {
  ErrorDetail detail;
  detail.reason = reason;
  return MakeStatus(code, detail, message);
}

// c10::Error ends its sentence with where it was thrown; callers need the
// first line only.
std::string FirstLine(const std::string& text) {
  return text.substr(0, text.find('\n'));
}

absl::Status OurFault(const char* what, const std::string& sentence) {
  spdlog::error("internal error: {}", what);
  return Plain(absl::StatusCode::kInternal, "INTERNAL", sentence);
}

}  // namespace

absl::Status CatchErrors(const std::function<absl::Status()>& body) {
  try {
    return body();
  } catch (const Error& error) {
    return ToStatus(error);
  } catch (const c10::OutOfMemoryError& error) {
    spdlog::error("out of memory: {}", error.what());
    return Plain(absl::StatusCode::kResourceExhausted, "OUT_OF_MEMORY",
                 "The server ran out of memory for this call.");
  } catch (const std::bad_alloc& error) {
    spdlog::error("out of memory: {}", error.what());
    return Plain(absl::StatusCode::kResourceExhausted, "OUT_OF_MEMORY",
                 "The server ran out of memory for this call.");
  } catch (const c10::NotImplementedError& error) {
    return Plain(absl::StatusCode::kUnimplemented, "UNIMPLEMENTED",
                 FirstLine(error.what_without_backtrace()));
  } catch (const c10::Error& error) {
    return OurFault(error.what(), FirstLine(error.what_without_backtrace()));
  } catch (const std::exception& error) {
    return OurFault(error.what(), error.what());
  } catch (...) {
    return OurFault("unknown exception", "Unknown internal error.");
  }
}

grpc::Status ToGrpcStatus(const absl::Status& status,
                          grpc::ServerContextBase* context,
                          ServerCounters* counters) {
  if (status.ok()) return grpc::Status::OK;
  const ErrorDetail detail = codec::DetailOrDefault(status);
  if (counters != nullptr) counters->CountRefusal(detail.reason);
  if (context != nullptr) {
    context->AddTrailingMetadata(
        codec::kErrorDetailTrailer,
        codec::EncodeErrorDetail(detail).SerializeAsString());
  }
  return codec::EncodeStatus(status);
}

void FinishCall(grpc::ServerUnaryReactor* reactor,
                grpc::CallbackServerContext* context, ServerCounters* counters,
                const absl::Status& status) {
  reactor->Finish(ToGrpcStatus(status, context, counters));
}

}  // namespace esper::server
