#include "core/env/control_schedule.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/nearest_name.h"
#include "core/policy/policy_spec.h"

namespace esper::env {
namespace {

using policy::ActionHead;
using policy::FactoredAction;
using policy::Op;

FactoredAction OnFirstSlot(Op op) {
  FactoredAction action;
  action.op = op;
  return action;
}

FactoredAction PlantNorm() {
  FactoredAction action = OnFirstSlot(Op::kGerminate);
  action.blueprint = policy::BlueprintIndex("norm");
  return action;  // Sigmoid blend, ADD, standard tempo, full alpha.
}

const std::vector<ControlSchedule>& Schedules() {
  static const auto& schedules =
      *new std::vector<ControlSchedule>{{"off_switch", {}},
                                        {"fixed_schedule", {{1, PlantNorm()}}},
                                        {"static_schedule",
                                         {{1, PlantNorm()},
                                          {2, OnFirstSlot(Op::kAdvance)},
                                          {12, OnFirstSlot(Op::kAdvance)},
                                          {17, OnFirstSlot(Op::kAdvance)},
                                          {18, OnFirstSlot(Op::kFossilize)}}}};
  return schedules;
}

}  // namespace

bool IsRelevantHead(ActionHead head, Op op) {
  if (head == ActionHead::kOp) return true;
  static const auto& heads = *new std::vector<policy::HeadSpec>(
      policy::PolicySpec::NetworkGrowing().heads);
  const std::vector<int64_t>& when =
      heads[static_cast<size_t>(head)].relevant_when;
  return std::count(when.begin(), when.end(), static_cast<int64_t>(op)) > 0;
}

std::vector<std::string> ControlSchedule::Names() {
  std::vector<std::string> names;
  for (const ControlSchedule& schedule : Schedules()) {
    names.push_back(schedule.name());
  }
  return names;
}

absl::StatusOr<ControlSchedule> ControlSchedule::ByName(
    const std::string& name) {
  for (const ControlSchedule& schedule : Schedules()) {
    if (schedule.name() == name) return schedule;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("unknown control run \"", name, "\"; the nearest is \"",
                   NearestName(name, Names()), "\""));
}

FactoredAction ControlSchedule::ActionAt(int epoch) const {
  const auto found = actions_.find(epoch);
  return found != actions_.end() ? found->second : FactoredAction();
}

absl::Status ControlSchedule::Narrow(int epoch,
                                     policy::ActionMask* mask) const {
  const FactoredAction action = ActionAt(epoch);
  const std::array<int64_t, policy::kNumActionHeads> choices =
      action.ToIndices();
  policy::ActionMask narrow = *mask;
  for (int h = 0; h < policy::kNumActionHeads; ++h) {
    const auto head = static_cast<ActionHead>(h);
    if (!IsRelevantHead(head, action.op)) continue;
    const bool allowed = head == ActionHead::kSlot
                             ? mask->AllowsSlot(action.op, action.slot)
                             : mask->Allows(head, choices[h]);
    if (!allowed) {
      return absl::FailedPreconditionError(absl::StrCat(
          "control run \"", name_, "\": ", policy::OpName(action.op),
          " of epoch ", epoch, " is not possible, head ",
          policy::HeadName(head), " does not allow entry ", choices[h]));
    }
    const int offset = policy::HeadOffset(head, mask->num_slots);
    const int size = policy::HeadSize(head, mask->num_slots);
    for (int i = 0; i < size; ++i) {
      narrow.heads[offset + i] = i == choices[h];
    }
  }
  for (int op = 0; op < policy::kNumOps; ++op) {
    for (int slot = 0; slot < mask->num_slots; ++slot) {
      const size_t entry = static_cast<size_t>(op * mask->num_slots + slot);
      const bool chosen = op == static_cast<int>(action.op) &&
                          (action.op == Op::kWait || slot == action.slot);
      narrow.slot_by_op[entry] = chosen && mask->slot_by_op[entry];
    }
  }
  *mask = std::move(narrow);
  return absl::OkStatus();
}

}  // namespace esper::env
