#include "server/policy_transfer.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/grpc_status.h"
#include "server/refusal.h"

namespace esper::server {
namespace {

constexpr size_t kChunkBytes = 1 << 20;

}  // namespace

ExportStream::ExportStream(LearnerThread& learner, ServerCounters& counters,
                           grpc::CallbackServerContext* context, Fill fill)
    : counters_(counters), context_(context) {
  learner.Run([this, fill = std::move(fill)](
                  ppo::Learner& state) { return fill(state, &bytes_); },
              [this](const absl::Status& status) {
                if (!status.ok()) {
                  Finish(ToGrpcStatus(status, context_, &counters_));
                  return;
                }
                WriteNext();
              });
}

void ExportStream::WriteNext() {
  if (sent_ == bytes_.size()) {
    Finish(grpc::Status::OK);
    return;
  }
  const size_t size = std::min(kChunkBytes, bytes_.size() - sent_);
  chunk_.set_chunk(bytes_.data() + sent_, size);
  sent_ += size;
  StartWrite(&chunk_);
}

void ExportStream::OnWriteDone(bool ok) {
  if (ok) {
    WriteNext();
  } else {
    Finish(grpc::Status::CANCELLED);
  }
}

ImportStream::ImportStream(LearnerThread& learner, ServerCounters& counters,
                           grpc::CallbackServerContext* context,
                           int64_t max_bytes, Take take)
    : learner_(learner),
      counters_(counters),
      context_(context),
      max_bytes_(max_bytes),
      take_(std::move(take)) {
  StartRead(&request_);
}

void ImportStream::FinishWith(const absl::Status& status) {
  Finish(ToGrpcStatus(status, context_, &counters_));
}

void ImportStream::OnReadDone(bool ok) {
  if (ok) {
    if (first_) name_ = request_.name();
    first_ = false;
    bytes_ += request_.chunk();
    if (static_cast<int64_t>(bytes_.size()) > max_bytes_) {
      FinishWith(
          Refuse("BUDGET_EXCEEDED", "chunk",
                 absl::StrCat("The file has more than ", max_bytes_, " bytes."),
                 "Import the weights alone."));
      return;
    }
    StartRead(&request_);
    return;
  }
  // No more to read: the file is whole, unless the caller is gone.
  if (context_->IsCancelled()) {
    Finish(grpc::Status::CANCELLED);
    return;
  }
  learner_.Run(
      [this](ppo::Learner& learner) { return take_(learner, name_, bytes_); },
      [this](const absl::Status& status) { FinishWith(status); });
}

}  // namespace esper::server
