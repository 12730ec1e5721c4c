#include "core/env/tasks.h"

#include <functional>
#include <map>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/env/image_tasks.h"
#include "core/nearest_name.h"
#include "core/env/text_task.h"

namespace esper::env {
namespace {

using Loader = std::function<absl::StatusOr<std::shared_ptr<const Task>>(
    const std::string& data)>;

struct Entry {
  Loader load;
  std::string default_data;  // Empty: there is none.
};

const std::map<std::string, Entry>& Entries() {
  static const auto& entries = *new std::map<std::string, Entry>([] {
    std::map<std::string, Entry> tasks = {
        {"cifar10", {LoadCifar10Task, ""}},
        {"digits", {LoadDigitsTask, "data/digits.csv.gz"}},
        {"digits_impaired", {LoadImpairedDigitsTask, "data/digits.csv.gz"}},
        {"mnist", {LoadMnistTask, ""}},
        {"text", {LoadTextTask, "/usr/share/common-licenses"}},
        {"text_impaired", {LoadImpairedTextTask, "/usr/share/common-licenses"}},
    };
    for (const std::string& name : PublishedTaskNames()) {
      tasks[name].load = [name](const std::string& data) {
        return LoadPublishedTask(name, data);
      };
    }
    return tasks;
  }());
  return entries;
}

}  // namespace

absl::StatusOr<std::shared_ptr<const Task>> LoadTask(const std::string& name,
                                                     const std::string& data) {
  const auto found = Entries().find(name);
  if (found == Entries().end()) {
    const std::vector<std::string> known = TaskNames();
    return absl::InvalidArgumentError(absl::StrCat(
        "unknown task \"", name, "\"; the nearest is \"",
        NearestName(name, known), "\"; known: ", absl::StrJoin(known, ", ")));
  }
  const std::string path = data.empty() ? found->second.default_data : data;
  if (path.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("task \"", name, "\" needs the folder of its files"));
  }
  return found->second.load(path);
}

std::vector<std::string> TaskNames() {
  std::vector<std::string> names;
  for (const auto& [name, entry] : Entries()) names.push_back(name);
  return names;
}

}  // namespace esper::env
