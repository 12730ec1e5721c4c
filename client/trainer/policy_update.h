#ifndef ESPER_CLIENT_TRAINER_POLICY_UPDATE_H_
#define ESPER_CLIENT_TRAINER_POLICY_UPDATE_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/trainer/episode_collector.h"
#include "client/training_client.h"

namespace esper::client {

struct UpdateOptions {
  int passes = 3;  // Over the batch, >= 1.
  // Parts of a pass, whole episodes each, with one optimiser step per part.
  int minibatches = 1;  // >= 1; at most one per episode is made.
  uint64_t seed = 0;    // Of the order of minibatches.
  v1::PpoLoss loss;     // Unset fields take the defaults of `profile`.
  v1::Profile profile = v1::PROFILE_DEFAULT;
  std::optional<double> max_grad_norm;  // Without: the server's default.
  std::optional<double> learning_rate;
};

// What one update did.
struct UpdateReport {
  int64_t policy_version = 0;  // Published after it.
  bool published = false;
  int64_t transitions = 0;
  int passes = 0;  // Begun.
  int optimizer_steps = 0;
  bool kl_stopped = false;
  int skipped_nonfinite = 0;  // Passes or steps.
  // A pass was not finite, and the server took the whole update back.
  bool rolled_back = false;
  double approx_kl = 0;  // Of the last pass: mean over its minibatches.
  // Of the first pass; negative if the server did not measure it.
  double ratio_check_max = -1;
  double ratio_check_mean = -1;
  // Sum over the optimiser steps of the L2 norm of the change of all weights.
  double weights_change_l2 = 0;
  double gradient_norm = 0;               // Before the clip, of the last step.
  std::map<std::string, double> metrics;  // Of the first call.
  std::vector<std::string> anomalies;     // Named by the server, each once.
};

// One PPO update: passes of ForwardBackward and OptimStep, until the divergence
// stops them. The last step publishes; one that was stopped before leaves that
// to the caller (`unpublished_steps`).
//
// With several minibatches a call without gradient over the whole batch comes
// first: it feeds the statistics, makes the ratio check, and gives the mean and
// deviation of the advantages. Each minibatch is checked for its divergence.
//
// Thread safety: none. Used once.
class PolicyUpdate {
 public:
  // `training` must outlive this and hold the lease. `version`: published when
  // the episodes were collected.
  PolicyUpdate(TrainingClient& training, const UpdateOptions& options,
               int64_t version);

  // Errors are the server's.
  absl::Status Run(const std::vector<FinishedEpisode>& episodes);

  // What was done, after an error too.
  const UpdateReport& report() const { return report_; }
  // Steps were taken that no version has.
  bool unpublished_steps() const { return unpublished_steps_; }
  // False if the server turned the first call down, and so did nothing.
  bool began() const { return began_; }

 private:
  // What a call leads to.
  enum class Next { kStep, kSkip, kEnd };

  // Passes over all episodes at once, or over minibatches of them.
  absl::Status RunWhole(const std::vector<FinishedEpisode>& episodes);
  absl::Status RunMinibatches(const std::vector<FinishedEpisode>& episodes);
  // A request with the loss and these episodes; all of them without `rows`.
  v1::ForwardBackwardRequest MakeRequest(
      const std::vector<FinishedEpisode>& episodes,
      const std::vector<int>* rows = nullptr) const;
  // ForwardBackward, and OptimStep unless there is nothing to step with. False
  // if the update ends here.
  absl::StatusOr<bool> Advance(v1::ForwardBackwardRequest& request,
                               bool is_last);
  absl::StatusOr<Next> Call(v1::ForwardBackwardRequest& request);
  absl::StatusOr<bool> Step(bool publish);
  // The server is back at the published weights.
  void TakeBack();
  template <typename Names>
  void AddAnomalies(const Names& names);

  TrainingClient& training_;
  const UpdateOptions options_;
  const int64_t version_;

  UpdateReport report_;
  v1::BatchTotals totals_;  // Of the last call.
  bool began_ = false;
  bool unpublished_steps_ = false;
  double kl_sum_ = 0;  // Of the pass.
  int kl_count_ = 0;
};

}  // namespace esper::client
#endif  // ESPER_CLIENT_TRAINER_POLICY_UPDATE_H_
