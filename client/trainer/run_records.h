#ifndef ESPER_CLIENT_TRAINER_RUN_RECORDS_H_
#define ESPER_CLIENT_TRAINER_RUN_RECORDS_H_

#include <string>

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

// One JSON object: {"episode", "seed", "policy_version", "steps": [{"epoch",
// "train_loss", "val_loss", "val_accuracy", "val_accuracy_without_seeds",
// "reward", "op", "effective_op", "slot", "success", "slots": [{"slot",
// "stage", "blueprint", "alpha", "contribution", "contribution_error"}]}]}.
// What was not measured is null.
std::string StepsLine(const FinishedEpisode& episode);

}  // namespace esper::client
#endif  // ESPER_CLIENT_TRAINER_RUN_RECORDS_H_
