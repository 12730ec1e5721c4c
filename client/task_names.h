#ifndef ESPER_CLIENT_TASK_NAMES_H_
#define ESPER_CLIENT_TASK_NAMES_H_

#include <string>
#include <vector>

#include "absl/status/status.h"

namespace esper::client {

// Tasks that esper_env knows, sorted: what a coordinator may ask its workers
// for. Kept apart from the tasks themselves, so that the coordinator needs
// neither them nor LibTorch.
const std::vector<std::string>& TaskNames();

// INVALID_ARGUMENT that lists the known names.
absl::Status CheckTaskName(const std::string& name);

}  // namespace esper::client
#endif  // ESPER_CLIENT_TASK_NAMES_H_
