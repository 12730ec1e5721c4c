#include "client/env/environment_worker.h"

#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/env/env_messages.h"
#include "client/status.h"
#include "spdlog/spdlog.h"

namespace esper::client {
namespace {

constexpr absl::Duration kIdle = absl::Milliseconds(50);

// Whether the server has the episode no more.
bool IsGone(const std::string& reason) {
  return reason == "UNKNOWN_EPISODE" || reason == "EPISODE_EXPIRED" ||
         reason == "WRONG_INCARNATION";
}

}  // namespace

EnvironmentWorker::EnvironmentWorker(const Options& options,
                                     std::shared_ptr<const env::Task> task,
                                     PolicyClient& policy,
                                     CoordinatorLink& link, LeaseBoard& board,
                                     StopSignal& stop)
    : options_(options),
      task_(std::move(task)),
      policy_(policy),
      link_(link),
      board_(board),
      stop_(stop),
      environments_(options.environments),
      runs_(options.environments) {}

absl::Status EnvironmentWorker::Run() {
  halves_[1].parity = 1;
  absl::Status status;
  for (size_t turn = 0; status.ok() && !Stopped(); turn ^= 1) {
    Half& half = halves_[turn];
    status = Receive(half);
    if (!status.ok() || Stopped()) break;
    DropRevoked(half);
    status = Acquire();
    if (!status.ok() || Stopped()) break;
    Send(half);
    if (Running().empty()) {
      stop_.stopped().WaitForNotificationWithTimeout(kIdle);
    }
  }
  Drain();
  AbortAll("the worker stops", /*report=*/!board_.run_ended());
  return status;
}

std::vector<EpisodeRun*> EnvironmentWorker::Running() {
  std::vector<EpisodeRun*> running;
  for (const auto& run : runs_) {
    if (run != nullptr) running.push_back(run.get());
  }
  return running;
}

std::vector<EpisodeRun*> EnvironmentWorker::RunningIn(const Half& half) {
  std::vector<EpisodeRun*> running = Running();
  running.erase(std::remove_if(running.begin(), running.end(),
                               [&half](EpisodeRun* run) {
                                 return run->env_id() % 2 != half.parity;
                               }),
                running.end());
  return running;
}

absl::Status EnvironmentWorker::Acquire() {
  if (link_.NeedsRegistration()) {
    Drain();
    AbortAll("the coordinator restarted", /*report=*/false);
    auto registered = link_.Register();
    if (!registered.ok()) {
      LoseCoordinator(registered.status());
      return absl::OkStatus();
    }
  }
  const int free = std::count(runs_.begin(), runs_.end(), nullptr);
  if (free == 0) return OpenStarted();
  auto answer = link_.Lease(free, absl::Now());
  if (!answer.ok()) {
    LoseCoordinator(answer.status());
    return absl::OkStatus();
  }
  if (answer->done) {
    spdlog::info("the coordinator says that the run is over");
    board_.EndRun();
    stop_.Stop();
    return absl::OkStatus();
  }
  int env_id = 0;
  for (const v1::EpisodeLease& lease : answer->leases) {
    while (runs_[env_id] != nullptr) ++env_id;
    Start(lease, env_id);
  }
  return OpenStarted();
}

void EnvironmentWorker::Start(const v1::EpisodeLease& lease, int env_id) {
  EpisodeRun& run =
      *(runs_[env_id] = std::make_unique<EpisodeRun>(lease, env_id));
  if (lease.task() != task_->name) {
    Abort(run, absl::StrCat("this worker has no task \"", lease.task(), "\""));
    return;
  }
  env::EpisodeConfig defaults = env::EpisodeConfig::For(task_);
  defaults.seed = lease.seed();
  defaults.max_epochs = lease.max_epochs();
  auto config = env::EpisodeConfigFromJson(lease.options_json(), defaults);
  absl::Status status = config.status();
  if (status.ok()) status = environments_.Start(env_id, *std::move(config));
  if (!status.ok()) {
    Abort(run, absl::StrCat("the episode cannot start: ",
                            std::string(status.message())));
  } else if (environments_.episode(env_id)->done()) {
    Abort(run, "the host failed before the first action");
  }
}

absl::Status EnvironmentWorker::OpenStarted() {
  std::vector<EpisodeRun*> started = Running();
  started.erase(std::remove_if(started.begin(), started.end(),
                               [](EpisodeRun* run) { return run->is_open(); }),
                started.end());
  if (started.empty()) return absl::OkStatus();
  std::vector<EpisodeStart> starts;
  for (EpisodeRun* run : started) starts.push_back(run->Start());
  auto handles = policy_.OpenEpisodes(std::move(starts));
  if (!handles.ok()) return AbortRefused(handles.status(), started);
  for (size_t i = 0; i < started.size(); ++i) {
    started[i]->set_handle((*handles)[i]);
  }
  return absl::OkStatus();
}

void EnvironmentWorker::Send(Half& half) {
  std::vector<StepRow> rows;
  for (EpisodeRun* run : RunningIn(half)) {
    if (!run->is_open()) continue;  // Opened on the next turn.
    rows.push_back(run->NextRow(*environments_.episode(run->env_id())));
    half.asked.push_back(run);
  }
  if (rows.empty()) return;
  half.call = std::async(std::launch::async, [this, rows = std::move(rows)] {
    return policy_.GetAction(rows);
  });
}

absl::Status EnvironmentWorker::Receive(Half& half) {
  if (!half.call.valid()) return absl::OkStatus();
  std::vector<EpisodeRun*> asked = std::exchange(half.asked, {});
  auto actions = half.call.get();
  if (!actions.ok()) return AbortRefused(actions.status(), asked);
  return StepAll(asked, *actions);
}

void EnvironmentWorker::Drain() {
  for (Half& half : halves_) {
    if (half.call.valid()) half.call.get().IgnoreError();
    half.asked.clear();
  }
}

absl::Status EnvironmentWorker::StepAll(const std::vector<EpisodeRun*>& runs,
                                        const std::vector<ActionRow>& actions) {
  std::vector<env::EnvAction> env_actions;
  const int num_slots = static_cast<int>(task_->slot_ids.size());
  for (size_t i = 0; i < runs.size(); ++i) {
    auto action = ToFactoredAction(actions[i], num_slots);
    if (!action.ok()) return action.status();
    env_actions.push_back({runs[i]->env_id(), *action});
  }
  auto results = environments_.Step(env_actions);
  if (!results.ok()) return results.status();
  std::vector<EpisodeRun*> done;
  for (size_t i = 0; i < runs.size(); ++i) {
    runs[i]->Record(actions[i], (*results)[i], task_->slot_ids);
    if (environments_.episode(runs[i]->env_id())->done()) {
      done.push_back(runs[i]);
    }
  }
  board_.CountSteps(static_cast<int64_t>(runs.size()));
  return Finish(std::move(done));
}

absl::Status EnvironmentWorker::Finish(std::vector<EpisodeRun*> runs) {
  if (runs.empty() || Stopped()) return absl::OkStatus();
  std::vector<EpisodeClose> closes;
  for (EpisodeRun* run : runs) {
    closes.push_back(run->Close(*environments_.episode(run->env_id())));
  }
  auto closed = policy_.CloseEpisodes(closes);
  if (!closed.ok()) {
    absl::Status status = AbortRefused(closed.status(), runs);
    return status.ok() ? Finish(std::move(runs)) : status;
  }
  for (size_t i = 0; i < runs.size(); ++i) {
    absl::Status status =
        link_.Report(runs[i]->Report(board_.worker_id(), options_.spec_digest,
                                     *environments_.episode(runs[i]->env_id()),
                                     (*closed)[i].bootstrap_value));
    if (!status.ok()) LoseCoordinator(status);
    Remove(*runs[i]);
  }
  return absl::OkStatus();
}

void EnvironmentWorker::DropRevoked(const Half& half) {
  const std::set<std::string> revoked = board_.Revoked();
  for (EpisodeRun* run : RunningIn(half)) {
    if (revoked.count(run->lease().lease_id()) == 0) continue;
    link_.Forget(run->lease().lease_id());
    Abort(*run, "the lease was taken away", /*report=*/false);
  }
}

void EnvironmentWorker::Abort(EpisodeRun& run, const std::string& reason,
                              bool report) {
  spdlog::log(Stopped() ? spdlog::level::debug : spdlog::level::warn,
              "episode {} is given up: {}", run.lease().environment_key(),
              reason);
  if (run.is_open()) {
    // The server frees the row sooner; if this fails, it expires.
    auto closed = policy_.CloseEpisodes({run.CloseAborted()});
    if (!closed.ok()) spdlog::debug("{}", Describe(closed.status()));
  }
  if (report) {
    absl::Status status =
        link_.Report(run.ReportAborted(board_.worker_id(), reason));
    if (!status.ok()) LoseCoordinator(status);
  }
  Remove(run);
}

void EnvironmentWorker::AbortAll(const std::string& reason, bool report) {
  for (EpisodeRun* run : Running()) Abort(*run, reason, report);
}

absl::Status EnvironmentWorker::AbortRefused(const absl::Status& refusal,
                                             std::vector<EpisodeRun*>& runs) {
  if (Stopped()) return absl::OkStatus();
  const auto detail = ErrorDetailOf(refusal);
  if (!detail || !detail->has_row() || detail->row() < 0 ||
      detail->row() >= static_cast<int64_t>(runs.size())) {
    return refusal;
  }
  EpisodeRun& run = *runs[detail->row()];
  runs.erase(runs.begin() + detail->row());
  if (IsGone(detail->reason())) run.set_handle({});
  Abort(run, Describe(refusal));
  return absl::OkStatus();
}

void EnvironmentWorker::LoseCoordinator(const absl::Status& status) {
  if (board_.run_ended() || Stopped()) return;
  spdlog::warn("the coordinator is gone: {}", Describe(status));
  board_.EndRun();
  stop_.Stop();
}

void EnvironmentWorker::Remove(EpisodeRun& run) {
  const int env_id = run.env_id();
  environments_.Stop(env_id);
  runs_[env_id] = nullptr;
}

}  // namespace esper::client
