#include "core/ppo/trajectory.h"

#include <algorithm>
#include <functional>

#include "ATen/ops/cat.h"
#include "ATen/ops/stack.h"
#include "ATen/ops/zeros.h"
#include "ATen/ops/zeros_like.h"
#include "c10/util/Exception.h"

namespace esper::ppo {
namespace {

using Field = std::function<at::Tensor(const Trajectory&)>;

// x: [n, ...] -> [length, ...], the last entry repeated.
at::Tensor Stretch(const at::Tensor& x, int64_t length) {
  const int64_t n = x.size(0);
  if (n == length) return x;
  std::vector<int64_t> sizes = x.sizes().vec();
  sizes[0] = length - n;
  return at::cat({x, x.slice(0, n - 1, n).expand(sizes)});
}

// Stacks one field of all rows; rows without it get zeros. Undefined if no row
// has it.
at::Tensor Stack(absl::Span<const Trajectory> trajectories, int64_t length,
                 const Field& field) {
  at::Tensor like;
  for (const Trajectory& row : trajectories) {
    if (field(row).defined()) like = field(row);
  }
  if (!like.defined()) return at::Tensor();
  std::vector<at::Tensor> rows;
  for (const Trajectory& row : trajectories) {
    at::Tensor x = field(row);
    if (!x.defined()) {
      std::vector<int64_t> sizes = like.sizes().vec();
      sizes[0] = row.length();
      x = at::zeros(sizes, like.options());
    }
    rows.push_back(Stretch(x, length));
  }
  return at::stack(rows);
}

// [L, H] of each row -> [L, B, H].
at::Tensor StackStates(absl::Span<const Trajectory> trajectories,
                       at::Tensor Trajectory::*field) {
  at::Tensor like;
  for (const Trajectory& row : trajectories) {
    if ((row.*field).defined()) like = row.*field;
  }
  if (!like.defined()) return at::Tensor();
  std::vector<at::Tensor> states;
  for (const Trajectory& row : trajectories) {
    states.push_back((row.*field).defined() ? row.*field
                                            : at::zeros_like(like));
  }
  return at::stack(states, 1);
}

// bool [T, S]: measured at this very step.
at::Tensor Active(const Trajectory& row) {
  if (!row.contribution_mask.defined()) return at::Tensor();
  if (!row.contribution_fresh.defined()) return row.contribution_mask;
  return row.contribution_mask.logical_and(row.contribution_fresh.unsqueeze(1));
}

}  // namespace

at::Tensor TrajectoryBatch::Flatten(const at::Tensor& x) const {
  return x.flatten(0, 1).index_select(0, valid_index);
}

TrajectoryBatch PadTrajectories(absl::Span<const Trajectory> trajectories,
                                int64_t driver, TrajectoryUse use) {
  TORCH_CHECK(!trajectories.empty(), "a batch needs at least one trajectory");
  int64_t length = 0;
  for (const Trajectory& row : trajectories) {
    length = std::max(length, row.length());
  }
  const auto stack = [&](at::Tensor Trajectory::*field) {
    return Stack(trajectories, length,
                 [field](const Trajectory& row) { return row.*field; });
  };
  const int64_t rows = static_cast<int64_t>(trajectories.size());
  TrajectoryBatch batch;
  batch.valid = at::zeros({rows, length}, at::kBool);
  for (int64_t b = 0; b < rows; ++b) {
    batch.valid.select(0, b).slice(0, 0, trajectories[b].length()).fill_(true);
  }
  batch.valid_index = batch.valid.flatten().nonzero().squeeze(1);
  batch.observations = stack(&Trajectory::observations);
  batch.categorical = stack(&Trajectory::categorical);
  batch.action_masks = stack(&Trajectory::action_masks);
  batch.actions = stack(&Trajectory::actions);
  batch.continuous_actions = stack(&Trajectory::continuous_actions);
  if (driver >= 0) {
    batch.effective_choices =
        Stack(trajectories, length, [driver](const Trajectory& row) {
          return row.effective_choices.defined()
                     ? row.effective_choices
                     : row.actions.select(1, driver).contiguous();
        });
  }
  batch.forced = stack(&Trajectory::forced);
  if (!batch.forced.defined()) {
    batch.forced = at::zeros({rows, length}, at::kBool);
  }
  batch.initial_h = StackStates(trajectories, &Trajectory::initial_h);
  batch.initial_c = StackStates(trajectories, &Trajectory::initial_c);
  if (use == TrajectoryUse::kImitation) return batch;
  batch.behaviour_log_probs = stack(&Trajectory::behaviour_log_probs);
  batch.policy_versions = stack(&Trajectory::policy_versions);
  batch.contribution_targets = stack(&Trajectory::contribution_targets);
  batch.contribution_active = Stack(trajectories, length, Active);
  if (batch.contribution_active.defined()) {
    batch.contribution_active =
        batch.contribution_active.logical_and(batch.valid.unsqueeze(2));
  }
  return batch;
}

}  // namespace esper::ppo
