#include "client/task_names.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace esper::client {

const std::vector<std::string>& TaskNames() {
  static const auto& names =
      *new std::vector<std::string>{"cifar10",
                                    "cifar_baseline",
                                    "cifar_deep_impaired",
                                    "cifar_deep_multichannel",
                                    "cifar_highres",
                                    "cifar_impaired",
                                    "cifar_minimal",
                                    "cifar_multichannel",
                                    "cifar_postpool",
                                    "cifar_scale",
                                    "digits",
                                    "digits_impaired",
                                    "mnist",
                                    "text",
                                    "text_impaired"};
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
