#include "client/call.h"

#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/support/channel_arguments.h>

#include <algorithm>
#include <chrono>
#include <climits>
#include <random>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/status.h"

namespace esper::client {
namespace {

// How often a wait for a connection looks up.
constexpr absl::Duration kConnectPoll = absl::Milliseconds(100);

// False if the caller was told to stop meanwhile.
bool Pause(absl::Duration pause, const absl::Notification* stop) {
  if (stop == nullptr) {
    absl::SleepFor(pause);
    return true;
  }
  return !stop->WaitForNotificationWithTimeout(pause);
}

int ToMilliseconds(absl::Duration duration) {
  return static_cast<int>(
      std::min(absl::ToInt64Milliseconds(duration), int64_t{INT_MAX}));
}

}  // namespace

bool IsRetryable(const absl::Status& status) {
  return absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status) ||
         absl::IsCancelled(status);
}

absl::Duration WithJitter(absl::Duration pause) {
  thread_local std::minstd_rand generator(std::random_device{}());
  return pause * std::uniform_real_distribution<double>(0.8, 1.2)(generator);
}

absl::Status WithAttempts(const absl::Status& status, const std::string& method,
                          int attempts) {
  absl::Status result(status.code(),
                      absl::StrCat(method, ": ", std::string(status.message()),
                                   " (gave up after ", attempts, " attempts)"));
  status.ForEachPayload([&](auto url, const absl::Cord& payload) {
    result.SetPayload(url, payload);
  });
  return result;
}

absl::StatusOr<std::shared_ptr<grpc::Channel>> Connect(
    const ConnectOptions& options) {
  if (options.address.empty()) {
    return absl::InvalidArgumentError("The server's address is empty.");
  }
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(
      static_cast<int>(options.max_message_bytes));
  arguments.SetMaxSendMessageSize(static_cast<int>(options.max_message_bytes));
  // A restarted server is found again within seconds instead of minutes.
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  // Also the time that one attempt to connect gets, so not too short.
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 2000);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 2000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS,
                   ToMilliseconds(options.keepalive_time));
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS,
                   ToMilliseconds(options.keepalive_timeout));
  // The server may be busy with one call for long: pings without data between
  // them are no offence here.
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  const auto credentials =
      ChannelCredentialsFor(options.credentials, options.address);
  if (!credentials.ok()) return credentials.status();
  if (!options.credentials.server_name.empty()) {
    arguments.SetSslTargetNameOverride(options.credentials.server_name);
  }
  auto channel =
      grpc::CreateCustomChannel(options.address, *credentials, arguments);
  const absl::Time deadline = absl::Now() + options.timeout;
  while (!channel->WaitForConnected(std::chrono::system_clock::now() +
                                    absl::ToChronoMilliseconds(kConnectPoll))) {
    if (options.stop != nullptr && options.stop->HasBeenNotified()) {
      return absl::CancelledError("told to stop");
    }
    if (absl::Now() < deadline) continue;
    return absl::UnavailableError(absl::StrCat(
        "Nothing answers at ", options.address, " within ",
        absl::FormatDuration(options.timeout), ". Is the server running?"));
  }
  return channel;
}

absl::Status RetryCall(
    const RetryPolicy& policy, const std::string& method,
    const std::function<grpc::Status(grpc::ClientContext*, int)>& attempt) {
  const absl::Time give_up = absl::Now() + policy.give_up_after;
  absl::Duration backoff = policy.initial_backoff;
  for (int number = 0;; ++number) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() +
                         absl::ToChronoMilliseconds(policy.attempt_timeout));
    const grpc::Status status = attempt(&context, number);
    if (status.ok()) return absl::OkStatus();
    const absl::Status result = FromGrpc(status, context);
    if (!IsRetryable(result)) return result;
    const absl::Duration pause = WithJitter(backoff);
    if (absl::Now() + pause > give_up || !Pause(pause, policy.stop)) {
      return WithAttempts(result, method, number + 1);
    }
    backoff = std::min(backoff * 2, policy.max_backoff);
  }
}

}  // namespace esper::client
