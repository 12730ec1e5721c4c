#ifndef ESPER_CORE_ENV_TASK_H_
#define ESPER_CORE_ENV_TASK_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "core/env/digits.h"

namespace esper::env {

// What an environment grows a network for: data, host and slots. Immutable
// once loaded, and shared by all episodes of a process.
struct Task {
  std::string name;  // "digits".
  ImageSplits data;
  int num_classes = 10;

  // Host network: `blocks` convolution blocks, each followed by a 2x2 pool.
  int in_channels = 1;
  int base_channels = 8;
  int blocks = 3;
  bool channels_last = false;         // Memory format of images and features.
  std::vector<std::string> slot_ids;  // In action order.

  int batch_size = 64;  // Training images in one optimiser step.
};

// Loads a task by name. `data_path` is the file that deploy/fetch_digits.py
// wrote.
// Errors: INVALID_ARGUMENT for an unknown name, listing the known ones; those
// of LoadDigits.
absl::StatusOr<std::shared_ptr<const Task>> LoadTask(
    const std::string& name, const std::string& data_path);

// Names that LoadTask knows, sorted.
std::vector<std::string> TaskNames();

}  // namespace esper::env
#endif  // ESPER_CORE_ENV_TASK_H_
