#ifndef ESPER_CLIENT_ENV_EPISODE_RUN_H_
#define ESPER_CLIENT_ENV_EPISODE_RUN_H_

#include <optional>
#include <string>
#include <vector>

#include "client/env/trajectory_recorder.h"
#include "client/policy_client.h"
#include "core/env/episode.h"
#include "esper/v1/coordinator.pb.h"

namespace esper::client {

// One leased episode while it runs: where it is on the server, and what is
// recorded of it. The environment itself lives in the VectorEnv.
//
// Thread safety: none.
class EpisodeRun {
 public:
  EpisodeRun(v1::EpisodeLease lease, int env_id);

  const v1::EpisodeLease& lease() const { return lease_; }
  int env_id() const { return env_id_; }
  const EpisodeHandle& handle() const { return handle_; }
  bool is_open() const { return !handle_.id.empty(); }
  void set_handle(EpisodeHandle handle) { handle_ = std::move(handle); }

  // What to open the episode with.
  EpisodeStart Start() const;

  // The row of the next GetAction; the outcome of the last step rides along.
  StepRow NextRow(const env::Episode& episode);

  // The answer to that row, and what it did.
  void Record(const ActionRow& action, const env::StepResult& result,
              const std::vector<std::string>& slot_ids);

  // How to close the episode on the server, once it is done.
  EpisodeClose Close(const env::Episode& episode) const;
  // How to close it before its time.
  EpisodeClose CloseAborted() const;

  // What to tell the coordinator of a finished episode.
  v1::ReportEpisodeRequest Report(const std::string& worker_id,
                                  const std::string& spec_digest,
                                  const env::Episode& episode,
                                  float bootstrap_value) const;
  // And of one that was given up.
  v1::ReportEpisodeRequest ReportAborted(const std::string& worker_id,
                                         const std::string& reason) const;

 private:
  const v1::EpisodeLease lease_;
  const int env_id_;
  EpisodeHandle handle_;                // Empty id: not open.
  PolicyInput input_;                   // Of the row that was sent last.
  std::optional<StepOutcome> outcome_;  // Of the last step.
  v1::EndKind end_kind_ = v1::END_KIND_UNSPECIFIED;
  TrajectoryRecorder recorder_;
  std::vector<v1::StepReport> reports_;
};

}  // namespace esper::client
#endif  // ESPER_CLIENT_ENV_EPISODE_RUN_H_
