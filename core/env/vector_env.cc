#include "core/env/vector_env.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace esper::env {

VectorEnv::VectorEnv(int capacity) : episodes_(capacity < 1 ? 1 : capacity) {}

absl::Status VectorEnv::Start(int env_id, EpisodeConfig config) {
  if (env_id < 0 || env_id >= capacity()) {
    return absl::InvalidArgumentError(
        absl::StrCat("environment ", env_id, " is not in 0..", capacity() - 1));
  }
  episodes_[env_id] = nullptr;
  absl::StatusOr<std::unique_ptr<Episode>> episode =
      Episode::Create(std::move(config));
  if (!episode.ok()) return episode.status();
  episodes_[env_id] = *std::move(episode);
  return absl::OkStatus();
}

void VectorEnv::Stop(int env_id) {
  if (env_id >= 0 && env_id < capacity()) episodes_[env_id] = nullptr;
}

Episode* VectorEnv::episode(int env_id) {
  if (env_id < 0 || env_id >= capacity()) return nullptr;
  return episodes_[env_id].get();
}

const Episode* VectorEnv::episode(int env_id) const {
  return const_cast<VectorEnv*>(this)->episode(env_id);
}

std::vector<int> VectorEnv::Running() const {
  std::vector<int> running;
  for (int id = 0; id < capacity(); ++id) {
    if (episodes_[id] != nullptr && !episodes_[id]->done()) {
      running.push_back(id);
    }
  }
  return running;
}

absl::StatusOr<std::vector<StepResult>> VectorEnv::Step(
    const std::vector<EnvAction>& actions) {
  std::vector<bool> named(episodes_.size(), false);
  for (const auto& [id, action] : actions) {
    if (id < 0 || id >= capacity() || named[id]) {
      return absl::InvalidArgumentError(
          absl::StrCat("environment ", id, " is out of range or named twice"));
    }
    named[id] = true;
    if (episodes_[id] == nullptr || episodes_[id]->done()) {
      return absl::FailedPreconditionError(
          absl::StrCat("environment ", id, " has no running episode"));
    }
    absl::Status status = episodes_[id]->CheckAction(action);
    if (!status.ok()) return status;
  }
  std::vector<StepResult> results;
  results.reserve(actions.size());
  for (const auto& [id, action] : actions) {
    absl::StatusOr<StepResult> result = episodes_[id]->Step(action);
    if (!result.ok()) return result.status();
    results.push_back(*std::move(result));
  }
  return results;
}

}  // namespace esper::env
