#include "client/env/episode_run.h"

#include <utility>

#include "client/env/env_messages.h"

namespace esper::client {

EpisodeRun::EpisodeRun(v1::EpisodeLease lease, int env_id)
    : lease_(std::move(lease)), env_id_(env_id) {}

EpisodeStart EpisodeRun::Start() const {
  EpisodeStart start;
  start.environment_key = lease_.environment_key();
  start.incarnation = lease_.incarnation();
  start.seed = lease_.seed();
  start.deterministic = lease_.evaluation();
  return start;
}

StepRow EpisodeRun::NextRow(const env::Episode& episode) {
  input_ = ToPolicyInput(episode.observation());
  StepRow row;
  row.episode = handle_;
  row.step = recorder_.steps();
  row.previous_outcome = outcome_;
  row.input = input_;
  return row;
}

void EpisodeRun::Record(const ActionRow& action, const env::StepResult& result,
                        const std::vector<std::string>& slot_ids) {
  outcome_ = ToStepOutcome(result);
  recorder_.Add(input_, action, *outcome_);
  if (result.forfeits_earlier_rewards) recorder_.ForfeitEarlierRewards();
  reports_.push_back(ToStepReport(result, slot_ids));
  end_kind_ = EndKindOf(result.terminated, result.truncated);
}

EpisodeClose EpisodeRun::Close(const env::Episode& episode) const {
  EpisodeClose close;
  close.episode = handle_;
  close.steps = recorder_.steps();
  close.last_outcome = outcome_;
  close.end_kind = end_kind_;
  if (end_kind_ == v1::END_KIND_TRUNCATED) {
    close.final_input = ToPolicyInput(episode.observation());
  }
  return close;
}

EpisodeClose EpisodeRun::CloseAborted() const {
  EpisodeClose close;
  close.episode = handle_;
  close.steps = recorder_.steps();
  close.end_kind = v1::END_KIND_ABORTED;
  return close;
}

v1::ReportEpisodeRequest EpisodeRun::Report(const std::string& worker_id,
                                            const std::string& spec_digest,
                                            const env::Episode& episode,
                                            float bootstrap_value) const {
  v1::ReportEpisodeRequest report;
  report.set_worker_id(worker_id);
  report.set_lease_id(lease_.lease_id());
  *report.mutable_summary() = ToSummary(episode.Summary());
  *report.mutable_steps() = {reports_.begin(), reports_.end()};
  if (!lease_.evaluation()) {
    *report.mutable_trajectory() = recorder_.Finish(
        spec_digest, lease_.environment_key(), end_kind_, bootstrap_value);
  }
  return report;
}

v1::ReportEpisodeRequest EpisodeRun::ReportAborted(
    const std::string& worker_id, const std::string& reason) const {
  v1::ReportEpisodeRequest report;
  report.set_worker_id(worker_id);
  report.set_lease_id(lease_.lease_id());
  report.mutable_summary()->set_end_kind(v1::END_KIND_ABORTED);
  report.mutable_summary()->set_end_reason(reason);
  report.mutable_summary()->set_steps(static_cast<int32_t>(recorder_.steps()));
  return report;
}

}  // namespace esper::client
