#include "core/env/episode.h"

#include <chrono>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/env/action_executor.h"
#include "core/env/episode_observer.h"
#include "core/env/governor.h"
#include "core/env/growing_network.h"
#include "core/env/outcome.h"
#include "core/env/reward_account.h"

namespace esper::env {
namespace {

// Adds the time until it is destroyed to a total, in seconds.
class ScopedTimer {
 public:
  explicit ScopedTimer(double* total) : total_(total) {}
  ~ScopedTimer() {
    *total_ += std::chrono::duration<double>(Clock::now() - start_).count();
  }
  ScopedTimer(const ScopedTimer&) = delete;
  ScopedTimer& operator=(const ScopedTimer&) = delete;

 private:
  using Clock = std::chrono::steady_clock;
  double* const total_;
  const Clock::time_point start_ = Clock::now();
};

}  // namespace

class Episode::Impl {
 public:
  explicit Impl(EpisodeConfig config) : config_(std::move(config)) {}

  absl::Status Build();
  absl::StatusOr<StepResult> Step(const policy::FactoredAction& action);
  absl::Status CheckAction(const policy::FactoredAction& action) const;
  EpisodeSummary Summary() const;

  const EpisodeConfig& config() const { return config_; }
  const Observation& observation() const { return observation_; }
  const RewardContext& context() const { return context_; }
  bool done() const { return done_; }
  int steps() const { return static_cast<int>(rewards_.size()); }
  const std::vector<std::string>& slot_ids() const {
    return config_.task->slot_ids;
  }

 private:
  absl::Status BeginEpoch(int epoch);
  absl::Status Validate(int epoch);
  absl::Status Observe(const policy::TrainingSignals& signals,
                       bool final = false);

  absl::StatusOr<StepResult> StepUntimed(const policy::FactoredAction& action);
  absl::StatusOr<ActionOutcome> Execute(const policy::FactoredAction& action,
                                        policy::Op* paid_op);
  absl::Status TickSlots();
  absl::Status MoveOn(StepResult* result, RewardBreakdown* reward);
  void FillMeasurements(StepResult* result) const;

  const EpisodeConfig config_;
  std::unique_ptr<GrowingNetwork> network_;
  std::optional<RewardAccount> account_;
  Governor governor_;
  std::optional<EpisodeObserver> observer_;

  // The epoch that the next action belongs to, as trained and validated.
  TrainingStats training_;
  RewardContext context_;
  std::optional<double> accuracy_without_seeds_;
  PanicReason panic_ = PanicReason::kNone;  // Of this epoch.
  Observation observation_;

  int seeds_created_ = 0;
  std::vector<double> rewards_;  // Raw, one per step.
  bool done_ = false;
  bool terminated_ = false;
  bool truncated_ = false;
  std::string end_reason_;
  double wall_seconds_ = 0;
};

absl::Status Episode::Impl::Build() {
  const ScopedTimer timer(&wall_seconds_);
  absl::Status status = config_.Validate();
  if (!status.ok()) return status;
  absl::StatusOr<Governor> governor = Governor::Create(config_.governor);
  if (!governor.ok()) return governor.status();
  governor_ = *std::move(governor);
  absl::StatusOr<std::unique_ptr<GrowingNetwork>> network =
      GrowingNetwork::Create(config_);
  if (!network.ok()) return network.status();
  network_ = *std::move(network);
  account_.emplace(config_, slot_ids());
  observer_.emplace(config_);
  return BeginEpoch(1);
}

// Trains and validates an epoch and makes its observation; or, if the governor
// panics, rolls back and ends the episode.
absl::Status Episode::Impl::BeginEpoch(int epoch) {
  training_ = network_->TrainEpoch(epoch);
  absl::Status status = Validate(epoch);
  if (!status.ok() || done_) return status;
  status = network_->RecordEpoch(context_.measured, epoch);
  if (!status.ok()) return status;
  account_->OnValidation(context_.measured, epoch);
  context_.reports = network_->Reports();
  context_.slot_parameters.clear();
  for (size_t i = 0; i < slot_ids().size(); ++i) {
    context_.slot_parameters.push_back(network_->SlotParameters(i));
  }
  context_.host_parameters = network_->host_parameters();
  context_.total_parameters = network_->total_parameters();
  absl::StatusOr<policy::TrainingSignals> signals =
      observer_->Update(epoch, training_, context_.measured, context_.reports);
  if (!signals.ok()) return signals.status();
  context_.signals = *std::move(signals);
  context_.stable_val_accuracy =
      observer_->StableAccuracy(config_.reward.escrow_stable_window);
  return Observe(context_.signals);
}

absl::Status Episode::Impl::Observe(const policy::TrainingSignals& signals,
                                    bool final) {
  absl::StatusOr<Observation> observation = observer_->Observe(
      signals, network_->Reports(), network_->live_seeds(), final);
  if (!observation.ok()) return observation.status();
  observation_ = *std::move(observation);
  return absl::OkStatus();
}

absl::Status Episode::Impl::Validate(int epoch) {
  absl::StatusOr<slot::CounterfactualResult> measured =
      network_->Validate(/*last_epoch=*/epoch == config_.max_epochs);
  if (!measured.ok()) return measured.status();
  context_.epoch = epoch;
  context_.measured = *std::move(measured);
  double& val_loss = context_.measured.val_loss;
  if (config_.val_loss_hook) val_loss = config_.val_loss_hook(epoch, val_loss);
  accuracy_without_seeds_ = network_->AnyFossil()
                                ? network_->RewardAccuracyWithoutSeeds()
                                : context_.measured.all_off_accuracy;

  const GovernorVerdict verdict = governor_.Check(val_loss);
  if (verdict.panic) {
    panic_ = verdict.reason;
    done_ = true;
    terminated_ = true;
    end_reason_ = PanicReasonName(panic_);
    governor_.OnRollback();
    observer_->tracking().OnRollback();
    return network_->Rollback(panic_);
  }
  if (verdict.anomalies_in_a_row == 0 && governor_.TakeSnapshotDue(epoch)) {
    return network_->SaveSnapshot();
  }
  return absl::OkStatus();
}

absl::Status Episode::Impl::CheckAction(
    const policy::FactoredAction& action) const {
  return policy::FactoredAction::FromIndices(
             action.ToIndices(), static_cast<int>(slot_ids().size()))
      .status();
}

absl::StatusOr<StepResult> Episode::Impl::Step(
    const policy::FactoredAction& action) {
  const ScopedTimer timer(&wall_seconds_);
  if (done_) return absl::FailedPreconditionError("the episode is over");
  absl::Status status = CheckAction(action);
  if (!status.ok()) return status;
  absl::StatusOr<StepResult> result = StepUntimed(action);
  if (!result.ok()) {
    done_ = true;
    end_reason_ = std::string(result.status().message());
  }
  return result;
}

absl::StatusOr<StepResult> Episode::Impl::StepUntimed(
    const policy::FactoredAction& action) {
  StepResult result;
  result.epoch = context_.epoch;
  result.action = action;
  result.forced = config_.control.has_value() || observation_.mask.IsForced();
  FillMeasurements(&result);

  absl::StatusOr<ActionOutcome> outcome = Execute(action, &result.effective_op);
  if (!outcome.ok()) return outcome.status();
  result.success = outcome->success;
  result.refusal = outcome->refusal;
  absl::StatusOr<RewardBreakdown> reward =
      account_->Pay(context_, result.effective_op, action.slot);
  if (!reward.ok()) return reward.status();
  account_->OnOutcome(context_, action.op, outcome->success, action.slot,
                      *reward);
  absl::Status status = observer_->tracking().FinishStep(
      outcome->success, action.op, ToObservations(context_.reports));
  if (!status.ok()) return status;
  if (action.op == policy::Op::kGerminate && outcome->success) {
    observer_->tracking().Forget(slot_ids()[action.slot]);
  }
  if (action.op == policy::Op::kFossilize && outcome->success) {
    governor_.RequestSnapshot();
  }
  status = TickSlots();
  if (!status.ok()) return status;
  result.slots =
      ToSnapshots(network_->Reports(), slot_ids(), context_.measured);

  status = MoveOn(&result, &*reward);
  if (!status.ok()) return status;
  result.reward = reward->total();
  for (const auto& [name, value] : reward->Parts()) {
    result.reward_parts.emplace_back(name, value);
  }
  if (result.forfeits_earlier_rewards) {
    rewards_.assign(rewards_.size(), 0.0);
  }
  rewards_.push_back(result.reward);
  return result;
}

void Episode::Impl::FillMeasurements(StepResult* result) const {
  const slot::CounterfactualResult& measured = context_.measured;
  for (const std::string& id : slot_ids()) {
    const slot::SlotAttribution* found = measured.Find(id);
    const bool fresh = found != nullptr;
    result->contribution_mask.push_back(fresh);
    result->contribution_targets.push_back(fresh ? found->contribution : 0);
    result->contribution_errors.push_back(fresh ? found->standard_error : 0);
    result->contribution_fresh |=
        fresh &&
        config_.freshness == policy::ObservationTracking::Freshness::kMeasured;
  }
  result->train_loss = training_.loss;
  result->train_accuracy = training_.accuracy;
  result->val_loss = measured.val_loss;
  result->val_accuracy = measured.val_accuracy;
  result->val_accuracy_without_seeds = accuracy_without_seeds_;
}

// Carries the action out; `paid_op` is the op that the reward is for.
absl::StatusOr<ActionOutcome> Episode::Impl::Execute(
    const policy::FactoredAction& action, policy::Op* paid_op) {
  ExecutionContext context;
  context.val_loss = context_.measured.val_loss;
  context.val_accuracy = context_.measured.val_accuracy;
  context.max_seeds = config_.max_seeds;
  context.live_seeds = network_->live_seeds();
  context.seed_id = absl::StrCat("seed", seeds_created_);
  std::string refusal;
  const policy::Op intended =
      IntendedOp(action, context_.reports, slot_ids(), context, &refusal);
  absl::StatusOr<ActionOutcome> outcome =
      ExecuteAction(action, context_.reports, context, *network_);
  if (!outcome.ok()) return outcome.status();
  if (action.op == policy::Op::kGerminate && outcome->success) ++seeds_created_;
  *paid_op = config_.reward_timing == EpisodeConfig::RewardTiming::kIntent
                 ? intended
                 : outcome->effective_op();
  return outcome;
}

absl::Status Episode::Impl::TickSlots() {
  absl::StatusOr<std::vector<std::string>> auto_pruned = network_->Tick();
  if (!auto_pruned.ok()) return auto_pruned.status();
  const SlotReports reports = network_->Reports();
  account_->OnTick(reports, *auto_pruned);
  for (const std::string& id : slot_ids()) {
    if (FindReport(reports, id) == nullptr) observer_->tracking().Forget(id);
  }
  return absl::OkStatus();
}

// The next epoch, or the end. What the end owes joins the last reward.
absl::Status Episode::Impl::MoveOn(StepResult* result,
                                   RewardBreakdown* reward) {
  absl::Status status;
  if (context_.epoch == config_.max_epochs) {
    done_ = true;
    truncated_ = true;
    end_reason_ = "max_epochs";
    absl::StatusOr<policy::TrainingSignals> signals = observer_->Peek(
        context_.epoch, training_, context_.measured, network_->Reports());
    if (!signals.ok()) return signals.status();
    status = Observe(*signals, /*final=*/true);
  } else {
    status = BeginEpoch(context_.epoch + 1);
  }
  if (!status.ok()) return status;
  if (!done_) return absl::OkStatus();

  account_->Close(reward);
  if (terminated_) {
    if (config_.rollback_rewards ==
        EpisodeConfig::RollbackRewards::kForfeited) {
      *reward = RewardBreakdown();
      result->forfeits_earlier_rewards = true;
    }
    reward->governor -= config_.governor.penalty;
  }
  result->terminated = terminated_;
  result->truncated = truncated_;
  result->end_reason = end_reason_;
  return absl::OkStatus();
}

EpisodeSummary Episode::Impl::Summary() const {
  EpisodeSummary summary;
  summary.terminated = terminated_;
  summary.truncated = truncated_;
  summary.end_reason = end_reason_;
  summary.steps = steps();
  summary.final_val_accuracy = context_.measured.val_accuracy;
  summary.host_accuracy = network_->Accuracy(*config_.task->test);
  summary.host_accuracy_without_seeds =
      network_->live_seeds() == 0
          ? summary.host_accuracy
          : network_->AccuracyWithoutSeeds(*config_.task->test);
  const SeedCounts& counts = network_->counts();
  summary.seeds_germinated = counts.germinated;
  summary.seeds_blended = counts.blended;
  summary.seeds_fossilized = counts.fossilized;
  summary.seeds_contributing = static_cast<int>(account_->contributing());
  summary.seeds_pruned = counts.pruned;
  summary.host_params = network_->host_parameters();
  summary.total_params = network_->total_parameters();
  const EpisodeOutcome outcome = SummarizeEpisode(
      summary.final_val_accuracy, summary.total_params, summary.host_params,
      counts.fossilized, account_->contributing(), rewards_);
  summary.episode_return = outcome.episode_return;
  summary.stability = outcome.stability;
  summary.success = summary.final_val_accuracy >= kSuccessAccuracy;
  summary.wall_seconds = wall_seconds_;
  return summary;
}

Episode::Episode(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Episode::~Episode() = default;

absl::StatusOr<std::unique_ptr<Episode>> Episode::Create(EpisodeConfig config) {
  auto impl = std::make_unique<Impl>(std::move(config));
  absl::Status status = impl->Build();
  if (!status.ok()) return status;
  return std::unique_ptr<Episode>(new Episode(std::move(impl)));
}

const Observation& Episode::observation() const { return impl_->observation(); }

const policy::TrainingSignals& Episode::signals() const {
  return impl_->context().signals;
}
const SlotReports& Episode::reports() const { return impl_->context().reports; }

absl::StatusOr<StepResult> Episode::Step(const policy::FactoredAction& action) {
  return impl_->Step(action);
}

absl::Status Episode::CheckAction(const policy::FactoredAction& action) const {
  return impl_->CheckAction(action);
}

bool Episode::done() const { return impl_->done(); }
int Episode::steps() const { return impl_->steps(); }
EpisodeSummary Episode::Summary() const { return impl_->Summary(); }
const EpisodeConfig& Episode::config() const { return impl_->config(); }

int Episode::num_slots() const {
  return static_cast<int>(impl_->slot_ids().size());
}

int Episode::observation_width() const {
  return policy::ObservationWidth(num_slots());
}

}  // namespace esper::env
