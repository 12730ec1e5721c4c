#include "core/env/tasks.h"

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/env/image_tasks.h"
#include "core/env/text_task.h"

namespace esper::env {
namespace {

struct Entry {
  const char* name;
  absl::StatusOr<std::shared_ptr<const Task>> (*load)(const std::string& data);
  const char* default_data;  // Empty: there is none.
};

constexpr Entry kTasks[] = {
    {"cifar10", LoadCifar10Task, ""},
    {"digits", LoadDigitsTask, "data/digits.csv.gz"},
    {"mnist", LoadMnistTask, ""},
    {"text", LoadTextTask, "/usr/share/common-licenses"},
};

}  // namespace

absl::StatusOr<std::shared_ptr<const Task>> LoadTask(const std::string& name,
                                                     const std::string& data) {
  for (const Entry& entry : kTasks) {
    if (name != entry.name) continue;
    const std::string path = data.empty() ? entry.default_data : data;
    if (path.empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat("task \"", name, "\" needs the folder of its files"));
    }
    return entry.load(path);
  }
  return absl::InvalidArgumentError(
      absl::StrCat("unknown task \"", name,
                   "\"; known: ", absl::StrJoin(TaskNames(), ", ")));
}

std::vector<std::string> TaskNames() {
  std::vector<std::string> names;
  for (const Entry& entry : kTasks) names.push_back(entry.name);
  return names;
}

}  // namespace esper::env
