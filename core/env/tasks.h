#ifndef ESPER_CORE_ENV_TASKS_H_
#define ESPER_CORE_ENV_TASKS_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "core/env/task.h"

namespace esper::env {

// Loads a task by name: "cifar10", "digits", "mnist" or "text". `data` is its
// file or folder; empty is the task's default, which "digits"
// (data/digits.csv.gz) and "text" (/usr/share/common-licenses) have.
// Errors: INVALID_ARGUMENT for an unknown name, listing the known ones, or for
// empty `data` without a default; those of the task.
absl::StatusOr<std::shared_ptr<const Task>> LoadTask(const std::string& name,
                                                     const std::string& data);

// Names that LoadTask knows, sorted.
std::vector<std::string> TaskNames();

}  // namespace esper::env
#endif  // ESPER_CORE_ENV_TASKS_H_
