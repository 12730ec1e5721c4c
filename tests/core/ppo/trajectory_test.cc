#include "core/ppo/trajectory.h"

#include <functional>
#include <limits>

#include "ATen/ops/full.h"
#include "ATen/ops/ones.h"
#include "ATen/ops/randn.h"
#include "ATen/ops/zeros.h"
#include "core/error.h"
#include "core/ppo/learner.h"
#include "core/ppo/trajectory_rules.h"
#include "gtest/gtest.h"
#include "tests/core/ppo/rollout.h"
#include "tests/testing/status_matchers.h"

namespace esper::ppo {
namespace {

using ::esper::testing::Refused;
constexpr int kSlot = 0, kOp = 7;  // Heads.
const float kNan = std::numeric_limits<float>::quiet_NaN();

class TrajectoryRulesTest : public ::testing::Test {
 protected:
  TrajectoryRulesTest() : spec_(SmallSpec()), rules_(spec_, 10) {
    auto learner = Learner::Create(spec_, LearnerConfig(), 5);
    RolloutOptions options;
    options.lengths = {8, 5};
    options.seed = 21;
    options.contributions = true;
    options.initial_states = true;
    episodes_ = Rollout(spec_, *(*learner)->published(), options);
  }

  using Spoil = std::function<void(Trajectory&)>;

  // The first episode with its tensors copied, then spoiled, must be refused.
  ErrorDetail ExpectRefusal(const char* reason, const Spoil& spoil,
                            size_t which = 0) {
    Trajectory row = episodes_[which];
    for (at::Tensor Trajectory::*field :
         {&Trajectory::observations, &Trajectory::categorical,
          &Trajectory::action_masks, &Trajectory::actions,
          &Trajectory::behaviour_log_probs, &Trajectory::values,
          &Trajectory::rewards, &Trajectory::policy_versions,
          &Trajectory::contribution_targets, &Trajectory::initial_h}) {
      row.*field = (row.*field).clone();
    }
    spoil(row);
    const absl::Status status = rules_.Validate(row, 3);
    EXPECT_THAT(status, Refused(CodeOfReason(reason), reason));
    const ErrorDetail detail = DetailOf(status).value_or(ErrorDetail());
    EXPECT_EQ(detail.row, 3);
    return detail;
  }

  int64_t OffsetOf(int head) const { return rules_.layout().offset(head); }
  // First step whose op is, or is not, WAIT.
  int64_t FindStep(bool wait) const {
    for (int64_t t = 0; t < episodes_[0].length(); ++t) {
      if ((episodes_[0].actions[t][kOp].item<int64_t>() == 0) == wait) return t;
    }
    ADD_FAILURE() << "the rollout has no such step";
    return 0;
  }

  const policy::PolicySpec spec_;
  const TrajectoryRules rules_;
  std::vector<Trajectory> episodes_;
};

TEST_F(TrajectoryRulesTest, AcceptsWhatWasActed) {
  EXPECT_EQ(rules_.driver(), kOp);
  for (const Trajectory& row : episodes_) {
    EXPECT_OK(rules_.Validate(row, 0));
  }
  Trajectory plain = episodes_[0];
  plain.forced = plain.effective_choices = at::Tensor();
  plain.contribution_targets = plain.contribution_mask = at::Tensor();
  plain.contribution_fresh = plain.initial_h = plain.initial_c = at::Tensor();
  EXPECT_OK(rules_.Validate(plain, 0));
}

TEST_F(TrajectoryRulesTest, RefusesAnotherSpecification) {
  ExpectRefusal("SPEC_MISMATCH", [](auto& t) { t.spec_digest = "other"; });
  ExpectRefusal("SPEC_MISMATCH", [](auto& t) { t.spec_digest.clear(); });
}

TEST_F(TrajectoryRulesTest, RefusesEpisodesWithoutAnEndNamingThem) {
  Trajectory open = episodes_[0];
  open.end = EpisodeEnd::kUnset;
  const absl::Status status = rules_.Validate(open, 0);
  EXPECT_THAT(status,
              Refused(absl::StatusCode::kInvalidArgument, "MALFORMED_REQUEST"));
  EXPECT_NE(std::string(status.message()).find("row0"), std::string::npos);
  ExpectRefusal("MALFORMED_REQUEST",
                [](auto& t) { t.bootstrap_value.reset(); });
  ExpectRefusal(
      "MALFORMED_REQUEST", [](auto& t) { t.bootstrap_value = 0.5f; }, 1);
  ExpectRefusal("NONFINITE_INPUT", [](auto& t) { t.bootstrap_value = kNan; });
}

TEST_F(TrajectoryRulesTest, RefusesEmptyAndOverlongEpisodes) {
  ExpectRefusal("MALFORMED_REQUEST",
                [](auto& t) { t.observations = at::Tensor(); });
  ExpectRefusal("BUDGET_EXCEEDED", [this](auto& t) {
    t.observations = at::zeros({11, spec_.observation_width()});
  });
}

TEST_F(TrajectoryRulesTest, RefusesShapesAndTypesNamingTheTensor) {
  EXPECT_EQ(
      ExpectRefusal("BAD_SHAPE", [](auto& t) { t.rewards = at::zeros({7}); })
          .tensor,
      "rewards");
  EXPECT_EQ(ExpectRefusal("BAD_SHAPE",
                          [](auto& t) { t.actions = t.actions.to(at::kInt); })
                .tensor,
            "actions");
  ExpectRefusal("BAD_SHAPE", [](auto& t) {
    t.observations = at::zeros({8, t.observations.size(1) + 1});
  });
  ExpectRefusal("BAD_SHAPE", [](auto& t) { t.categorical = at::Tensor(); });
  ExpectRefusal("BAD_SHAPE",
                [](auto& t) { t.contribution_mask = at::Tensor(); });
  ExpectRefusal("BAD_SHAPE", [](auto& t) { t.initial_c = at::Tensor(); });
  ExpectRefusal("BAD_SHAPE", [](auto& t) { t.initial_h = at::zeros({1, 25}); });
}

TEST_F(TrajectoryRulesTest, RefusesNumbersThatAreNotFiniteNamingTheStep) {
  const auto spoil = [this](at::Tensor Trajectory::*field) {
    return ExpectRefusal("NONFINITE_INPUT", [field](Trajectory& t) {
      at::Tensor x = (t.*field)[4];
      (x.dim() > 0 ? x[0] : x).fill_(kNan);
    });
  };
  EXPECT_EQ(spoil(&Trajectory::observations).step, 4);
  EXPECT_EQ(spoil(&Trajectory::observations).tensor, "observations");
  EXPECT_EQ(spoil(&Trajectory::rewards).step, 4);
  EXPECT_EQ(spoil(&Trajectory::values).step, 4);
  EXPECT_EQ(spoil(&Trajectory::behaviour_log_probs).step, 4);
  EXPECT_EQ(spoil(&Trajectory::contribution_targets).step, 4);
  ExpectRefusal("NONFINITE_INPUT", [](auto& t) {
    t.rewards[2].fill_(std::numeric_limits<float>::infinity());
  });
  ExpectRefusal("NONFINITE_INPUT", [](auto& t) { t.initial_h.fill_(kNan); });
}

TEST_F(TrajectoryRulesTest, RefusesBehaviourThatCannotBe) {
  ExpectRefusal("BAD_BEHAVIOUR",
                [](auto& t) { t.behaviour_log_probs[1][kOp].fill_(0.01); });
  ExpectRefusal("BAD_BEHAVIOUR",
                [](auto& t) { t.behaviour_log_probs[1][kOp].fill_(-1001); });
  const int64_t wait = FindStep(true);
  const ErrorDetail detail = ExpectRefusal("BAD_BEHAVIOUR", [wait](auto& t) {
    t.behaviour_log_probs[wait][kSlot].fill_(-0.5);
  });
  EXPECT_EQ(detail.step, wait);
  EXPECT_EQ(detail.field, "slot");
}

TEST_F(TrajectoryRulesTest, RefusesActionsThatTheirMasksForbid) {
  EXPECT_EQ(ExpectRefusal("INVALID_ACTION",
                          [](auto& t) { t.actions[2][kOp].fill_(6); })
                .step,
            2);
  ExpectRefusal("INVALID_ACTION", [](auto& t) { t.actions[2][1].fill_(-1); });
  const int64_t step = FindStep(false);
  ExpectRefusal("INVALID_ACTION", [this, step](auto& t) {
    t.action_masks[step].slice(0, OffsetOf(kOp), OffsetOf(kOp) + 6).fill_(true);
    t.action_masks[step][OffsetOf(kOp) +
                         t.actions[step][kOp].template item<int64_t>()]
        .fill_(false);
  });
  // A head that the op does not use holds its placeholder.
  const int64_t wait = FindStep(true);
  ExpectRefusal("INVALID_ACTION", [wait](auto& t) {
    t.actions[wait][1].fill_(1 + t.actions[wait][1].template item<int64_t>());
  });
}

TEST_F(TrajectoryRulesTest, RefusesEmptyMasksOfHeadsInUseOnly) {
  const int64_t step = FindStep(false), wait = FindStep(true);
  const auto clear_slot = [this](int64_t t) {
    return [this, t](Trajectory& row) {
      row.action_masks[t]
          .slice(0, OffsetOf(kSlot), OffsetOf(kSlot) + 2)
          .fill_(false);
    };
  };
  const ErrorDetail detail =
      ExpectRefusal("EMPTY_ACTION_MASK", clear_slot(step));
  EXPECT_EQ(detail.field, "slot");
  EXPECT_EQ(detail.step, step);
  Trajectory row = episodes_[0];
  row.action_masks = row.action_masks.clone();
  row.actions = row.actions.clone();
  clear_slot(wait)(row);
  row.actions[wait][kSlot].fill_(0);
  EXPECT_OK(rules_.Validate(row, 0));
}

TEST_F(TrajectoryRulesTest, RefusesEffectsThatNobodyChose) {
  const int64_t step = FindStep(false);
  const auto effective = [this](int64_t t, int64_t op) {
    return [t, op](Trajectory& row) {
      row.effective_choices = row.actions.select(1, kOp).clone();
      row.effective_choices[t].fill_(op);
    };
  };
  const int64_t taken = episodes_[0].actions[step][kOp].item<int64_t>();
  ExpectRefusal("INVALID_ACTION", effective(step, taken % 5 + 1));
  Trajectory row = episodes_[0];
  effective(step, 0)(row);  // The environment refused it.
  EXPECT_OK(rules_.Validate(row, 0));
}

TEST_F(TrajectoryRulesTest, RefusesImpossibleIndicesAndVersions) {
  EXPECT_EQ(ExpectRefusal("BAD_BLUEPRINT_INDEX",
                          [](auto& t) { t.categorical[6][1].fill_(13); })
                .step,
            6);
  ExpectRefusal("BAD_BLUEPRINT_INDEX",
                [](auto& t) { t.categorical[6][0].fill_(-2); });
  EXPECT_EQ(ExpectRefusal("UNKNOWN_VERSION",
                          [](auto& t) { t.policy_versions[5].fill_(0); })
                .step,
            5);
}

TEST_F(TrajectoryRulesTest, T19PadsRowsWithStepsThatDoNotCount) {
  episodes_[1].forced = at::ones({5}, at::kBool);
  const TrajectoryBatch batch = PadTrajectories(episodes_, kOp);
  EXPECT_EQ(batch.steps(), 13);
  EXPECT_EQ(batch.observations.sizes(),
            at::IntArrayRef({2, 8, spec_.observation_width()}));
  EXPECT_EQ(batch.valid.sum().item<int64_t>(), 13);
  EXPECT_FALSE(batch.valid[1][5].item<bool>());
  EXPECT_FALSE(batch.forced[0].any().item<bool>());
  EXPECT_TRUE(
      batch.observations[1].slice(0, 0, 5).equal(episodes_[1].observations));
  EXPECT_TRUE(batch.observations[1][7].equal(episodes_[1].observations[4]));
  EXPECT_TRUE(
      batch.Flatten(batch.actions).slice(0, 8, 13).equal(episodes_[1].actions));
  EXPECT_FALSE(batch.contribution_active[1].slice(0, 5, 8).any().item<bool>());
  EXPECT_TRUE(batch.initial_h.select(1, 1).equal(episodes_[1].initial_h));
  // Without a recorded effect an action is taken to have had its own.
  EXPECT_TRUE(
      batch.effective_choices[0].equal(episodes_[0].actions.select(1, kOp)));
}

}  // namespace
}  // namespace esper::ppo
