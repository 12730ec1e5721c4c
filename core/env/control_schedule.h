#ifndef ESPER_CORE_ENV_CONTROL_SCHEDULE_H_
#define ESPER_CORE_ENV_CONTROL_SCHEDULE_H_

#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/policy/action_mask.h"
#include "core/policy/actions.h"

namespace esper::env {

// The actions of a control run, by epoch: what a policy is compared with. The
// schedule leaves a policy nothing to choose, by narrowing the masks, so that a
// control run takes the same way through the system as any other. All of its
// steps are forced ones: no policy learns from them.
//
// An immutable value.
class ControlSchedule {
 public:
  // `actions` by epoch, from 1; WAIT in every other epoch.
  ControlSchedule(std::string name,
                  std::map<int, policy::FactoredAction> actions)
      : name_(std::move(name)), actions_(std::move(actions)) {}

  // A control run by name:
  //   "off_switch"       WAIT throughout: what the host does by itself.
  //   "fixed_schedule"   a norm seed germinates in the first slot at epoch 1,
  //                      then WAIT.
  //   "static_schedule"  the same seed advances at epochs 2, 12 and 17 and is
  //                      fossilised at 18.
  // INVALID_ARGUMENT for any other name, with the nearest.
  static absl::StatusOr<ControlSchedule> ByName(const std::string& name);
  static std::vector<std::string> Names();

  const std::string& name() const { return name_; }
  // The action of an epoch.
  policy::FactoredAction ActionAt(int epoch) const;

  // Leaves only that action in `mask`: one op, and one entry of each head that
  // matters to it (other heads are left alone). FAILED_PRECONDITION, with the
  // mask unchanged, if an entry is not allowed; names epoch and head.
  absl::Status Narrow(int epoch, policy::ActionMask* mask) const;

 private:
  std::string name_;
  std::map<int, policy::FactoredAction> actions_;
};

// Whether `head` matters when the op is `op`; the op head always does.
bool IsRelevantHead(policy::ActionHead head, policy::Op op);

}  // namespace esper::env
#endif  // ESPER_CORE_ENV_CONTROL_SCHEDULE_H_
