#include "client/trainer/policy_update.h"

#include <algorithm>
#include <utility>

#include "client/status.h"
#include "proto/config/minibatches.h"
#include "spdlog/spdlog.h"

namespace esper::client {
namespace {

// Whether the server itself turned the call down, before doing anything.
bool IsRefusal(const absl::Status& status) {
  return ErrorDetailOf(status).has_value() &&
         status.code() != absl::StatusCode::kInternal;
}

}  // namespace

PolicyUpdate::PolicyUpdate(TrainingClient& training,
                           const UpdateOptions& options, int64_t version)
    : training_(training), options_(options), version_(version) {}

absl::Status PolicyUpdate::Run(const std::vector<FinishedEpisode>& episodes) {
  const bool whole = options_.minibatches <= 1 || episodes.size() <= 1;
  return whole ? RunWhole(episodes) : RunMinibatches(episodes);
}

absl::Status PolicyUpdate::RunWhole(
    const std::vector<FinishedEpisode>& episodes) {
  v1::ForwardBackwardRequest request = MakeRequest(episodes);
  for (int pass = 0; pass < options_.passes; ++pass) {
    ++report_.passes;
    kl_sum_ = kl_count_ = 0;
    request.set_first_pass(pass == 0);
    auto goes_on = Advance(request, pass + 1 == options_.passes);
    if (!goes_on.ok()) return goes_on.status();
    if (!*goes_on) break;
  }
  return absl::OkStatus();
}

absl::Status PolicyUpdate::RunMinibatches(
    const std::vector<FinishedEpisode>& episodes) {
  v1::ForwardBackwardRequest whole = MakeRequest(episodes);
  whole.set_first_pass(true);
  whole.set_totals_only(true);
  auto next = Call(whole);
  if (!next.ok()) return next.status();
  if (*next != Next::kStep) return absl::OkStatus();
  const v1::BatchTotals totals = totals_;
  const int parts =
      std::min(options_.minibatches, static_cast<int>(episodes.size()));
  for (int pass = 0; pass < options_.passes; ++pass) {
    ++report_.passes;
    kl_sum_ = kl_count_ = 0;
    const config::PassKey key = {options_.seed, static_cast<uint64_t>(version_),
                         static_cast<uint64_t>(pass)};
    const auto split =
        config::SplitRows(static_cast<int>(episodes.size()), parts, key);
    for (int part = 0; part < parts; ++part) {
      v1::ForwardBackwardRequest request = MakeRequest(episodes, &split[part]);
      request.set_minibatch(true);
      *request.mutable_totals() = totals;
      auto goes_on =
          Advance(request, pass + 1 == options_.passes && part + 1 == parts);
      if (!goes_on.ok()) return goes_on.status();
      if (!*goes_on) return absl::OkStatus();
    }
  }
  return absl::OkStatus();
}

v1::ForwardBackwardRequest PolicyUpdate::MakeRequest(
    const std::vector<FinishedEpisode>& episodes,
    const std::vector<int>* rows) const {
  v1::ForwardBackwardRequest request;
  *request.mutable_ppo() = options_.loss;
  request.set_profile(options_.profile);
  const int count = static_cast<int>(rows ? rows->size() : episodes.size());
  for (int i = 0; i < count; ++i) {
    *request.mutable_batch()->add_trajectories() =
        episodes[rows ? (*rows)[i] : i].trajectory;
  }
  return request;
}

absl::StatusOr<bool> PolicyUpdate::Advance(v1::ForwardBackwardRequest& request,
                                           bool is_last) {
  auto next = Call(request);
  if (!next.ok()) return next.status();
  if (*next == Next::kStep) return Step(/*publish=*/is_last);
  return *next == Next::kSkip;
}

absl::StatusOr<PolicyUpdate::Next> PolicyUpdate::Call(
    v1::ForwardBackwardRequest& request) {
  auto reply = training_.ForwardBackward(request);
  if (!reply.ok()) {
    began_ = began_ || !IsRefusal(reply.status());
    return reply.status();
  }
  began_ = true;
  if (request.first_pass()) {
    report_.transitions = reply->transitions();
    report_.metrics = {reply->metrics().begin(), reply->metrics().end()};
    if (reply->has_ratio_check_max()) {
      report_.ratio_check_max = reply->ratio_check_max();
      report_.ratio_check_mean = reply->ratio_check_mean();
    }
  }
  totals_ = reply->totals();
  kl_sum_ += reply->approx_kl();
  report_.approx_kl = kl_sum_ / ++kl_count_;
  AddAnomalies(reply->anomalies());
  if (reply->kl_stop()) {
    report_.kl_stopped = true;
    return Next::kEnd;
  }
  if (reply->nonfinite_term().empty()) return Next::kStep;
  spdlog::warn("a pass was skipped: {} is not finite", reply->nonfinite_term());
  ++report_.skipped_nonfinite;
  if (!reply->rolled_back()) return Next::kSkip;
  TakeBack();
  return Next::kEnd;
}

absl::StatusOr<bool> PolicyUpdate::Step(bool publish) {
  v1::OptimStepRequest request;
  request.set_publish(publish);
  if (options_.max_grad_norm)
    request.set_max_grad_norm(*options_.max_grad_norm);
  if (options_.learning_rate)
    request.set_learning_rate(*options_.learning_rate);
  auto reply = training_.OptimStep(std::move(request));
  if (!reply.ok()) return reply.status();
  AddAnomalies(reply->anomalies());
  report_.gradient_norm = reply->gradient_norm_before_clip();
  report_.policy_version = reply->header().policy_version();
  report_.published = reply->published();
  if (reply->stepped()) {
    ++report_.optimizer_steps;
    report_.weights_change_l2 += reply->weights_change_l2();
    unpublished_steps_ = true;
  } else {
    ++report_.skipped_nonfinite;
  }
  if (report_.published) unpublished_steps_ = false;
  if (!reply->rolled_back()) return true;
  TakeBack();
  return false;
}

void PolicyUpdate::TakeBack() {
  spdlog::warn("the server took the update back; its episodes are dropped");
  report_.rolled_back = true;
  report_.optimizer_steps = 0;
  report_.weights_change_l2 = 0;
  unpublished_steps_ = false;
}

template <typename Names>
void PolicyUpdate::AddAnomalies(const Names& names) {
  std::vector<std::string>& known = report_.anomalies;
  for (const std::string& name : names) {
    if (std::count(known.begin(), known.end(), name) == 0) {
      known.push_back(name);
    }
  }
}

}  // namespace esper::client
