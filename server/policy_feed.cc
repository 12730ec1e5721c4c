#include "server/policy_feed.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/policy/inference_policy.h"
#include "core/sha256.h"
#include "server/grpc_status.h"
#include "server/refusal.h"
#include "server/snapshot_file.h"
#include "spdlog/spdlog.h"

namespace esper::server {
namespace {

absl::Status Draining() {
  return Refuse("DRAINING", "", "The server is shutting down.",
                "Watch again when it is back.");
}

}  // namespace

// One watcher. A file in `sending_` is sent to its end, one message at a time;
// then the newest that was offered is taken up, unless it was sent already.
class WatchStream final
    : public grpc::ServerWriteReactor<v1::WatchPolicyResponse> {
 public:
  using FilePtr = std::shared_ptr<const PolicyFeed::File>;

  WatchStream(PolicyFeed& feed, grpc::CallbackServerContext* context,
              const v1::WatchPolicyRequest& request)
      : feed_(feed), context_(context), held_sha256_(request.held_sha256()) {}

  // Makes `file` the newest.
  void Offer(FilePtr file) ABSL_LOCKS_EXCLUDED(mu_) {
    absl::MutexLock lock(&mu_);
    newest_ = std::move(file);
    if (!writing_) Continue();
  }

  // Ends the stream after the message in flight; once counts.
  void End(const absl::Status& status) ABSL_LOCKS_EXCLUDED(mu_) {
    absl::MutexLock lock(&mu_);
    if (end_.has_value()) return;
    end_ = status;
    if (!writing_) FinishNow();
  }

  void OnWriteDone(bool ok) override {
    absl::MutexLock lock(&mu_);
    writing_ = false;
    message_ = v1::WatchPolicyResponse();  // Who waits costs no memory.
    if (!ok && !end_.has_value()) {
      end_ = absl::CancelledError("The watcher has gone.");
    }
    if (end_.has_value()) {
      FinishNow();
    } else {
      Continue();
    }
  }

  void OnCancel() override {
    End(absl::CancelledError("The watcher has gone."));
  }

  void OnDone() override {
    feed_.Remove(this);
    delete this;
  }

 private:
  // Sends the next message if there is one. Nothing is in flight.
  void Continue() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (end_.has_value()) return;
    if (sending_ == nullptr) {
      if (newest_ == nullptr || newest_->sha256 == sent_sha256_) return;
      sending_ = newest_;
      // The first answer may be that there is nothing to send.
      const bool held =
          sent_sha256_.empty() && sending_->sha256 == held_sha256_;
      offset_ = held ? static_cast<int64_t>(sending_->bytes.size()) : 0;
    }
    *message_.mutable_header() = sending_->header;
    message_.set_sha256(sending_->sha256);
    const int64_t total = static_cast<int64_t>(sending_->bytes.size());
    message_.set_total_bytes(total);
    message_.set_offset(offset_);
    const int64_t size = std::min(feed_.options_.chunk_bytes, total - offset_);
    message_.set_data(sending_->bytes.data() + offset_, size);
    offset_ += size;
    if (offset_ == total) {
      sent_sha256_ = sending_->sha256;
      sending_ = nullptr;
    }
    writing_ = true;
    StartWrite(&message_);
  }

  void FinishNow() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (std::exchange(finished_, true)) return;
    Finish(ToGrpcStatus(*end_, context_,
                        context_->IsCancelled() ? nullptr : &feed_.counters_));
  }

  PolicyFeed& feed_;
  grpc::CallbackServerContext* const context_;
  const std::string held_sha256_;

  absl::Mutex mu_;
  FilePtr newest_ ABSL_GUARDED_BY(mu_);   // Offered last.
  FilePtr sending_ ABSL_GUARDED_BY(mu_);  // Sent up to `offset_`.
  int64_t offset_ ABSL_GUARDED_BY(mu_) = 0;
  // Of the last one that was sent to its end; empty: none.
  std::string sent_sha256_ ABSL_GUARDED_BY(mu_);
  bool writing_ ABSL_GUARDED_BY(mu_) = false;  // `message_` is in flight.
  v1::WatchPolicyResponse message_ ABSL_GUARDED_BY(mu_);
  std::optional<absl::Status> end_ ABSL_GUARDED_BY(mu_);
  bool finished_ ABSL_GUARDED_BY(mu_) = false;
};

namespace {

// A stream that is refused from the start.
class RefusedWatch final
    : public grpc::ServerWriteReactor<v1::WatchPolicyResponse> {
 public:
  explicit RefusedWatch(const grpc::Status& status) { Finish(status); }
  void OnDone() override { delete this; }
};

}  // namespace

PolicyFeed::PolicyFeed(PolicyStore& policies, ServerCounters& counters,
                       const PolicyFeedOptions& options)
    : policies_(policies),
      counters_(counters),
      options_(options),
      thread_([this] { Run(); }) {
  policies_.SetListener([this] {
    absl::MutexLock lock(&mu_);
    changed_ = true;
  });
}

PolicyFeed::~PolicyFeed() {
  policies_.SetListener(nullptr);
  {
    absl::MutexLock lock(&mu_);
    stopping_ = true;
  }
  thread_.join();
}

absl::Status PolicyFeed::Check(const v1::WatchPolicyRequest& request) const {
  if (!request.spec_digest().empty() &&
      request.spec_digest() != policies_.spec_digest()) {
    return Refuse("SPEC_MISMATCH", "spec_digest",
                  absl::StrCat("The follower acts with specification ",
                               request.spec_digest(), ", this server with ",
                               policies_.spec_digest(), "."),
                  "Start the follower with the trainer's specification, or "
                  "without one.");
  }
  absl::MutexLock lock(&mu_);
  if (draining_) return Draining();
  if (static_cast<int64_t>(streams_.size()) >= options_.max_watchers) {
    return Refuse("BUDGET_EXCEEDED", "max_watchers",
                  absl::StrCat(options_.max_watchers,
                               " followers watch this server already."),
                  "Follow another server.");
  }
  return absl::OkStatus();
}

grpc::ServerWriteReactor<v1::WatchPolicyResponse>* PolicyFeed::Open(
    grpc::CallbackServerContext* context,
    const v1::WatchPolicyRequest* request) {
  if (const absl::Status status = Check(*request); !status.ok()) {
    return new RefusedWatch(ToGrpcStatus(status, context, &counters_));
  }
  auto* stream = new WatchStream(*this, context, *request);
  absl::MutexLock lock(&mu_);
  streams_.insert(stream);
  if (draining_) {
    stream->End(Draining());
  } else if (newest_ != nullptr && !changed_) {
    stream->Offer(newest_);
  } else {
    changed_ = true;  // The thread encodes it first.
  }
  return stream;
}

void PolicyFeed::Drain() {
  absl::MutexLock lock(&mu_);
  draining_ = true;
  for (WatchStream* stream : streams_) stream->End(Draining());
}

int64_t PolicyFeed::watchers() const {
  absl::MutexLock lock(&mu_);
  return static_cast<int64_t>(streams_.size());
}

void PolicyFeed::Remove(WatchStream* stream) {
  absl::MutexLock lock(&mu_);
  streams_.erase(stream);
  if (!streams_.empty()) return;
  newest_ = nullptr;
  changed_ = true;
}

absl::StatusOr<std::shared_ptr<const PolicyFeed::File>> PolicyFeed::Encode()
    const {
  auto file = std::make_shared<File>();
  file->source = policies_.Current();
  const PublishedPolicy& published = *file->source;
  policies_.FillHeader(published.version, &file->header);
  auto bytes = EncodeSnapshot(policies_.spec(), published.snapshot,
                              published.policy->precision());
  if (!bytes.ok()) return bytes.status();
  file->bytes = *std::move(bytes);
  file->sha256 = Sha256Hex(file->bytes);
  return file;
}

void PolicyFeed::Run() {
  while (true) {
    {
      absl::MutexLock lock(&mu_);
      mu_.Await(absl::Condition(this, &PolicyFeed::HasWork));
      if (stopping_) return;
      changed_ = false;
    }
    absl::StatusOr<std::shared_ptr<const File>> file =
        absl::InternalError("not encoded");
    const absl::Status status = CatchErrors([&] {
      file = Encode();
      return file.status();
    });
    absl::MutexLock lock(&mu_);
    if (!status.ok()) {
      spdlog::error("the policy cannot be sent to followers: {}",
                    std::string(status.message()));
      for (WatchStream* stream : streams_) stream->End(status);
      continue;
    }
    newest_ = *file;
    for (WatchStream* stream : streams_) stream->Offer(newest_);
  }
}

}  // namespace esper::server
