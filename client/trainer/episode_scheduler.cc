#include "client/trainer/episode_scheduler.h"

#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/status.h"
#include "proto/config/split_mix.h"

namespace esper::client {
namespace {

// Leases that are remembered after their end, to recognise late reports.
constexpr size_t kRememberedLeases = 10000;

// Room for a worker that has to open an episode again because the server's
// reply was lost, which raises the incarnation by one each time.
constexpr uint64_t kIncarnationStride = 1000;

}  // namespace

uint64_t EpisodeSeed(uint64_t root_seed, uint64_t episode) {
  return config::SplitMix64(root_seed, episode);
}

EpisodeScheduler::EpisodeScheduler(const Options& options)
    : options_(options),
      next_episode_(options.first_episode),
      next_incarnation_(options.first_incarnation) {}

absl::StatusOr<std::string> EpisodeScheduler::Register(const std::string& name,
                                                       int environments,
                                                       absl::Time now) {
  if (name.empty()) {
    return Refusal(absl::StatusCode::kInvalidArgument, "MALFORMED_REQUEST",
                   "worker_name is empty.");
  }
  if (environments < 1) {
    return Refusal(absl::StatusCode::kInvalidArgument, "MALFORMED_REQUEST",
                   "environments must be at least 1.");
  }
  absl::MutexLock lock(&mu_);
  for (auto& [id, worker] : workers_) {
    if (worker.name == name && worker.live) {
      TakeBackAllOf(id);
      worker.live = false;
    }
  }
  const std::string id =
      absl::StrCat("w", options_.first_incarnation, "-", next_id_++);
  Worker& worker = workers_[id];
  worker.name = name;
  worker.environments = environments;
  worker.last_seen = now;
  return id;
}

void EpisodeScheduler::StartRound(int episodes) {
  absl::MutexLock lock(&mu_);
  in_round_ = true;
  evaluating_ = false;
  round_size_ = episodes;
  // Episodes that the last round did not finish come first.
  while (static_cast<int>(pending_.size()) < episodes) {
    pending_.push_back({next_episode_++, 0});
  }
}

void EpisodeScheduler::StartEvaluation(int episodes) {
  absl::MutexLock lock(&mu_);
  in_round_ = true;
  evaluating_ = true;
  round_size_ = episodes;
  for (int i = 0; i < episodes; ++i) {
    pending_evaluation_.push_back({static_cast<uint64_t>(i), 0, true});
  }
}

void EpisodeScheduler::EndRound() {
  absl::MutexLock lock(&mu_);
  in_round_ = false;
  for (auto& [id, entry] : leases_) {
    if (entry.state == State::kOpen) {
      --entry.work.attempts;  // Slow is not broken.
      TakeBack(entry, State::kRevoked);
    }
  }
  pending_evaluation_.clear();
  std::sort(pending_.begin(), pending_.end(),
            [](const Work& a, const Work& b) { return a.episode < b.episode; });
  ForgetOldLeases();
}

absl::StatusOr<std::vector<Lease>> EpisodeScheduler::LeaseEpisodes(
    const std::string& worker_id, int max, absl::Time now) {
  absl::MutexLock lock(&mu_);
  auto worker = FindWorker(worker_id, now);
  if (!worker.ok()) return worker.status();
  std::vector<Lease> leases;
  if (stopped_) {
    (*worker)->told_to_stop = true;
    return leases;
  }
  if (!in_round_) return leases;
  max = std::min(max, ShareOf(**worker) - OpenLeasesOf(worker_id));
  std::deque<Work>& pending = evaluating_ ? pending_evaluation_ : pending_;
  while (static_cast<int>(leases.size()) < max && !pending.empty()) {
    Entry entry;
    entry.work = pending.front();
    pending.pop_front();
    ++entry.work.attempts;
    entry.worker_id = worker_id;
    entry.granted = now;
    entry.lease = MakeLease(entry.work);
    leases.push_back(entry.lease);
    lease_order_.push_back(leases.back().id);
    leases_.emplace(leases.back().id, std::move(entry));
  }
  return leases;
}

Lease EpisodeScheduler::MakeLease(const Work& work) {
  Lease lease;
  lease.id = absl::StrCat("l", options_.first_incarnation, "-", next_id_++);
  lease.episode = work.episode;
  lease.evaluation = work.evaluation;
  // Evaluation has another root, so that it repeats no episode of training.
  lease.seed = EpisodeSeed(
      work.evaluation ? ~options_.root_seed : options_.root_seed, work.episode);
  lease.environment_key = absl::StrCat(
      options_.run_name, work.evaluation ? "/evaluation/" : "/", work.episode);
  lease.incarnation = next_incarnation_;
  next_incarnation_ += kIncarnationStride;
  return lease;
}

absl::StatusOr<EpisodeScheduler::HeartbeatReply> EpisodeScheduler::Heartbeat(
    const std::string& worker_id, const std::vector<std::string>& lease_ids,
    absl::Time now) {
  absl::MutexLock lock(&mu_);
  auto worker = FindWorker(worker_id, now);
  if (!worker.ok()) return worker.status();
  HeartbeatReply reply;
  reply.stop = stopped_;
  if (stopped_) (*worker)->told_to_stop = true;
  const std::set<std::string> named(lease_ids.begin(), lease_ids.end());
  for (const std::string& id : named) {
    const auto it = leases_.find(id);
    if (it == leases_.end() || it->second.worker_id != worker_id ||
        it->second.state == State::kRevoked) {
      reply.revoked.push_back(id);
    }
  }
  for (auto& [id, entry] : leases_) {
    const bool lost = entry.state == State::kOpen &&
                      entry.worker_id == worker_id && named.count(id) == 0 &&
                      now - entry.granted > options_.lease / 2;
    if (lost) TakeBack(entry, State::kRevoked);
  }
  return reply;
}

absl::StatusOr<EpisodeScheduler::Verdict> EpisodeScheduler::Report(
    const std::string& worker_id, const std::string& lease_id, bool delivered,
    absl::Time now) {
  absl::MutexLock lock(&mu_);
  auto worker = FindWorker(worker_id, now);
  if (!worker.ok()) return worker.status();
  const auto it = leases_.find(lease_id);
  if (it == leases_.end()) {
    return Refusal(absl::StatusCode::kNotFound, "UNKNOWN_LEASE",
                   absl::StrCat("Lease ", lease_id, " was never given."),
                   "Drop the episode and ask for another one.");
  }
  Entry& entry = it->second;
  if (entry.worker_id != worker_id || entry.state == State::kRevoked) {
    return Refusal(absl::StatusCode::kFailedPrecondition, "LEASE_REVOKED",
                   absl::StrCat("Lease ", lease_id, " was taken away."),
                   "Drop the episode and ask for another one.");
  }
  if (entry.state != State::kOpen) return Verdict::kDuplicate;
  if (delivered) {
    entry.state = State::kDelivered;
    return Verdict::kAccepted;
  }
  TakeBack(entry, State::kReturned);
  return Verdict::kReturned;
}

absl::StatusOr<Lease> EpisodeScheduler::Find(
    const std::string& lease_id) const {
  absl::MutexLock lock(&mu_);
  const auto it = leases_.find(lease_id);
  if (it == leases_.end()) {
    return absl::NotFoundError(absl::StrCat("There is no lease ", lease_id));
  }
  return it->second.lease;
}

std::vector<std::string> EpisodeScheduler::ExpireSilent(absl::Time now) {
  absl::MutexLock lock(&mu_);
  std::vector<std::string> names;
  for (auto& [id, worker] : workers_) {
    if (!worker.live || now - worker.last_seen <= options_.lease) continue;
    worker.live = false;
    names.push_back(worker.name);
    TakeBackAllOf(id);
  }
  return names;
}

void EpisodeScheduler::Stop() {
  absl::MutexLock lock(&mu_);
  stopped_ = true;
}

bool EpisodeScheduler::stopped() const {
  absl::MutexLock lock(&mu_);
  return stopped_;
}

bool EpisodeScheduler::AllToldToStop() const {
  absl::MutexLock lock(&mu_);
  return std::all_of(workers_.begin(), workers_.end(), [](const auto& entry) {
    return !entry.second.live || entry.second.told_to_stop;
  });
}

int EpisodeScheduler::live_workers() const {
  absl::MutexLock lock(&mu_);
  return std::count_if(workers_.begin(), workers_.end(),
                       [](const auto& entry) { return entry.second.live; });
}

int EpisodeScheduler::open_leases() const {
  absl::MutexLock lock(&mu_);
  return std::count_if(leases_.begin(), leases_.end(), [](const auto& entry) {
    return entry.second.state == State::kOpen;
  });
}

uint64_t EpisodeScheduler::next_episode() const {
  absl::MutexLock lock(&mu_);
  return next_episode_;
}

int64_t EpisodeScheduler::failed_episodes() const {
  absl::MutexLock lock(&mu_);
  return failed_episodes_;
}

absl::StatusOr<EpisodeScheduler::Worker*> EpisodeScheduler::FindWorker(
    const std::string& id, absl::Time now) {
  const auto it = workers_.find(id);
  if (it == workers_.end()) {
    return Refusal(absl::StatusCode::kNotFound, "UNKNOWN_WORKER",
                   absl::StrCat("There is no worker ", id, "."),
                   "Call RegisterWorker first.");
  }
  Worker& worker = it->second;
  // A worker that comes back after a silence is welcome; its leases are gone.
  worker.live = true;
  worker.last_seen = std::max(worker.last_seen, now);
  return &worker;
}

int EpisodeScheduler::OpenLeasesOf(const std::string& worker_id) const {
  int open = 0;
  for (const auto& [id, entry] : leases_) {
    if (entry.state == State::kOpen && entry.worker_id == worker_id) ++open;
  }
  return open;
}

int EpisodeScheduler::ShareOf(const Worker& worker) const {
  int environments = 0;
  for (const auto& [id, other] : workers_) {
    if (other.live) environments += other.environments;
  }
  // Rounded up, so that the shares add up to the round or more.
  return (round_size_ * worker.environments + environments - 1) / environments;
}

void EpisodeScheduler::TakeBack(Entry& entry, State state) {
  entry.state = state;
  if (entry.work.attempts < options_.max_attempts) {
    (entry.work.evaluation ? pending_evaluation_ : pending_)
        .push_front(entry.work);
    return;
  }
  ++failed_episodes_;
  if (!entry.work.evaluation) pending_.push_back({next_episode_++, 0});
}

void EpisodeScheduler::TakeBackAllOf(const std::string& worker_id) {
  for (auto& [id, entry] : leases_) {
    if (entry.state == State::kOpen && entry.worker_id == worker_id) {
      TakeBack(entry, State::kRevoked);
    }
  }
}

void EpisodeScheduler::ForgetOldLeases() {
  while (lease_order_.size() > kRememberedLeases) {
    leases_.erase(lease_order_.front());
    lease_order_.pop_front();
  }
}

}  // namespace esper::client
