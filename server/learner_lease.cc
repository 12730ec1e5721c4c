#include "server/learner_lease.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/refusal.h"

namespace esper::server {
namespace {

absl::Status StaleLease(const std::string& message) {
  return Refuse("STALE_LEASE", "lease_token", message,
                "Call AcquireLearner and use the token that it returns.");
}

}  // namespace

LearnerLease::LearnerLease(const Options& options,
                           std::function<absl::Time()> now, NumberLog* tokens)
    : options_(options), now_(std::move(now)), tokens_(tokens) {}

absl::StatusOr<LearnerLease::Grant> LearnerLease::Acquire(
    const std::string& holder) {
  if (holder.empty()) {
    return Refuse("MALFORMED_REQUEST", "holder", "holder must not be empty.",
                  "Name the process that will train.");
  }
  absl::MutexLock lock(&mu_);
  const absl::Time now = now_();
  if (!holder_.empty() && holder_ != holder && now < expiry_) {
    return StaleLease(absl::StrCat(
        "The learner lease is held by \"", holder_, "\" for another ",
        absl::FormatDuration(absl::Floor(expiry_ - now, absl::Seconds(1))),
        "."));
  }
  if (tokens_ != nullptr) {
    const auto token = tokens_->Take(token_);
    if (!token.ok()) return token.status();
    token_ = *token;
  } else {
    ++token_;
  }
  const bool taken_over = holder != last_holder_;
  holder_ = holder;
  last_holder_ = holder;
  expiry_ = now + options_.duration;
  last_sequence_ = 0;
  last_answer_.clear();
  return Grant{token_, options_.duration, taken_over};
}

absl::Status LearnerLease::CheckToken(int64_t token) const {
  if (token == token_ && !holder_.empty()) return absl::OkStatus();
  return StaleLease(absl::StrCat("Lease token ", token,
                                 " does not hold the learner lease (the "
                                 "current token is ",
                                 token_, ")."));
}

absl::StatusOr<absl::Duration> LearnerLease::Renew(int64_t token) {
  absl::MutexLock lock(&mu_);
  if (absl::Status status = CheckToken(token); !status.ok()) return status;
  expiry_ = now_() + options_.duration;
  return options_.duration;
}

absl::Status LearnerLease::Release(int64_t token) {
  absl::MutexLock lock(&mu_);
  if (absl::Status status = CheckToken(token); !status.ok()) return status;
  holder_.clear();
  expiry_ = absl::InfinitePast();
  return absl::OkStatus();
}

absl::StatusOr<std::optional<std::string>> LearnerLease::Begin(
    int64_t token, int64_t sequence, const std::string& call) {
  absl::MutexLock lock(&mu_);
  if (absl::Status status = CheckToken(token); !status.ok()) return status;
  expiry_ = now_() + options_.duration;
  if (sequence == last_sequence_ && sequence > 0) {
    if (call != last_call_) {
      return Refuse("MALFORMED_REQUEST", "write.sequence",
                    absl::StrCat("Sequence number ", sequence, " was used by ",
                                 last_call_, "."),
                    "Give every writing call a number of its own.");
    }
    return std::optional<std::string>(last_answer_);
  }
  if (sequence != last_sequence_ + 1) {
    return Refuse(
        "MALFORMED_REQUEST", "write.sequence",
        absl::StrCat("Sequence number ", sequence, " is neither the last (",
                     last_sequence_, ") nor the next one."),
        "Number the writing calls of a lease 1, 2, 3, ...");
  }
  return std::optional<std::string>();
}

void LearnerLease::Finish(int64_t token, int64_t sequence,
                          const std::string& call, std::string answer) {
  absl::MutexLock lock(&mu_);
  if (token != token_ || holder_.empty()) return;  // Ended while it ran.
  last_sequence_ = sequence;
  last_call_ = call;
  last_answer_ = std::move(answer);
}

std::string LearnerLease::Holder() const {
  absl::MutexLock lock(&mu_);
  return now_() < expiry_ ? holder_ : std::string();
}

int64_t LearnerLease::Token() const {
  absl::MutexLock lock(&mu_);
  return token_;
}

void LearnerLease::End(int64_t at_least) {
  absl::MutexLock lock(&mu_);
  holder_.clear();
  last_holder_.clear();
  expiry_ = absl::InfinitePast();
  token_ = std::max(token_, at_least);
}

}  // namespace esper::server
