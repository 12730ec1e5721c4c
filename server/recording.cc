#include "server/recording.h"

#include <cstring>
#include <utility>

namespace esper::server {
namespace {

// Integers as bytes, or as they are where the column is wide.
void WriteIntegers(const int64_t* values, const RecordingLayout::Column& column,
                   char* to) {
  if (column.count == 0) return;
  if (column.bytes == column.count * static_cast<int64_t>(sizeof(int64_t))) {
    std::memcpy(to, values, column.bytes);
    return;
  }
  for (int64_t i = 0; i < column.count; ++i) {
    to[i] = static_cast<char>(values[i]);
  }
}

void WriteBytes(const void* from, const RecordingLayout::Column& column,
                char* to) {
  if (column.bytes > 0) std::memcpy(to, from, column.bytes);
}

}  // namespace

Recording::Recording(const RecordingLayout* layout, std::string id,
                     const EpisodeStart& start)
    : layout_(layout), id_(std::move(id)), start_(start) {}

void Recording::AddBlock() {
  blocks_.push_back(std::make_unique<char[]>(BlockBytes(*layout_)));
}

void Recording::StageStep(const RecordedInput& input,
                          const StepAnswer& answer) {
  const RecordingLayout& parts = *layout_;
  const auto at = [this](const RecordingLayout::Column& column) {
    return At(steps_, column);
  };
  WriteBytes(input.observation, parts.observations, at(parts.observations));
  WriteIntegers(input.categorical, parts.categorical, at(parts.categorical));
  WriteBytes(input.mask, parts.masks, at(parts.masks));
  WriteIntegers(answer.actions.data(), parts.actions, at(parts.actions));
  WriteBytes(answer.continuous.data(), parts.continuous, at(parts.continuous));
  WriteBytes(answer.log_probs.data(), parts.log_probs, at(parts.log_probs));
  WriteBytes(&answer.value, parts.value, at(parts.value));
  WriteBytes(&answer.version, parts.version, at(parts.version));
}

void Recording::CommitStep(const std::optional<Outcome>& previous) {
  if (previous.has_value()) SetOutcome(*previous);
  ++steps_;
}

void Recording::CommitEnd(const std::optional<Outcome>& last) {
  if (last.has_value() && outcomes_ < steps_) SetOutcome(*last);
}

void Recording::SetOutcome(const Outcome& outcome) {
  const RecordingLayout& parts = *layout_;
  const auto at = [this](const RecordingLayout::Column& column) {
    return At(outcomes_, column);
  };
  if (outcome.forfeits_earlier_rewards) ForfeitRewards();
  WriteBytes(&outcome.reward, parts.reward, at(parts.reward));
  return_ += outcome.reward;
  WriteIntegers(&outcome.effective_choice, parts.effective_choice,
                at(parts.effective_choice));
  *at(parts.forced) = outcome.forced ? 1 : 0;
  for (size_t p = 0; p < outcome.targets.size() && p < 64; ++p) {
    if ((outcome.targets_measured >> p & 1) == 0) continue;
    std::memcpy(at(parts.targets) + p * sizeof(float), &outcome.targets[p],
                sizeof(float));
    at(parts.targets_measured)[p] = 1;
    measured_ = true;
  }
  ++outcomes_;
}

void Recording::ForfeitRewards() {
  for (int64_t step = 0; step < outcomes_; ++step) {
    std::memset(At(step, layout_->reward), 0, layout_->reward.bytes);
  }
  return_ = 0;
}

int64_t Recording::version_of(int64_t step) const {
  int64_t version = 0;
  std::memcpy(&version, At(step, layout_->version), sizeof(version));
  return version;
}

int64_t Recording::bytes() const {
  return kFixedBytes +
         static_cast<int64_t>(blocks_.size()) * BlockBytes(*layout_);
}

std::string Recording::Read(const RecordingLayout::Column& column) const {
  std::string bytes(steps_ * column.bytes, '\0');
  for (int64_t step = 0; step < steps_; ++step) {
    std::memcpy(bytes.data() + step * column.bytes, At(step, column),
                column.bytes);
  }
  return bytes;
}

}  // namespace esper::server
