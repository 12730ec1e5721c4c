#ifndef ESPER_CLIENT_TRAINER_RUN_RECORDS_H_
#define ESPER_CLIENT_TRAINER_RUN_RECORDS_H_

#include <map>
#include <string>
#include <vector>

#include "client/trainer/run_totals.h"

// Lines of the files in a run's folder, with their newlines.
namespace esper::client {

std::string EpisodeCsvHeader();
// `number`: lines before it.
std::string EpisodeCsvLine(const FinishedEpisode& episode, int64_t number);

std::string UpdateCsvHeader();
struct UpdateRecord {
  int64_t number = 0;    // From 1.
  int64_t episodes = 0;  // In the batch.
  // Means over the batch.
  double mean_return = 0;
  double mean_host_accuracy = 0;
  double mean_host_accuracy_without_seeds = 0;
  double collect_seconds = 0;
  double update_seconds = 0;
};
std::string UpdateCsvLine(const UpdateReport& update,
                          const UpdateRecord& record);

// Curves of an update for TensorBoard: "return/mean", "host_accuracy/mean",
// "update/approx_kl", ..., and every metric that the server reported: "a" as
// "metric/a", and what it has by head, "a.head", as "a/head". Only finite ones.
std::map<std::string, double> UpdateScalars(const UpdateReport& update,
                                            const UpdateRecord& record);
// Means over the episodes of an evaluation, of which there is at least one.
std::map<std::string, double> EvaluationScalars(
    const std::vector<FinishedEpisode>& episodes);
// The configuration as a code block.
std::string ConfigMarkdown(const nlohmann::ordered_json& config);

// One JSON object: {"episode", "seed", "policy_version", "steps": [{"epoch",
// "train_loss", "val_loss", "val_accuracy", "val_accuracy_without_seeds",
// "reward", "op", "effective_op", "slot", "success", "slots": [{"slot",
// "stage", "blueprint", "alpha", "contribution", "contribution_error"}]}]}.
// What was not measured is null.
std::string StepsLine(const FinishedEpisode& episode);

}  // namespace esper::client
#endif  // ESPER_CLIENT_TRAINER_RUN_RECORDS_H_
