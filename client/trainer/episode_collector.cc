#include "client/trainer/episode_collector.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/status.h"
#include "client/tensor.h"

namespace esper::client {
namespace {

bool ReachedItsEnd(const v1::EpisodeSummary& summary) {
  return summary.end_kind() == v1::END_KIND_TERMINATED ||
         summary.end_kind() == v1::END_KIND_TRUNCATED;
}

}  // namespace

void EpisodeCollector::StartRound(int64_t policy_version, bool evaluation) {
  absl::MutexLock lock(&mu_);
  policy_version_ = policy_version;
  evaluation_ = evaluation;
  episodes_.clear();
}

absl::StatusOr<int64_t> EpisodeCollector::Check(
    const v1::EpisodeSummary& summary, const v1::Trajectory& trajectory) {
  if (trajectory.end_kind() != summary.end_kind() || !ReachedItsEnd(summary)) {
    return Refusal(absl::StatusCode::kInvalidArgument, "MALFORMED_REQUEST",
                   "An episode to train on must be terminated or truncated, "
                   "and its summary and trajectory must agree on it.");
  }
  if (summary.steps() < 1) {
    return Refusal(absl::StatusCode::kInvalidArgument, "MALFORMED_REQUEST",
                   "An episode to train on needs at least one step.");
  }
  auto versions =
      UnpackTensor<int64_t>(trajectory.policy_versions(), {summary.steps()},
                            "trajectory.policy_versions");
  if (!versions.ok()) {
    return Refusal(absl::StatusCode::kInvalidArgument, "BAD_SHAPE",
                   std::string(versions.status().message()));
  }
  absl::MutexLock lock(&mu_);
  for (const int64_t version : *versions) {
    if (version == policy_version_) continue;
    ++stale_episodes_;
    return Refusal(absl::StatusCode::kFailedPrecondition, "STALE_BEHAVIOUR",
                   absl::StrCat("Policy version ", version,
                                " acted in the episode, this round is for ",
                                policy_version_, "."),
                   "Drop the episode and ask for another one.");
  }
  return versions->front();
}

absl::StatusOr<int64_t> EpisodeCollector::CheckEvaluation(
    const v1::EpisodeSummary& summary) const {
  if (!ReachedItsEnd(summary)) {
    return Refusal(absl::StatusCode::kInvalidArgument, "MALFORMED_REQUEST",
                   "An evaluation episode must be terminated or truncated.");
  }
  absl::MutexLock lock(&mu_);
  return policy_version_;
}

void EpisodeCollector::Add(FinishedEpisode episode) {
  absl::MutexLock lock(&mu_);
  // It may have been checked before a round ended, and added after.
  if (episode.policy_version != policy_version_ ||
      episode.lease.evaluation != evaluation_) {
    ++stale_episodes_;
    return;
  }
  episodes_.push_back(std::move(episode));
}

int EpisodeCollector::WaitFor(int count, absl::Duration timeout) {
  absl::MutexLock lock(&mu_);
  const auto enough = [this, count]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return static_cast<int>(episodes_.size()) >= count;
  };
  mu_.AwaitWithTimeout(absl::Condition(&enough), timeout);
  return static_cast<int>(episodes_.size());
}

std::vector<FinishedEpisode> EpisodeCollector::Take() {
  absl::MutexLock lock(&mu_);
  std::sort(episodes_.begin(), episodes_.end(),
            [](const FinishedEpisode& a, const FinishedEpisode& b) {
              return a.lease.episode < b.lease.episode;
            });
  return std::exchange(episodes_, {});
}

int64_t EpisodeCollector::stale_episodes() const {
  absl::MutexLock lock(&mu_);
  return stale_episodes_;
}

}  // namespace esper::client
