#include "client/task_names.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace esper::client {

const std::vector<std::string>& TaskNames() {
  static const auto& names =
      *new std::vector<std::string>{"cifar10", "digits", "mnist", "text"};
  return names;
}

absl::Status CheckTaskName(const std::string& name) {
  const std::vector<std::string>& known = TaskNames();
  if (std::count(known.begin(), known.end(), name) > 0) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "unknown task \"", name, "\"; known: ", absl::StrJoin(known, ", ")));
}

}  // namespace esper::client
