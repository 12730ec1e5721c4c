#include "core/env/episode_runner.h"

#include <ATen/Parallel.h>

#include <map>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "core/env/data.h"
#include "core/env/episode.h"

namespace esper::env {
namespace {

// Hands records on in the order of their jobs, and remembers what went wrong
// first. Any thread may call any method.
class OrderedRecords {
 public:
  OrderedRecords(
      int jobs,
      const std::function<absl::Status(const EpisodeRecord&)>& on_record)
      : jobs_(jobs), on_record_(on_record) {}

  // The next job to play; -1: there is none, or something went wrong.
  int Take() ABSL_LOCKS_EXCLUDED(mu_) {
    absl::MutexLock lock(&mu_);
    return status_.ok() && taken_ < jobs_ ? taken_++ : -1;
  }

  void Put(int job, absl::StatusOr<EpisodeRecord> record)
      ABSL_LOCKS_EXCLUDED(mu_) {
    absl::MutexLock lock(&mu_);
    if (!status_.ok()) return;
    if (!record.ok()) {
      status_ = record.status();
      return;
    }
    waiting_[job] = *std::move(record);
    while (status_.ok() && waiting_.count(delivered_) > 0) {
      status_ = on_record_(waiting_[delivered_]);
      waiting_.erase(delivered_++);
    }
  }

  absl::Status status() ABSL_LOCKS_EXCLUDED(mu_) {
    absl::MutexLock lock(&mu_);
    return status_;
  }

 private:
  const int jobs_;
  const std::function<absl::Status(const EpisodeRecord&)>& on_record_;
  absl::Mutex mu_;
  int taken_ ABSL_GUARDED_BY(mu_) = 0;
  int delivered_ ABSL_GUARDED_BY(mu_) = 0;
  std::map<int, EpisodeRecord> waiting_ ABSL_GUARDED_BY(mu_);
  absl::Status status_ ABSL_GUARDED_BY(mu_);
};

}  // namespace

absl::StatusOr<EpisodeRecord> PlayEpisode(EpisodeConfig config,
                                          EpisodePolicy& policy) {
  EpisodeRecord record;
  record.seed = config.seed;
  absl::StatusOr<std::unique_ptr<Episode>> created =
      Episode::Create(std::move(config));
  if (!created.ok()) return created.status();
  Episode& episode = **created;
  policy.Reset(episode);
  while (!episode.done()) {
    absl::StatusOr<StepResult> step = episode.Step(policy.Act(episode));
    if (!step.ok()) return step.status();
    if (record.part_sums.empty()) {
      record.part_sums = step->reward_parts;
      continue;
    }
    for (size_t i = 0; i < step->reward_parts.size(); ++i) {
      record.part_sums[i].second += step->reward_parts[i].second;
    }
  }
  record.summary = episode.Summary();
  return record;
}

uint64_t EvaluationSeed(uint64_t root_seed, uint64_t episode) {
  return StreamBits(~root_seed, episode);
}

absl::StatusOr<EpisodeRunner> EpisodeRunner::Create(std::vector<Arm> arms,
                                                    const Options& options) {
  if (arms.empty() || options.episodes < 1 || options.threads < 1) {
    return absl::InvalidArgumentError(
        "an episode runner needs an arm, an episode and a thread at least");
  }
  return EpisodeRunner(std::move(arms), options);
}

absl::StatusOr<EpisodeRecord> EpisodeRunner::Play(int job) const {
  const int num_arms = static_cast<int>(arms_.size());
  const Arm& arm = arms_[job % num_arms];
  EpisodeConfig config = arm.config;
  config.seed = EvaluationSeed(options_.root_seed, job / num_arms);
  const std::unique_ptr<EpisodePolicy> policy = arm.make_policy();
  absl::StatusOr<EpisodeRecord> record =
      PlayEpisode(std::move(config), *policy);
  if (!record.ok()) return record;
  record->arm = job % num_arms;
  record->episode = job / num_arms;
  return record;
}

absl::Status EpisodeRunner::Run(
    const std::function<absl::Status(const EpisodeRecord&)>& on_record) {
  OrderedRecords records(options_.episodes * static_cast<int>(arms_.size()),
                         on_record);
  const auto work = [this, &records] {
    at::init_num_threads();
    for (int job = records.Take(); job >= 0; job = records.Take()) {
      records.Put(job, Play(job));
    }
  };
  std::vector<std::thread> threads;
  for (int i = 1; i < options_.threads; ++i) threads.emplace_back(work);
  work();
  for (std::thread& thread : threads) thread.join();
  return records.status();
}

}  // namespace esper::env
