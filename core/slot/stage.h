#ifndef ESPER_CORE_SLOT_STAGE_H_
#define ESPER_CORE_SLOT_STAGE_H_

#include <cstdint>
#include <deque>
#include <optional>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace esper::slot {

// Life of a seed. Numbers are wire contracts; 5 is retired.
enum class SeedStage : int {
  kUnknown = 0,
  kDormant = 1,
  kGerminated = 2,  // Planted; neither runs nor learns.
  kTraining = 3,    // Learns behind a straight-through estimator.
  kBlending = 4,    // Its weight in the host's features moves.
  kHolding = 6,     // Fully blended, on probation.
  kFossilized = 7,  // Permanent.
  kPruned = 8,      // Removed; the slot cools down through the last three.
  kEmbargoed = 9,
  kResetting = 10,
};

inline constexpr int kNumStages = 10;
inline constexpr int kStageSchemaVersion = 1;

// "BLENDING".
const char* StageName(SeedStage stage);
// INVALID_ARGUMENT for a number outside the table, with a sentence of its own
// for the retired one.
absl::StatusOr<SeedStage> StageFromNumber(int64_t number);
// Index of a stage in a one-hot encoding of kNumStages entries.
int StageOneHotIndex(SeedStage stage);

bool IsActiveStage(SeedStage stage);    // Takes part in forward.
bool IsFailureStage(SeedStage stage);   // Pruned or cooling down.
bool IsTerminalStage(SeedStage stage);  // Fossilized.
// Legal successors in order of preference.
const std::vector<SeedStage>& NextStages(SeedStage stage);
bool IsLegalTransition(SeedStage from, SeedStage to);
// The first legal successor that is not a failure; absent if there is none.
std::optional<SeedStage> DefaultNextStage(SeedStage stage);

// Which stage a seed is in and how it got there. A value.
class StageMachine {
 public:
  static constexpr int kHistoryLength = 100;
  using Entry = std::pair<SeedStage, absl::Time>;

  // Starts in `stage`, entered at `now`, without history.
  StageMachine(SeedStage stage, absl::Time now);

  // As it was when it was saved; trusts its arguments.
  static StageMachine Restore(SeedStage stage, SeedStage previous,
                              int64_t previous_epochs, absl::Time entered_at,
                              std::deque<Entry> history);

  // False, with nothing changed, if the transition is illegal. Otherwise
  // enters `to` at `now`; `epochs_in_stage` is the age of the stage left.
  bool Transition(SeedStage to, absl::Time now, int64_t epochs_in_stage);

  SeedStage stage() const { return stage_; }
  SeedStage previous() const { return previous_; }
  int64_t previous_epochs() const { return previous_epochs_; }
  absl::Time entered_at() const { return entered_at_; }
  // The last kHistoryLength stages entered by a transition, oldest first.
  const std::deque<Entry>& history() const { return history_; }

 private:
  SeedStage stage_;
  SeedStage previous_ = SeedStage::kUnknown;
  int64_t previous_epochs_ = 0;
  absl::Time entered_at_;
  std::deque<Entry> history_;
};

}  // namespace esper::slot
#endif  // ESPER_CORE_SLOT_STAGE_H_
