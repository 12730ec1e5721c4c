#ifndef ESPER_CORE_ENV_TEXT_TASK_H_
#define ESPER_CORE_ENV_TEXT_TASK_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "core/env/task.h"

namespace esper::env {

// Predicts each next character of a text with a small causal transformer: 3
// layers of width 64 with 4 heads over 64 characters, a slot behind each layer.
// Loss is cross-entropy (nats) and accuracy the percentage of right guesses,
// both over all characters of a window.
//
// `path` is a text file or a folder of them, see LoadTextCorpus. Parts are
// dealt out by contiguous blocks, see SplitText. Errors: those of both.
absl::StatusOr<std::shared_ptr<const Task>> LoadTextTask(
    const std::string& path);

// The same with a host that is too weak for it: an embedding of width 32 and
// nothing else (EmbeddingHost), which learns slowly, so that only seeds can tell
// what follows a character. Windows of 32 characters, 32 of them an epoch.
absl::StatusOr<std::shared_ptr<const Task>> LoadImpairedTextTask(
    const std::string& path);

}  // namespace esper::env
#endif  // ESPER_CORE_ENV_TEXT_TASK_H_
