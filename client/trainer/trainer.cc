#include "client/trainer/trainer.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "client/status.h"
#include "spdlog/spdlog.h"

namespace esper::client {
namespace {

constexpr absl::Duration kPoll = absl::Milliseconds(100);
constexpr absl::Duration kWorkerPatience = absl::Minutes(1);
constexpr int kMaxFailuresInARow = 3;
// A mismatch of acting and training that is more than rounding.
constexpr double kRatioAlarm = 1e-3;

bool IsAway(const absl::Status& status) {
  return status.code() == absl::StatusCode::kUnavailable ||
         status.code() == absl::StatusCode::kDeadlineExceeded ||
         status.code() == absl::StatusCode::kAborted;  // Lease held elsewhere.
}

}  // namespace

Trainer::Trainer(const Options& options, EpisodeScheduler& scheduler,
                 EpisodeCollector& collector, PolicyLearner& learner,
                 RunDirectory& directory, Progress& progress,
                 const CoordinatorService& service,
                 const absl::Notification& stop)
    : options_(options),
      scheduler_(scheduler),
      collector_(collector),
      learner_(learner),
      directory_(directory),
      progress_(progress),
      service_(service),
      stop_(stop) {}

absl::Status Trainer::Run() {
  at_start_ = directory_.totals();
  learner_.set_checkpoint({at_start_.checkpoint, at_start_.checkpoint_version});
  start_ = absl::Now();
  absl::Status status = options_.evaluate_only ? EvaluateOnly() : Train();
  if (!status.ok()) spdlog::error("training ends: {}", Describe(status));
  scheduler_.Stop();
  absl::Status end = End();
  progress_.Finish();
  return status.ok() ? end : status;
}

absl::Status Trainer::Train() {
  WaitForWorkers();
  start_ = absl::Now();
  while (!Finished()) {
    auto version = PrepareLearner();
    if (!version.ok()) {
      return Stopped() ? absl::OkStatus() : version.status();
    }
    collector_.StartRound(*version);
    scheduler_.StartRound(options_.episodes_per_update);
    const absl::Time round_start = absl::Now();
    const std::vector<FinishedEpisode> episodes = CollectRound(*version);
    scheduler_.EndRound();
    if (Stopped()) break;
    if (static_cast<int>(episodes.size()) < options_.min_episodes) continue;
    absl::Status status = UpdatePolicy(
        *version, episodes, absl::ToDoubleSeconds(absl::Now() - round_start));
    if (!status.ok()) return status;
    if (options_.checkpoint_every > 0 &&
        updates_since_checkpoint_ >= options_.checkpoint_every) {
      status = SaveCheckpoint();
      if (!status.ok()) spdlog::error("no checkpoint: {}", Describe(status));
    }
    if (options_.evaluation_every > 0 &&
        updates_since_evaluation_ >= options_.evaluation_every) {
      status = Evaluate();
      if (!status.ok()) return status;
    }
  }
  return absl::OkStatus();
}

absl::Status Trainer::EvaluateOnly() {
  WaitForWorkers();
  start_ = absl::Now();
  const int64_t before = directory_.totals().evaluations;
  absl::Status status = Evaluate();
  if (!status.ok() || Stopped()) return status;
  if (directory_.totals().evaluations > before) return absl::OkStatus();
  return absl::UnavailableError(
      "No evaluation episode came in. Is the policy server there, and a worker "
      "(esper_env --coordinator) that has the task?");
}

absl::Status Trainer::Evaluate() {
  auto version = PrepareLearner();
  if (!version.ok()) return absl::OkStatus();  // The next round says why.
  updates_since_evaluation_ = 0;
  collector_.StartRound(*version, /*evaluation=*/true);
  scheduler_.StartEvaluation(options_.evaluation_episodes);
  const std::vector<FinishedEpisode> episodes =
      CollectRound(*version, /*evaluation=*/true);
  scheduler_.EndRound();
  if (episodes.empty()) return absl::OkStatus();
  double mean_return = 0;
  double mean_accuracy = 0;
  for (const FinishedEpisode& episode : episodes) {
    mean_return += episode.summary.episode_return() / episodes.size();
    mean_accuracy += episode.summary.host_accuracy() / episodes.size();
  }
  spdlog::info(
      "evaluation of version {}: mean return {:.3f}, host accuracy {:.2f} % in "
      "{} episodes",
      *version, mean_return, mean_accuracy, episodes.size());
  return directory_.AddEvaluation(episodes);
}

bool Trainer::Finished() const {
  if (Stopped()) return true;
  if (absl::Now() - start_ >= options_.max_time) return true;
  return options_.max_updates > 0 && updates_ >= options_.max_updates;
}

void Trainer::WaitForWorkers() {
  const absl::Time deadline = absl::Now() + kWorkerPatience;
  while (scheduler_.live_workers() < options_.workers && !Stopped()) {
    if (absl::Now() > deadline) {
      spdlog::warn("starting with {} workers instead of {}",
                   scheduler_.live_workers(), options_.workers);
      return;
    }
    stop_.WaitForNotificationWithTimeout(kPoll);
  }
}

absl::StatusOr<int64_t> Trainer::PrepareLearner() {
  const absl::Time deadline = absl::Now() + options_.server_patience;
  auto version = learner_.Prepare(absl::Now());
  while (!version.ok() && IsAway(version.status()) && !Stopped() &&
         absl::Now() < deadline) {
    spdlog::warn("waiting for the policy server: {}",
                 Describe(version.status()));
    stop_.WaitForNotificationWithTimeout(absl::Seconds(1));
    version = learner_.Prepare(absl::Now());
  }
  if (!version.ok()) return version;
  const int64_t expected = directory_.totals().policy_version;
  if (*version != expected) {
    spdlog::info("the server publishes version {}, the run was at {}", *version,
                 expected);
    absl::Status status = directory_.Change(
        [&](RunTotals& totals) { totals.SetVersion(*version); });
    if (!status.ok()) return status;
  }
  return version;
}

std::vector<FinishedEpisode> Trainer::CollectRound(int64_t version,
                                                   bool evaluation) {
  const absl::Time deadline = absl::Now() + options_.collect_deadline;
  const int wanted =
      evaluation ? options_.evaluation_episodes : options_.episodes_per_update;
  const int minimum = evaluation ? 0 : options_.min_episodes;
  int64_t stale_episodes = collector_.stale_episodes();
  while (evaluation ? !Stopped() : !Finished()) {
    const int collected = collector_.WaitFor(wanted, kPoll);
    Tick(collected);
    if (collected >= wanted) break;
    if (absl::Now() >= deadline && collected >= minimum) {
      spdlog::warn("{} of {} episodes are late; going on with the others",
                   wanted - collected, wanted);
      break;
    }
    // Another version acts where the server was restarted.
    const bool stale = collector_.stale_episodes() != stale_episodes;
    if ((stale || !learner_.KeepLease(absl::Now())) && !Confirm(version)) {
      return {};
    }
    stale_episodes = collector_.stale_episodes();
  }
  if (Stopped()) return {};
  if (!learner_.RenewLease(absl::Now()) && !Confirm(version)) return {};
  return collector_.Take();
}

bool Trainer::Confirm(int64_t version) {
  auto prepared = PrepareLearner();
  return prepared.ok() && *prepared == version;
}

void Trainer::Tick(int collected) {
  const absl::Time now = absl::Now();
  for (const std::string& name : scheduler_.ExpireSilent(now)) {
    spdlog::warn("worker {} is silent; its episodes go to others", name);
  }
  if (!progress_.IsDue(now)) return;
  const RunTotals totals = directory_.totals();
  progress_.Show(totals, Position(totals, collected), now);
}

absl::Status Trainer::UpdatePolicy(int64_t version,
                                   const std::vector<FinishedEpisode>& episodes,
                                   double collect_seconds) {
  const absl::Time start = absl::Now();
  auto report = learner_.Update(episodes, options_.update);
  // A server that was restarted with the same version can take them still.
  if (IsAway(report.status()) && Confirm(version)) {
    report = learner_.Update(episodes, options_.update);
  }
  if (!report.ok()) {
    spdlog::error("update refused, {} episodes dropped: {}", episodes.size(),
                  Describe(report.status()));
    absl::Status status =
        directory_.Change([](RunTotals& totals) { ++totals.updates_failed; });
    const bool give_up = ++failures_in_a_row_ >= kMaxFailuresInARow ||
                         ReasonOf(report.status()) == "TRAINING_DIVERGED";
    return give_up && !IsAway(report.status()) ? report.status() : status;
  }
  failures_in_a_row_ = 0;
  if (report->optimizer_steps > 0) {
    ++updates_;
    ++updates_since_checkpoint_;
    ++updates_since_evaluation_;
  }

  if (report->ratio_check_max > kRatioAlarm) {
    spdlog::warn("acting and training disagree: ratio check {:.2g}",
                 report->ratio_check_max);
  }
  if (!report->anomalies.empty()) {
    spdlog::warn("this update looks wrong: {}",
                 absl::StrJoin(report->anomalies, ", "));
  }
  absl::Status status = directory_.AddUpdate(
      *report, static_cast<int64_t>(episodes.size()), collect_seconds,
      absl::ToDoubleSeconds(absl::Now() - start));
  if (!status.ok()) return status;
  const RunTotals totals = directory_.totals();
  spdlog::info(
      "update {}: version {}, {} transitions in {} passes{}, KL {:.4f}, ratio "
      "check {:.1e}",
      totals.updates, totals.policy_version, report->transitions,
      report->passes, report->kl_stopped ? " (stopped by the divergence)" : "",
      report->approx_kl, report->ratio_check_max);
  return WriteCounters(/*finished=*/false);
}

absl::Status Trainer::SaveCheckpoint() {
  if (updates_since_checkpoint_ == 0 &&
      !directory_.totals().checkpoint.empty()) {
    return absl::OkStatus();
  }
  auto checkpoint = learner_.SaveCheckpoint();
  if (!checkpoint.ok()) return checkpoint.status();
  updates_since_checkpoint_ = 0;
  spdlog::info("checkpoint {}", checkpoint->name);
  return directory_.Change([&](RunTotals& totals) {
    totals.checkpoint = checkpoint->name;
    totals.checkpoint_version = checkpoint->version;
  });
}

absl::Status Trainer::WriteCounters(bool finished) {
  return directory_.Change([this, finished](RunTotals& totals) {
    totals.episodes_aborted =
        at_start_.episodes_aborted + service_.aborted_episodes();
    totals.episodes_stale =
        at_start_.episodes_stale + collector_.stale_episodes();
    totals.finished = finished;
  });
}

absl::Status Trainer::End() {
  absl::Status saved =
      options_.evaluate_only ? absl::OkStatus() : SaveCheckpoint();
  if (!saved.ok()) spdlog::error("no checkpoint: {}", Describe(saved));
  absl::Status released = learner_.Release();
  if (!released.ok()) {
    spdlog::warn("the learner lease was not given up: {}", Describe(released));
  }
  absl::Status written = WriteCounters(/*finished=*/true);
  return saved.ok() ? written : saved;
}

RunPosition Trainer::Position(const RunTotals& totals, int collected) const {
  RunPosition position;

  const double seconds =
      std::max(absl::ToDoubleSeconds(absl::Now() - start_), 1e-3);
  position.done = -1;
  if (options_.max_time < absl::InfiniteDuration()) {
    position.done = seconds / absl::ToDoubleSeconds(options_.max_time);
  }
  if (options_.max_updates > 0) {
    position.done =
        std::max(position.done, static_cast<double>(updates_) /
                                    static_cast<double>(options_.max_updates));
  }
  position.round_episodes = collected;
  position.round_size = options_.episodes_per_update;
  position.episodes_per_second =
      static_cast<double>(totals.episodes - at_start_.episodes) / seconds;
  position.steps_per_second =
      static_cast<double>(service_.heartbeat_steps()) / seconds;
  return position;
}

}  // namespace esper::client
