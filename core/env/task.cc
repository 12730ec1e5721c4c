#include "core/env/task.h"

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace esper::env {
namespace {

absl::StatusOr<std::shared_ptr<const Task>> LoadDigitsTask(
    const std::string& data_path) {
  absl::StatusOr<ImageSet> images = LoadDigits(data_path);
  if (!images.ok()) return images.status();
  absl::StatusOr<ImageSplits> splits = SplitStratified(*images, SplitOptions());
  if (!splits.ok()) return splits.status();
  auto task = std::make_shared<Task>();
  task->name = "digits";
  task->data = *std::move(splits);
  task->slot_ids = {"r0c0", "r0c1", "r0c2"};
  return task;
}

}  // namespace

absl::StatusOr<std::shared_ptr<const Task>> LoadTask(
    const std::string& name, const std::string& data_path) {
  if (name == "digits") return LoadDigitsTask(data_path);
  return absl::InvalidArgumentError(
      absl::StrCat("unknown task \"", name,
                   "\"; known: ", absl::StrJoin(TaskNames(), ", ")));
}

std::vector<std::string> TaskNames() { return {"digits"}; }

}  // namespace esper::env
