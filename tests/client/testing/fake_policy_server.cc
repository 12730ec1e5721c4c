#include "tests/client/testing/fake_policy_server.h"

#include <grpcpp/server_builder.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "client/tensor.h"

namespace esper::client::testing {
namespace {

constexpr int kHeads = 8;

// The answer, or what the client gets when it is lost.
template <typename Response>
grpc::Status Answer(grpc::ServerContext* context, const absl::Status& status,
                    const std::optional<Fault>& fault, Response* response) {
  if (!status.ok() || !fault) return ToGrpc(status, *context);
  response->Clear();
  return ToGrpc(fault->status, *context);
}

}  // namespace

absl::Status RowRefusal(const std::string& reason, int64_t row, int64_t step) {
  absl::Status status = Refusal(
      reason == "UNKNOWN_EPISODE" ? absl::StatusCode::kNotFound
                                  : absl::StatusCode::kFailedPrecondition,
      reason, absl::StrCat("Row ", row, " is refused."));
  v1::ErrorDetail detail = *ErrorDetailOf(status);
  detail.set_row(row);
  if (step >= 0) detail.set_step(step);
  status.SetPayload("type.googleapis.com/esper.v1.ErrorDetail",
                    absl::Cord(detail.SerializeAsString()));
  return status;
}

void Faults::Push(const std::string& method, Fault fault) {
  absl::MutexLock lock(&mu_);
  faults_[method].push_back(std::move(fault));
}

std::optional<Fault> Faults::Pop(const std::string& method) {
  absl::MutexLock lock(&mu_);
  auto& queue = faults_[method];
  if (queue.empty()) return std::nullopt;
  Fault fault = queue.front();
  queue.pop_front();
  return fault;
}

// Refuses before the effect, or remembers to lose the reply after it.
#define ESPER_FAULT(method)                               \
  const std::optional<Fault> fault = faults_.Pop(method); \
  if (fault && !fault->after_effect) {                    \
    return ToGrpc(fault->status, *context);               \
  }

grpc::Status FakeInference::GetPolicy(grpc::ServerContext* context,
                                      const v1::GetPolicyRequest*,
                                      v1::GetPolicyResponse* response) {
  ESPER_FAULT("GetPolicy");
  response->mutable_header()->set_policy_version(version);
  response->mutable_header()->set_spec_digest("digest");
  response->set_spec_json(
      R"({"heads":[{"name":"slot","size":3},{"name":"op","size":6}]})");
  response->set_precision("fp32");
  response->set_device("cpu");
  response->mutable_limits()->set_max_rows_per_call(64);
  return Answer(context, absl::OkStatus(), fault, response);
}

grpc::Status FakeInference::OpenEpisodes(grpc::ServerContext* context,
                                         const v1::OpenEpisodesRequest* request,
                                         v1::OpenEpisodesResponse* response) {
  ESPER_FAULT("OpenEpisodes");
  absl::MutexLock lock(&mu_);
  opened_.push_back(*request);
  for (int i = 0; i < request->episodes_size(); ++i) {
    const v1::EpisodeStart& start = request->episodes(i);
    for (auto it = episodes_.begin(); it != episodes_.end();) {
      if (it->second.key != start.environment_key()) {
        ++it;
      } else if (it->second.incarnation >= start.incarnation()) {
        return ToGrpc(RowRefusal("WRONG_INCARNATION", i), *context);
      } else {
        it = episodes_.erase(it);
      }
    }
    const std::string id = absl::StrCat("episode-", next_id_++);
    episodes_[id] = {start.environment_key(), start.incarnation(), 0};
    response->add_episode_ids(id);
  }
  return Answer(context, absl::OkStatus(), fault, response);
}

grpc::Status FakeInference::GetAction(grpc::ServerContext* context,
                                      const v1::GetActionRequest* request,
                                      v1::GetActionResponse* response) {
  ESPER_FAULT("GetAction");
  absl::MutexLock lock(&mu_);
  acted_.push_back(*request);
  const int64_t rows = request->rows_size();
  for (int64_t i = 0; i < rows; ++i) {
    const v1::StepRow& row = request->rows(i);
    const auto it = episodes_.find(row.episode_id());
    if (it == episodes_.end()) {
      return ToGrpc(RowRefusal("UNKNOWN_EPISODE", i), *context);
    }
    const int64_t expected = it->second.next_step;
    if (row.step() != expected && row.step() != expected - 1) {
      return ToGrpc(RowRefusal("STEP_OUT_OF_ORDER", i, expected), *context);
    }
  }
  for (const v1::StepRow& row : request->rows()) {
    episodes_[row.episode_id()].next_step = row.step() + 1;
  }
  response->mutable_header()->set_policy_version(version);
  *response->mutable_actions() =
      PackTensor(std::vector<uint8_t>(rows * kHeads, 0), {rows, kHeads});
  v1::BehaviourNumbers* behaviour = response->mutable_behaviour();
  behaviour->set_kind(v1::NUMBER_KIND_BEHAVIOUR);
  *behaviour->mutable_log_probs() =
      PackTensor(std::vector<float>(rows * kHeads, -0.5f), {rows, kHeads});
  std::vector<float> values;
  for (const v1::StepRow& row : request->rows()) values.push_back(row.step());
  *behaviour->mutable_values() = PackTensor(values, {rows});
  *response->mutable_policy_versions() =
      PackTensor(std::vector<int64_t>(rows, version), {rows});
  return Answer(context, absl::OkStatus(), fault, response);
}

grpc::Status FakeInference::CloseEpisodes(
    grpc::ServerContext* context, const v1::CloseEpisodesRequest* request,
    v1::CloseEpisodesResponse* response) {
  ESPER_FAULT("CloseEpisodes");
  absl::MutexLock lock(&mu_);
  closed_.push_back(*request);
  const int64_t rows = request->episodes_size();
  std::vector<float> bootstraps;
  for (const v1::EpisodeEnd& end : request->episodes()) {
    episodes_.erase(end.episode_id());
    bootstraps.push_back(end.end_kind() == v1::END_KIND_TRUNCATED ? 1.5f : 0);
  }
  *response->mutable_bootstrap_values() = PackTensor(bootstraps, {rows});
  *response->mutable_returns() =
      PackTensor(std::vector<double>(rows, 2.5), {rows});
  return Answer(context, absl::OkStatus(), fault, response);
}

void FakeInference::ForgetEpisodes() {
  absl::MutexLock lock(&mu_);
  episodes_.clear();
}

std::vector<v1::OpenEpisodesRequest> FakeInference::opened() {
  absl::MutexLock lock(&mu_);
  return opened_;
}

std::vector<v1::GetActionRequest> FakeInference::acted() {
  absl::MutexLock lock(&mu_);
  return acted_;
}

std::vector<v1::CloseEpisodesRequest> FakeInference::closed() {
  absl::MutexLock lock(&mu_);
  return closed_;
}

int FakeInference::open_episodes() {
  absl::MutexLock lock(&mu_);
  return static_cast<int>(episodes_.size());
}

absl::StatusOr<bool> FakeTraining::Begin(const v1::LearnerWrite& write,
                                         const std::string& method) {
  sequences.push_back(write.sequence());
  if (write.lease_token() != token) {
    return Refusal(absl::StatusCode::kAborted, "STALE_LEASE", "Old token.");
  }
  if (write.sequence() == last_sequence_ && method == last_method_) {
    return false;
  }
  if (write.sequence() != last_sequence_ + 1) {
    return Refusal(absl::StatusCode::kInvalidArgument, "MALFORMED_REQUEST",
                   "Wrong sequence number.");
  }
  return true;
}

grpc::Status FakeTraining::AcquireLearner(
    grpc::ServerContext* context, const v1::AcquireLearnerRequest*,
    v1::AcquireLearnerResponse* response) {
  ESPER_FAULT("AcquireLearner");
  response->set_lease_token(++token);
  response->mutable_lease()->set_seconds(60);
  *response->mutable_learner() = learner;
  last_sequence_ = 0;
  return Answer(context, absl::OkStatus(), fault, response);
}

grpc::Status FakeTraining::RenewLearner(grpc::ServerContext* context,
                                        const v1::RenewLearnerRequest* request,
                                        v1::RenewLearnerResponse* response) {
  ESPER_FAULT("RenewLearner");
  const absl::Status status =
      request->lease_token() == token
          ? absl::OkStatus()
          : Refusal(absl::StatusCode::kAborted, "STALE_LEASE", "Old token.");
  return Answer(context, status, fault, response);
}

grpc::Status FakeTraining::ReleaseLearner(grpc::ServerContext*,
                                          const v1::ReleaseLearnerRequest*,
                                          v1::ReleaseLearnerResponse*) {
  released = true;
  return grpc::Status::OK;
}

grpc::Status FakeTraining::ForwardBackward(
    grpc::ServerContext* context, const v1::ForwardBackwardRequest* request,
    v1::ForwardBackwardResponse* response) {
  ESPER_FAULT("ForwardBackward");
  if (request->totals_only() && !request->first_pass()) {
    ++totals_reads;
    return Answer(context, absl::OkStatus(), fault, response);
  }
  auto is_new = Begin(request->write(), "ForwardBackward");
  if (!is_new.ok()) return ToGrpc(is_new.status(), *context);
  if (*is_new) {
    ++forward_backwards;
    if (request->first_pass()) pass_ = 0;
    response->set_transitions(10 * request->batch().trajectories_size());
    response->set_ratio_check_max(1e-6);
    response->set_approx_kl(0.001 * request->batch().trajectories_size());
    response->add_anomalies("ratio_explosion");
    response->mutable_totals()->set_advantage_mean(
        request->batch().trajectories_size());
    requests.push_back(*request);
    if (!request->totals_only()) {
      if (pass_ == roll_back_at_pass) {
        response->set_nonfinite_term("value");
        response->set_rolled_back(true);
        accumulated_ = false;
        unpublished_steps_ = 0;
      } else {
        response->set_kl_stop(pass_ == kl_stop_at_pass);
        accumulated_ |= !response->kl_stop();
      }
      ++pass_;
    }
    last_method_ = "ForwardBackward";
    last_sequence_ = request->write().sequence();
    last_answer_ = response->SerializeAsString();
  } else {
    response->ParseFromString(last_answer_);
  }
  return Answer(context, absl::OkStatus(), fault, response);
}

grpc::Status FakeTraining::OptimStep(grpc::ServerContext* context,
                                     const v1::OptimStepRequest* request,
                                     v1::OptimStepResponse* response) {
  ESPER_FAULT("OptimStep");
  auto is_new = Begin(request->write(), "OptimStep");
  if (!is_new.ok()) return ToGrpc(is_new.status(), *context);
  if (*is_new) {
    if (!accumulated_ && !request->publish()) {
      return ToGrpc(absl::FailedPreconditionError("Nothing is accumulated."),
                    *context);
    }
    response->set_stepped(std::exchange(accumulated_, false));
    if (response->stepped()) {
      ++steps;
      ++unpublished_steps_;
      response->set_weights_change_l2(0.25);
    }
    if (request->publish() && unpublished_steps_ > 0) {
      response->set_published(true);
      unpublished_steps_ = 0;
      ++inference_.version;
    }
    response->mutable_header()->set_policy_version(inference_.version);
    last_method_ = "OptimStep";
    last_sequence_ = request->write().sequence();
    last_answer_ = response->SerializeAsString();
  } else {
    response->ParseFromString(last_answer_);
  }
  return Answer(context, absl::OkStatus(), fault, response);
}

grpc::Status FakeAdmin::SaveCheckpoint(grpc::ServerContext* context,
                                       const v1::SaveCheckpointRequest* request,
                                       v1::SaveCheckpointResponse* response) {
  ESPER_FAULT("SaveCheckpoint");
  const std::string name = request->name().empty()
                               ? absl::StrCat("v", inference_.version)
                               : request->name();
  checkpoints[name] = inference_.version;
  response->set_name(name);
  response->set_size_bytes(1234);
  response->mutable_header()->set_policy_version(inference_.version);
  return Answer(context, absl::OkStatus(), fault, response);
}

grpc::Status FakeAdmin::RestoreCheckpoint(
    grpc::ServerContext* context, const v1::RestoreCheckpointRequest* request,
    v1::RestoreCheckpointResponse* response) {
  ESPER_FAULT("RestoreCheckpoint");
  const auto it = checkpoints.find(request->name());
  if (it == checkpoints.end()) {
    return ToGrpc(Refusal(absl::StatusCode::kNotFound, "UNKNOWN_CHECKPOINT",
                          "There is no such checkpoint."),
                  *context);
  }
  inference_.version = it->second;
  ++training_.token;  // Every lease is over.
  response->set_name(it->first);
  response->mutable_header()->set_policy_version(it->second);
  return Answer(context, absl::OkStatus(), fault, response);
}

grpc::Status FakeAdmin::GetStatus(grpc::ServerContext* context,
                                  const v1::GetStatusRequest*,
                                  v1::GetStatusResponse* response) {
  ESPER_FAULT("GetStatus");
  response->mutable_header()->set_policy_version(inference_.version);
  response->set_device("cpu");
  response->set_actions_served(77);
  response->set_ratio_check_max(-1);
  (*response->mutable_refusals())["QUEUE_FULL"] = 3;
  response->add_checkpoints("v1");
  response->add_checkpoints("v2");
  return Answer(context, absl::OkStatus(), fault, response);
}

grpc::Status FakeAdmin::ListVersions(grpc::ServerContext* context,
                                     const v1::ListVersionsRequest*,
                                     v1::ListVersionsResponse* response) {
  ESPER_FAULT("ListVersions");
  for (int64_t version : {1, 2}) {
    v1::VersionSummary& summary = *response->add_versions();
    summary.set_policy_version(version);
    summary.set_weights_digest(absl::StrCat("digest", version));
    summary.set_kept(version == 2);
    if (labels.count(version) > 0) summary.add_labels(labels[version]);
  }
  return Answer(context, absl::OkStatus(), fault, response);
}

grpc::Status FakeAdmin::ListCheckpoints(grpc::ServerContext* context,
                                        const v1::ListCheckpointsRequest*,
                                        v1::ListCheckpointsResponse* response) {
  ESPER_FAULT("ListCheckpoints");
  for (const auto& [name, version] : checkpoints) {
    v1::CheckpointSummary& summary = *response->add_checkpoints();
    summary.set_name(name);
    summary.set_policy_version(version);
    summary.mutable_saved_at()->set_seconds(86400);
  }
  return Answer(context, absl::OkStatus(), fault, response);
}

grpc::Status FakeAdmin::SetLabel(grpc::ServerContext* context,
                                 const v1::SetLabelRequest* request,
                                 v1::SetLabelResponse* response) {
  ESPER_FAULT("SetLabel");
  if (request->remove()) {
    labels.erase(request->policy_version());
  } else {
    labels[request->policy_version()] = request->label();
    response->mutable_version()->add_labels(request->label());
  }
  response->mutable_version()->set_policy_version(request->policy_version());
  return Answer(context, absl::OkStatus(), fault, response);
}

grpc::Status FakeAdmin::Rollback(grpc::ServerContext* context,
                                 const v1::RollbackRequest* request,
                                 v1::RollbackResponse* response) {
  ESPER_FAULT("Rollback");
  int64_t to = request->policy_version();
  for (const auto& [version, label] : labels) {
    if (label == request->label()) to = version;
  }
  ++inference_.version;
  response->mutable_header()->set_policy_version(inference_.version);
  response->set_rolled_back_to(to);
  return Answer(context, absl::OkStatus(), fault, response);
}

grpc::Status FakeAdmin::ExportPolicy(
    grpc::ServerContext*, const v1::ExportPolicyRequest* request,
    grpc::ServerWriter<v1::ExportPolicyResponse>* writer) {
  v1::ExportPolicyResponse response;
  for (const std::string& part : {request->name() + ":", file}) {
    response.set_chunk(part);
    writer->Write(response);
  }
  return grpc::Status::OK;
}

grpc::Status FakeAdmin::ImportPolicy(
    grpc::ServerContext*, grpc::ServerReader<v1::ImportPolicyRequest>* reader,
    v1::ImportPolicyResponse* response) {
  v1::ImportPolicyRequest request;
  file.clear();
  while (reader->Read(&request)) {
    if (!request.name().empty()) {
      response->mutable_checkpoint()->set_name(request.name());
    }
    file += request.chunk();
  }
  return grpc::Status::OK;
}
#undef ESPER_FAULT

FakePolicyServer::FakePolicyServer() {
  grpc::ServerBuilder builder;
  builder.RegisterService(&inference);
  builder.RegisterService(&training);
  builder.RegisterService(&admin);
  server_ = builder.BuildAndStart();
}

FakePolicyServer::~FakePolicyServer() { server_->Shutdown(); }

std::shared_ptr<grpc::Channel> FakePolicyServer::Channel() {
  return server_->InProcessChannel({});
}

RetryPolicy FastRetry() {
  RetryPolicy retry;
  retry.attempt_timeout = absl::Seconds(10);
  retry.give_up_after = absl::Seconds(10);
  retry.initial_backoff = absl::Milliseconds(1);
  retry.max_backoff = absl::Milliseconds(5);
  return retry;
}

}  // namespace esper::client::testing
