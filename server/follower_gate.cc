#include "server/follower_gate.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "esper/v1/policy_admin.grpc.pb.h"
#include "esper/v1/policy_training.grpc.pb.h"
#include "grpcpp/impl/codegen/proto_utils.h"
#include "grpcpp/support/byte_buffer.h"
#include "server/grpc_status.h"
#include "server/refusal.h"

namespace esper::server {
namespace {

// Ends the call at once.
class RefusedCall final : public grpc::ServerGenericBidiReactor {
 public:
  explicit RefusedCall(const grpc::Status& status) { Finish(status); }
  void OnDone() override { delete this; }
};

// Answers the call with one message, whatever it asked.
class AnsweredCall final : public grpc::ServerGenericBidiReactor {
 public:
  explicit AnsweredCall(const google::protobuf::MessageLite& answer) {
    const std::string bytes = answer.SerializeAsString();
    const grpc::Slice slice(bytes);
    answer_ = grpc::ByteBuffer(&slice, 1);
    StartWriteAndFinish(&answer_, grpc::WriteOptions(), grpc::Status::OK);
  }
  void OnDone() override { delete this; }

 private:
  grpc::ByteBuffer answer_;
};

bool IsOf(const std::string& method, const char* service) {
  return absl::StartsWith(method, absl::StrCat("/", service, "/"));
}

}  // namespace

FollowerGate::FollowerGate(const Follower& follower,
                           const ServingStatus& status,
                           ServerCounters& counters)
    : follower_(follower), status_(status), counters_(counters) {}

grpc::ServerGenericBidiReactor* FollowerGate::CreateReactor(
    grpc::GenericCallbackServerContext* context) {
  const std::string& method = context->method();
  if (method ==
      absl::StrCat("/", v1::PolicyAdmin::service_full_name(), "/GetStatus")) {
    v1::GetStatusResponse response;
    status_.Fill(&response);
    response.set_role(v1::SERVER_ROLE_FOLLOWER);
    follower_.FillStatus(response.mutable_follower());
    return new AnsweredCall(response);
  }
  if (IsOf(method, v1::PolicyTraining::service_full_name()) ||
      IsOf(method, v1::PolicyAdmin::service_full_name())) {
    return new RefusedCall(ToGrpcStatus(Refusal(method), context, &counters_));
  }
  return new RefusedCall(grpc::Status(
      grpc::StatusCode::UNIMPLEMENTED,
      absl::StrCat("There is no method ", method, " on this server.")));
}

absl::Status FollowerGate::Refusal(const std::string& method) const {
  return Refuse("FOLLOWER", "",
                absl::StrCat(method.substr(1),
                             " needs a learner, and this server follows "
                             "another one."),
                absl::StrCat("Call ", follower_.source(), "."));
}

}  // namespace esper::server
