#include "core/slot/stage.h"

#include <algorithm>
#include <array>
#include <utility>

#include "absl/strings/str_cat.h"

namespace esper::slot {
namespace {

struct StageRow {
  SeedStage stage;
  const char* name;
  std::vector<SeedStage> next;
};

// In one-hot order.
const std::array<StageRow, kNumStages>& Table() {
  using S = SeedStage;
  static const auto& table = *new std::array<StageRow, kNumStages>{{
      {S::kUnknown, "UNKNOWN", {S::kDormant}},
      {S::kDormant, "DORMANT", {S::kGerminated}},
      {S::kGerminated, "GERMINATED", {S::kTraining, S::kPruned}},
      {S::kTraining, "TRAINING", {S::kBlending, S::kPruned}},
      {S::kBlending, "BLENDING", {S::kHolding, S::kPruned}},
      {S::kHolding, "HOLDING", {S::kFossilized, S::kBlending, S::kPruned}},
      {S::kFossilized, "FOSSILIZED", {}},
      {S::kPruned, "PRUNED", {S::kEmbargoed}},
      {S::kEmbargoed, "EMBARGOED", {S::kResetting}},
      {S::kResetting, "RESETTING", {S::kDormant}},
  }};
  return table;
}

}  // namespace

int StageOneHotIndex(SeedStage stage) {
  const int number = static_cast<int>(stage);
  return number < 5 ? number : number - 1;
}

const char* StageName(SeedStage stage) {
  return Table()[StageOneHotIndex(stage)].name;
}

absl::StatusOr<SeedStage> StageFromNumber(int64_t number) {
  if (number == 5) {
    return absl::InvalidArgumentError("Seed stage 5 is retired.");
  }
  if (number < 0 || number > 10) {
    return absl::InvalidArgumentError(
        absl::StrCat("There is no seed stage ", number, "."));
  }
  return static_cast<SeedStage>(number);
}

bool IsActiveStage(SeedStage stage) {
  return stage == SeedStage::kTraining || stage == SeedStage::kBlending ||
         stage == SeedStage::kHolding || stage == SeedStage::kFossilized;
}

bool IsFailureStage(SeedStage stage) {
  return stage == SeedStage::kPruned || stage == SeedStage::kEmbargoed ||
         stage == SeedStage::kResetting;
}

bool IsTerminalStage(SeedStage stage) {
  return stage == SeedStage::kFossilized;
}

const std::vector<SeedStage>& NextStages(SeedStage stage) {
  return Table()[StageOneHotIndex(stage)].next;
}

bool IsLegalTransition(SeedStage from, SeedStage to) {
  const std::vector<SeedStage>& next = NextStages(from);
  return std::find(next.begin(), next.end(), to) != next.end();
}

std::optional<SeedStage> DefaultNextStage(SeedStage stage) {
  for (SeedStage next : NextStages(stage)) {
    if (!IsFailureStage(next)) return next;
  }
  return std::nullopt;
}

StageMachine::StageMachine(SeedStage stage, absl::Time now)
    : stage_(stage), entered_at_(now) {}

StageMachine StageMachine::Restore(SeedStage stage, SeedStage previous,
                                   int64_t previous_epochs,
                                   absl::Time entered_at,
                                   std::deque<Entry> history) {
  StageMachine machine(stage, entered_at);
  machine.previous_ = previous;
  machine.previous_epochs_ = previous_epochs;
  machine.history_ = std::move(history);
  return machine;
}

bool StageMachine::Transition(SeedStage to, absl::Time now,
                              int64_t epochs_in_stage) {
  if (!IsLegalTransition(stage_, to)) return false;
  previous_ = stage_;
  previous_epochs_ = epochs_in_stage;
  stage_ = to;
  entered_at_ = now;
  history_.emplace_back(to, now);
  if (history_.size() > kHistoryLength) history_.pop_front();
  return true;
}

}  // namespace esper::slot
