#ifndef ESPER_SERVER_RECORDING_H_
#define ESPER_SERVER_RECORDING_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "server/episode_types.h"
#include "server/recording_layout.h"

namespace esper::server {

// What the policy was shown at one step; borrowed.
struct RecordedInput {
  const float* observation = nullptr;    // [D], raw.
  const int64_t* categorical = nullptr;  // [S]; null if there is none.
  const uint8_t* mask = nullptr;         // [M], packed; null if M is 0.
};

// One episode as it is being recorded: its steps in rows of equal width, in
// blocks that are never moved, so that memory is taken exactly as accounted.
//
// A step is staged while it is computed and counts once it is committed; a
// staged step that is staged again is overwritten. So a step that fails, or is
// repeated, leaves no trace.
//
// Thread safety: none. While the episode is open, whoever holds the claim on it
// stages, and `CommitStep` is called under the lock of the episode table. After
// its end a recording is immutable.
class Recording {
 public:
  static constexpr int64_t kStepsPerBlock = 8;
  // Accounted for a recording besides its blocks: ids, keys, bookkeeping.
  static constexpr int64_t kFixedBytes = 1024;

  // `layout` must outlive the recording.
  Recording(const RecordingLayout* layout, std::string id,
            const EpisodeStart& start);

  static int64_t BlockBytes(const RecordingLayout& layout) {
    return kStepsPerBlock * layout.step_bytes;
  }

  // Whether the next step fits; otherwise a block must be added first, which
  // may throw std::bad_alloc and then changes nothing. A block without steps
  // may be removed again.
  bool HasRoom() const {
    return steps_ < static_cast<int64_t>(blocks_.size()) * kStepsPerBlock;
  }
  void AddBlock();
  void RemoveBlock() { blocks_.pop_back(); }

  // Writes what was shown and answered at step `steps()`. There must be room.
  void StageStep(const RecordedInput& input, const StepAnswer& answer);
  // The staged step was taken; `previous` is the outcome of the one before,
  // which every step but the first has.
  void CommitStep(const std::optional<Outcome>& previous);
  // The outcome of the last step, if it is known.
  void CommitEnd(const std::optional<Outcome>& last);

  const std::string& id() const { return id_; }
  const EpisodeStart& start() const { return start_; }
  const RecordingLayout& layout() const { return *layout_; }
  int64_t steps() const { return steps_; }
  int64_t outcomes() const { return outcomes_; }     // Known ones.
  bool measured() const { return measured_; }        // Some target was.
  double episode_return() const { return return_; }  // Of known outcomes.
  int64_t version_of(int64_t step) const;            // Of the policy.
  int64_t bytes() const;                             // As accounted.
  // A part of all steps: steps() * column.bytes bytes.
  std::string Read(const RecordingLayout::Column& column) const;

 private:
  char* At(int64_t step, const RecordingLayout::Column& column) const {
    return blocks_[step / kStepsPerBlock].get() +
           step % kStepsPerBlock * layout_->step_bytes + column.offset;
  }
  // Of step `outcomes_`.
  void SetOutcome(const Outcome& outcome);
  void ForfeitRewards();

  const RecordingLayout* const layout_;
  const std::string id_;
  const EpisodeStart start_;
  std::vector<std::unique_ptr<char[]>> blocks_;  // Zeroed at first.
  int64_t steps_ = 0;
  int64_t outcomes_ = 0;
  bool measured_ = false;
  double return_ = 0;
};

}  // namespace esper::server
#endif  // ESPER_SERVER_RECORDING_H_
