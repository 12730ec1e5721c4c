#ifndef ESPER_SERVER_TRAINING_SERVICE_H_
#define ESPER_SERVER_TRAINING_SERVICE_H_

#include "esper/v1/policy_training.grpc.pb.h"
#include "server/evaluate_stream.h"
#include "server/learner_calls.h"
#include "server/learner_thread.h"
#include "server/policy_feed.h"
#include "server/recording_store.h"
#include "server/server_counters.h"
#include "server/update_stream.h"

namespace esper::server {

// esper.v1.PolicyTraining: every call is handed to the learner's thread, and
// finished from there. Handlers never block.
//
// Thread safety: as gRPC needs it.
class TrainingService final : public v1::PolicyTraining::CallbackService {
 public:
  // All must outlive this.
  TrainingService(LearnerThread& learner, RecordingStore& recordings,
                  ServerCounters& counters,
                  const EvaluateStreamOptions& stream_options);

  grpc::ServerUnaryReactor* AcquireLearner(
      grpc::CallbackServerContext* context,
      const v1::AcquireLearnerRequest* request,
      v1::AcquireLearnerResponse* response) override;
  grpc::ServerUnaryReactor* RenewLearner(
      grpc::CallbackServerContext* context,
      const v1::RenewLearnerRequest* request,
      v1::RenewLearnerResponse* response) override;
  grpc::ServerUnaryReactor* ReleaseLearner(
      grpc::CallbackServerContext* context,
      const v1::ReleaseLearnerRequest* request,
      v1::ReleaseLearnerResponse* response) override;
  grpc::ServerBidiReactor<v1::EvaluateActionsRequest,
                          v1::EvaluateActionsResponse>*
  EvaluateActions(grpc::CallbackServerContext* context) override;
  grpc::ServerUnaryReactor* ForwardBackward(
      grpc::CallbackServerContext* context,
      const v1::ForwardBackwardRequest* request,
      v1::ForwardBackwardResponse* response) override;
  grpc::ServerUnaryReactor* OptimStep(grpc::CallbackServerContext* context,
                                      const v1::OptimStepRequest* request,
                                      v1::OptimStepResponse* response) override;
  grpc::ServerWriteReactor<v1::UpdatePolicyResponse>* UpdatePolicy(
      grpc::CallbackServerContext* context,
      const v1::UpdatePolicyRequest* request) override;

  grpc::ServerWriteReactor<v1::WatchPolicyResponse>* WatchPolicy(
      grpc::CallbackServerContext* context,
      const v1::WatchPolicyRequest* request) override {
    return feed_.Open(context, request);
  }

  // Ends the streams that would stay open for ever.
  void Drain() { feed_.Drain(); }
  grpc::ServerUnaryReactor* ListRecordings(
      grpc::CallbackServerContext* context,
      const v1::ListRecordingsRequest* request,
      v1::ListRecordingsResponse* response) override;
  grpc::ServerUnaryReactor* GetRecording(
      grpc::CallbackServerContext* context,
      const v1::GetRecordingRequest* request,
      v1::GetRecordingResponse* response) override;
  grpc::ServerUnaryReactor* DiscardRecordings(
      grpc::CallbackServerContext* context,
      const v1::DiscardRecordingsRequest* request,
      v1::DiscardRecordingsResponse* response) override;

  int64_t open_evaluations() const { return streams_.OpenEvaluations(); }
  int64_t watchers() const { return feed_.watchers(); }
  int64_t graph_bytes() const { return streams_.GraphBytes(); }

 private:
  // Answers a call that needs no learner.
  grpc::ServerUnaryReactor* Answer(grpc::CallbackServerContext* context,
                                   const absl::Status& status);
  // Runs `work` on the learner's thread and answers with its status.
  grpc::ServerUnaryReactor* AnswerAfter(grpc::CallbackServerContext* context,
                                        LearnerThread::Work work);
  // The same, as the write that `write` names.
  grpc::ServerUnaryReactor* AnswerAfterWrite(
      grpc::CallbackServerContext* context, const v1::LearnerWrite& write,
      google::protobuf::MessageLite* response, LearnerThread::Work work);

  absl::Status DoForwardBackward(ppo::Learner& learner,
                                 const v1::ForwardBackwardRequest& request,
                                 v1::ForwardBackwardResponse* response);
  absl::Status DoOptimStep(ppo::Learner& learner,
                           const v1::OptimStepRequest& request,
                           v1::OptimStepResponse* response);
  absl::Status DoUpdatePolicy(ppo::Learner& learner,
                              const v1::UpdatePolicyRequest& request,
                              UpdateStream& stream,
                              v1::UpdatePolicyResponse* answer);

  LearnerThread& learner_;
  RecordingStore& recordings_;
  ServerCounters& counters_;
  LearnerCalls calls_;
  EvaluateStreams streams_;
  PolicyFeed feed_;
};

}  // namespace esper::server
#endif  // ESPER_SERVER_TRAINING_SERVICE_H_
