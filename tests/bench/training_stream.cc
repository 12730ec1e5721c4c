#include "tests/bench/training_stream.h"

#include <unistd.h>

#include <chrono>
#include <fstream>
#include <iostream>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "esper/v1/policy_admin.grpc.pb.h"
#include "grpcpp/create_channel.h"
#include "proto/codec/error_detail.h"
#include "proto/codec/tensor_codec.h"
#include "tests/bench/training_in_process.h"
#include "tests/testing/rollout.h"
#include "tests/testing/tcp_proxy.h"

namespace esper::bench {
namespace {

constexpr char kHolder[] = "bench";
// Streams over one connection that is then reset.
constexpr int64_t kPerConnection = 5;

std::shared_ptr<grpc::Channel> NewChannel(const std::string& address) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxSendMessageSize(-1);
  arguments.SetMaxReceiveMessageSize(-1);
  // A connection of its own, not one shared with other channels.
  arguments.SetInt("grpc.use_local_subchannel_pool", 1);
  return grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(),
                                   arguments);
}

at::Tensor Decode(const v1::Tensor& message) {
  codec::TensorSpec spec;
  spec.field = "numbers";
  spec.shape.assign(message.shape().begin(), message.shape().end());
  spec.dtypes = {message.dtype()};
  const auto tensor = codec::DecodeTensor(message, spec);
  return tensor.ok() ? *tensor : at::Tensor();
}

absl::StatusOr<v1::GetStatusResponse> GetStatus(const std::string& address) {
  const auto stub = v1::PolicyAdmin::NewStub(NewChannel(address));
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() +
                       std::chrono::seconds(60));
  v1::GetStatusResponse response;
  const grpc::Status status =
      stub->GetStatus(&context, v1::GetStatusRequest(), &response);
  if (!status.ok()) return codec::DecodeStatus(status, context);
  return response;
}

int64_t ResidentBytes(int pid) {
  std::ifstream file(absl::StrCat("/proc/", pid, "/status"));
  std::string word;
  while (file >> word) {
    int64_t kilobytes = 0;
    if (word == "VmRSS:" && file >> kilobytes) return kilobytes << 10;
  }
  return 0;
}

}  // namespace

absl::StatusOr<std::unique_ptr<StreamTraining>> StreamTraining::Connect(
    const std::string& address, int64_t rows, int64_t steps) {
  auto training = std::unique_ptr<StreamTraining>(new StreamTraining());
  const auto channel = NewChannel(address);
  training->stub_ = v1::PolicyTraining::NewStub(channel);
  v1::Evaluate* evaluate = training->request_.mutable_evaluate();
  *evaluate->mutable_batch() = testing::ActEpisodes(
      channel, BenchSpec(), static_cast<int>(rows), static_cast<int>(steps),
      /*seed=*/5);
  evaluate->set_keep_graph(true);
  training->OpenStream();
  return training;
}

std::unique_ptr<StreamTraining> StreamTraining::Again(
    const std::string& address) const {
  auto training = std::unique_ptr<StreamTraining>(new StreamTraining());
  training->stub_ = v1::PolicyTraining::NewStub(NewChannel(address));
  training->request_ = request_;
  training->OpenStream();
  return training;
}

StreamTraining::~StreamTraining() { Abandon(); }

void StreamTraining::OpenStream() {
  context_ = std::make_unique<grpc::ClientContext>();
  context_->set_deadline(std::chrono::system_clock::now() +
                         std::chrono::hours(1));
  stream_ = stub_->EvaluateActions(context_.get());
  id_ = 0;
}

absl::Status StreamTraining::Clear() {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() +
                       std::chrono::seconds(60));
  v1::AcquireLearnerRequest request;
  request.set_holder(kHolder);
  v1::AcquireLearnerResponse response;
  const grpc::Status status =
      stub_->AcquireLearner(&context, request, &response);
  if (!status.ok()) return codec::DecodeStatus(status, context);
  token_ = response.lease_token();
  sequence_ = 0;
  return absl::OkStatus();
}

absl::Status StreamTraining::Exchange(
    const v1::EvaluateActionsRequest& request) {
  if (!stream_->Write(request) || !stream_->Read(&response_)) {
    return absl::UnavailableError("The stream has ended.");
  }
  if (response_.has_refusal()) {
    return codec::DecodeRefusal(response_.refusal());
  }
  return absl::OkStatus();
}

absl::Status StreamTraining::Evaluate() {
  request_.mutable_evaluate()->set_evaluation_id(++id_);
  return Exchange(request_);
}

absl::Status StreamTraining::Step() {
  if (absl::Status status = Evaluate(); !status.ok()) return status;
  const v1::EvaluatedNumbers& message = response_.evaluation().numbers();
  ppo::EvaluationNumbers numbers;
  numbers.log_probs = Decode(message.log_probs());
  numbers.entropies = Decode(message.entropies());
  numbers.values = Decode(message.values());
  numbers.q_values = Decode(message.q_values());
  numbers.contributions = Decode(message.contributions());
  if (!targets_.returns.defined()) {
    targets_ = RandomTargets(numbers, /*seed=*/7);
  }
  const ClientLoss loss = ComputeClientLoss(numbers, targets_);

  v1::Cotangents* out = cotangents_.mutable_cotangents();
  out->mutable_write()->set_lease_token(token_);
  out->mutable_write()->set_sequence(++sequence_);
  out->set_evaluation_id(id_);
  out->set_trains_policy(true);
  codec::EncodeTensor(loss.cotangents.log_probs, out->mutable_log_probs());
  codec::EncodeTensor(loss.cotangents.entropies, out->mutable_entropies());
  codec::EncodeTensor(loss.cotangents.values, out->mutable_values());
  codec::EncodeTensor(loss.cotangents.q_values, out->mutable_q_values());
  codec::EncodeTensor(loss.cotangents.contributions,
                      out->mutable_contributions());
  return Exchange(cotangents_);
}

void StreamTraining::Abandon() {
  if (stream_ == nullptr) return;
  context_->TryCancel();
  stream_->Finish().ok();
  stream_.reset();
  context_.reset();
}

std::string AbandonReport::ToJson() const {
  return absl::StrCat("{\"start_bytes\": ", start_bytes,
                      ", \"end_bytes\": ", end_bytes,
                      ", \"streams\": ", streams, ", \"broken\": ", broken,
                      ", \"open_evaluations\": ", open_evaluations,
                      ", \"graph_bytes\": ", graph_bytes, "}");
}

absl::StatusOr<AbandonReport> AbandonStreams(int port, int pid, int64_t warmup,
                                             int64_t streams) {
  const std::string address = absl::StrCat("127.0.0.1:", port);
  testing::TcpProxy proxy(port);
  auto direct = StreamTraining::Connect(address, 1, 4);
  if (!direct.ok()) return direct.status();
  AbandonReport report;
  // The server frees graphs on the learner's thread, after the call is over.
  const auto settle = [&]() -> absl::Status {
    for (int i = 0; i < 1200; ++i) {
      const auto status = GetStatus(address);
      if (!status.ok()) return status.status();
      report.open_evaluations = status->open_evaluations();
      report.graph_bytes = status->graph_bytes();
      if (report.open_evaluations == 0 && report.graph_bytes == 0) break;
      absl::SleepFor(absl::Milliseconds(100));
    }
    return absl::OkStatus();
  };
  const auto abandon = [&](int64_t count) -> absl::Status {
    int64_t broken = 0;
    for (int64_t done = 0; done < count;) {
      for (int64_t i = 0; i < 5 && done < count; ++i, ++done) {
        // At once: the server may be anywhere.
        (*direct)->OpenStream();
        if (i % 2 == 0) {
          if (auto status = (*direct)->Evaluate(); !status.ok()) return status;
        }
        (*direct)->Abandon();
      }
      std::vector<std::unique_ptr<StreamTraining>> lost;
      for (int64_t i = 0; i < kPerConnection && done < count; ++i, ++done) {
        lost.push_back((*direct)->Again(proxy.address()));
        if (auto status = lost.back()->Evaluate(); !status.ok()) return status;
        ++broken;
      }
      const int cut = proxy.cut();
      proxy.Cut();
      while (!lost.empty() && proxy.cut() == cut) {
        absl::SleepFor(absl::Milliseconds(1));
      }
    }
    report.broken = broken;
    return settle();
  };
  (*direct)->Abandon();
  if (auto status = abandon(warmup); !status.ok()) return status;
  report.start_bytes = ResidentBytes(pid);
  report.streams = streams;
  if (auto status = abandon(streams); !status.ok()) return status;
  report.end_bytes = ResidentBytes(pid);
  return report;
}

absl::Status HoldGraphs(const std::string& address, int streams) {
  std::vector<std::unique_ptr<StreamTraining>> held;
  auto first = StreamTraining::Connect(address, 4, 25);
  if (!first.ok()) return first.status();
  for (int i = 0; i < streams; ++i) {
    held.push_back((*first)->Again(address));
    if (auto status = held.back()->Evaluate(); !status.ok()) return status;
  }
  std::cout << "holding " << streams << std::endl;
  while (true) pause();
}

}  // namespace esper::bench
