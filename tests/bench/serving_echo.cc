#include "tests/bench/serving_echo.h"

#include <string>

#include "core/policy/policy_spec.h"

namespace esper::bench {
namespace {

void Fill(v1::DataType dtype, int64_t rows, int64_t width, int64_t size,
          v1::Tensor* tensor) {
  tensor->set_dtype(dtype);
  tensor->add_shape(rows);
  if (width > 0) tensor->add_shape(width);
  tensor->set_data(
      std::string(rows * std::max<int64_t>(width, 1) * size, '\1'));
}

}  // namespace

EchoService::EchoService(int64_t rows) {
  const policy::PolicySpec spec = policy::PolicySpec::NetworkGrowing();
  const int64_t heads = spec.num_heads();
  v1::GetActionResponse answer;
  answer.mutable_header()->set_policy_version(1);
  answer.mutable_header()->set_spec_digest(spec.Digest());
  answer.mutable_header()->set_precision(v1::INFERENCE_PRECISION_FP32);
  Fill(v1::DATA_TYPE_UINT8, rows, heads, 1, answer.mutable_actions());
  v1::BehaviourNumbers* numbers = answer.mutable_behaviour();
  numbers->set_kind(v1::NUMBER_KIND_BEHAVIOUR);
  Fill(v1::DATA_TYPE_FLOAT32, rows, heads, 4, numbers->mutable_log_probs());
  Fill(v1::DATA_TYPE_FLOAT32, rows, 0, 4, numbers->mutable_values());
  Fill(v1::DATA_TYPE_INT64, rows, 0, 8, answer.mutable_policy_versions());
  grpc::Slice slice(answer.SerializeAsString());
  answer_ = grpc::ByteBuffer(&slice, 1);
}

grpc::ServerUnaryReactor* EchoService::OpenEpisodes(
    grpc::CallbackServerContext* context,
    const v1::OpenEpisodesRequest* request,
    v1::OpenEpisodesResponse* response) {
  for (int i = 0; i < request->episodes_size(); ++i) {
    response->add_episode_ids(std::string(16, '\1'));
  }
  auto* reactor = context->DefaultReactor();
  reactor->Finish(grpc::Status::OK);
  return reactor;
}

grpc::ServerUnaryReactor* EchoService::GetAction(
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* /*request*/,
    grpc::ByteBuffer* response) {
  *response = answer_;
  auto* reactor = context->DefaultReactor();
  reactor->Finish(grpc::Status::OK);
  return reactor;
}

}  // namespace esper::bench
