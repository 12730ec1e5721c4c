#ifndef ESPER_CORE_ENV_TASKS_H_
#define ESPER_CORE_ENV_TASKS_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "core/env/task.h"

namespace esper::env {

// Loads a task by name: "digits", "digits_impaired", "text", "text_impaired",
// "mnist", "cifar10", or a published variant of the last one ("cifar_baseline",
// ...; image_tasks.h). `data` is its file or folder; empty is the task's
// default, which the digits (data/digits.csv.gz) and the text tasks
// (/usr/share/common-licenses) have.
// Errors: INVALID_ARGUMENT for an unknown name, with the nearest and all known
// ones, or for empty `data` without a default; those of the task.
absl::StatusOr<std::shared_ptr<const Task>> LoadTask(const std::string& name,
                                                     const std::string& data);

// Names that LoadTask knows, sorted.
std::vector<std::string> TaskNames();

}  // namespace esper::env
#endif  // ESPER_CORE_ENV_TASKS_H_
