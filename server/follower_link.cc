#include "server/follower_link.h"

#include <algorithm>
#include <chrono>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/security/credentials.h"
#include "grpcpp/support/channel_arguments.h"
#include "proto/codec/error_detail.h"
#include "server/grpc_status.h"
#include "spdlog/spdlog.h"

namespace esper::server {
namespace {

std::shared_ptr<grpc::Channel> Connect(const FollowerOptions& options) {
  grpc::ChannelArguments arguments;
  // A trainer that is back is found within seconds instead of minutes. The
  // minimum is also the time that one attempt to connect gets.
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 2000);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 2000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS,
                   absl::ToInt64Milliseconds(options.keepalive_time));
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS,
                   absl::ToInt64Milliseconds(options.keepalive_timeout));
  // Between two versions nothing but pings goes over the connection.
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  const auto credentials =
      options.authorities.empty()
          ? grpc::InsecureChannelCredentials()
          : TlsDialCredentials(options.identity, options.authorities);
  return grpc::CreateCustomChannel(options.source, credentials, arguments);
}

// Between 80 % and 120 %, so that many followers do not come back at once.
absl::Duration WithJitter(absl::Duration pause) {
  thread_local std::minstd_rand generator(std::random_device{}());
  return pause * std::uniform_real_distribution<double>(0.8, 1.2)(generator);
}

}  // namespace

bool IsAbsent(const absl::Status& status) {
  return absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status);
}

FollowerLink::FollowerLink(const FollowerOptions& options, Clock clock)
    : options_(options),
      clock_(std::move(clock)),
      stub_(v1::PolicyTraining::NewStub(Connect(options))) {}

FollowerLink::~FollowerLink() { Stop(); }

absl::StatusOr<ReceivedVersion> FollowerLink::Fetch(
    const std::string& spec_digest, bool patient) {
  request_.set_spec_digest(spec_digest);
  const absl::Time deadline = absl::Now() + options_.start_timeout;
  absl::Duration backoff = options_.initial_backoff;
  while (true) {
    ReceivedVersion version;
    bool arrived = false;
    const absl::Status ended = ReadStream(deadline, [&](ReceivedVersion came) {
      version = std::move(came);
      arrived = true;
      return false;
    });
    if (arrived) return version;
    if (!patient || !IsAbsent(ended) || absl::Now() + backoff > deadline ||
        !Pause(WithJitter(backoff))) {
      return ended;
    }
    backoff = std::min(2 * backoff, options_.max_backoff);
  }
}

void FollowerLink::Start(const std::string& spec_digest, int64_t held_version,
                         const std::string& held_sha256, Accept accept) {
  request_.set_spec_digest(spec_digest);
  request_.set_held_version(held_version);
  request_.set_held_sha256(held_sha256);
  thread_ = std::thread([this, accept = std::move(accept)] { Run(accept); });
}

void FollowerLink::Stop() {
  {
    absl::MutexLock lock(&mu_);
    stopping_ = true;
    if (context_ != nullptr) context_->TryCancel();
  }
  if (thread_.joinable()) thread_.join();
}

FollowerLinkState FollowerLink::State() const {
  absl::MutexLock lock(&mu_);
  return state_;
}

void FollowerLink::Run(const Accept& accept) {
  absl::Duration backoff = options_.initial_backoff;
  const Sink sink = [&](ReceivedVersion version) -> absl::StatusOr<bool> {
    const int64_t number = version.header.policy_version();
    const std::string sha256 = version.sha256;
    absl::Status status =
        CatchErrors([&] { return accept(std::move(version)); });
    if (!status.ok()) return status;
    request_.set_held_version(number);
    request_.set_held_sha256(sha256);
    return true;
  };
  while (true) {
    well_ = false;
    NoteEnd(ReadStream(absl::InfiniteFuture(), sink));
    if (well_) backoff = options_.initial_backoff;
    if (!Pause(WithJitter(backoff))) return;
    backoff = std::min(2 * backoff, options_.max_backoff);
  }
}

absl::Status FollowerLink::ReadStream(absl::Time deadline, const Sink& sink) {
  grpc::ClientContext context;
  if (deadline != absl::InfiniteFuture()) {
    context.set_deadline(absl::ToChronoTime(deadline));
  }
  {
    absl::MutexLock lock(&mu_);
    if (stopping_) return absl::CancelledError("told to stop");
    context_ = &context;
  }
  VersionReceiver receiver(options_.max_version_bytes);
  v1::WatchPolicyResponse part;
  absl::Status ours;  // Why the stream is not wanted any more.
  bool wanted = true;
  const auto reader = stub_->WatchPolicy(&context, request_);
  while (wanted && reader->Read(&part)) {
    NoteContact();
    if (part.data().empty() && part.sha256() == request_.held_sha256()) {
      NoteWell();  // What is current is held.
      continue;
    }
    auto version = receiver.Add(part);
    if (version.ok() && !version->has_value()) continue;
    const absl::StatusOr<bool> taken =
        version.ok() ? sink(**std::move(version))
                     : absl::StatusOr<bool>(version.status());
    ours = taken.status();
    wanted = taken.ok() && *taken;
    if (taken.ok()) NoteWell();
  }
  if (!wanted) {
    context.TryCancel();
    while (reader->Read(&part)) continue;
  }
  const grpc::Status ended = reader->Finish();
  {
    absl::MutexLock lock(&mu_);
    context_ = nullptr;
    if (state_.connected) state_.last_contact = clock_();
    state_.connected = false;
  }
  if (!ours.ok()) return ours;
  if (!wanted) return absl::CancelledError("not wanted any more");
  if (ended.ok()) return absl::UnavailableError("the stream was closed");
  return codec::DecodeStatus(ended, context);
}

void FollowerLink::NoteContact() {
  absl::MutexLock lock(&mu_);
  state_.connected = true;
  state_.last_contact = clock_();
}

void FollowerLink::NoteWell() {
  if (!well_) spdlog::info("following {}", options_.source);
  well_ = true;
  absl::MutexLock lock(&mu_);
  state_.last_error.clear();
}

void FollowerLink::NoteEnd(const absl::Status& status) {
  absl::MutexLock lock(&mu_);
  if (stopping_) return;
  const std::string error =
      absl::StrCat(absl::StatusCodeToString(status.code()), ": ",
                   std::string(status.message()));
  // An absent trainer is told once, not every two seconds.
  if (error != state_.last_error) {
    spdlog::warn("not following {}: {}", options_.source, error);
  }
  state_.last_error = error;
}

bool FollowerLink::Pause(absl::Duration pause) {
  absl::MutexLock lock(&mu_);
  return !mu_.AwaitWithTimeout(absl::Condition(&stopping_), pause);
}

}  // namespace esper::server
