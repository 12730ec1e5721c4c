#include "proto/codec/trajectory_codec.h"

#include <functional>

#include "ATen/ops/equal.h"
#include "ATen/ops/full.h"
#include "ATen/ops/ones.h"
#include "ATen/ops/tensor.h"
#include "ATen/ops/zeros.h"
#include "core/policy/policy_spec.h"
#include "gtest/gtest.h"
#include "proto/codec/tensor_codec.h"
#include "tests/testing/status_matchers.h"

namespace esper::codec {
namespace {

using ::esper::testing::Refused;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr int64_t kSteps = 4;

class TrajectoryCodecTest : public ::testing::Test {
 protected:
  static policy::PolicySpec Spec() {
    policy::NetworkGrowingOptions options;
    options.feature_dim = 16;
    options.hidden_dim = 16;
    return policy::PolicySpec::NetworkGrowing(options);
  }

  TrajectoryCodecTest() {
    const int64_t heads = spec_.num_heads();
    message_.set_spec_digest("digest");
    message_.set_episode_key("env-1");
    EncodeTensor(at::full({kSteps, spec_.observation_width()}, 0.5),
                 message_.mutable_observations());
    EncodeTensor(at::full({kSteps, 3}, -1).to(at::kChar),
                 message_.mutable_categorical());
    masks_.Encode(masks_.AllowAll(kSteps), message_.mutable_action_masks());
    EncodeTensor(at::ones({kSteps, heads}).to(at::kByte),
                 message_.mutable_actions());
    message_.mutable_behaviour()->set_kind(v1::NUMBER_KIND_BEHAVIOUR);
    EncodeTensor(at::full({kSteps, heads}, -0.25),
                 message_.mutable_behaviour()->mutable_log_probs());
    EncodeTensor(at::full({kSteps}, 2.0),
                 message_.mutable_behaviour()->mutable_values());
    EncodeTensor(at::ones({kSteps}, at::kLong),
                 message_.mutable_policy_versions());
    EncodeTensor(at::tensor({1.0f, 2.0f, 3.0f, 4.0f}),
                 message_.mutable_rewards());
    message_.set_end_kind(v1::END_KIND_TRUNCATED);
    message_.set_bootstrap_value(1.25f);
  }

  absl::StatusOr<ppo::Trajectory> Decode(const v1::Trajectory& message) const {
    return DecodeTrajectory(message, spec_, masks_, /*row=*/6);
  }

  // Expects that the change makes the message invalid, naming field and row.
  void ExpectRefused(const std::string& reason, const std::string& field,
                     const std::function<void(v1::Trajectory&)>& change) {
    v1::Trajectory changed = message_;
    change(changed);
    const auto status = Decode(changed).status();
    EXPECT_THAT(status, Refused(kInvalid, reason)) << field;
    if (!DetailOf(status).has_value()) return;
    EXPECT_EQ(DetailOf(status)->field, field);
    EXPECT_EQ(DetailOf(status)->row, 6);
  }

  const policy::PolicySpec spec_ = Spec();
  const MaskCodec masks_{spec_};
  v1::Trajectory message_;
};

TEST_F(TrajectoryCodecTest, DecodesEveryField) {
  EncodeTensor(at::zeros({kSteps}).to(at::kByte),
               message_.mutable_effective_choices());
  EncodeTensor(at::ones({kSteps}).to(at::kBool), message_.mutable_forced());
  at::Tensor measured = at::zeros({kSteps, 3}).to(at::kBool);
  measured[2][1] = true;
  EncodeTensor(measured, message_.mutable_contribution_mask());
  EncodeTensor(at::full({kSteps, 3}, 7.0),
               message_.mutable_contribution_targets());
  EncodeTensor(at::full({1, 16}, 0.1), message_.mutable_initial_hidden());
  EncodeTensor(at::full({1, 16}, 0.2), message_.mutable_initial_cell());

  const auto decoded = Decode(message_);
  ASSERT_OK(decoded);
  EXPECT_EQ(decoded->episode, "env-1");
  EXPECT_EQ(decoded->spec_digest, "digest");
  EXPECT_EQ(decoded->length(), kSteps);
  EXPECT_EQ(decoded->observations.scalar_type(), at::kFloat);
  EXPECT_TRUE(
      at::equal(decoded->categorical, at::full({kSteps, 3}, -1, at::kLong)));
  EXPECT_TRUE(at::equal(decoded->actions, at::ones({kSteps, 8}, at::kLong)));
  EXPECT_EQ(decoded->action_masks.size(1), spec_.action_width());
  EXPECT_FLOAT_EQ(decoded->behaviour_log_probs[3][7].item<float>(), -0.25f);
  EXPECT_FLOAT_EQ(decoded->values[0].item<float>(), 2.0f);
  EXPECT_FLOAT_EQ(decoded->rewards[3].item<float>(), 4.0f);
  EXPECT_TRUE(
      at::equal(decoded->effective_choices, at::zeros({kSteps}, at::kLong)));
  EXPECT_TRUE(decoded->forced.all().item<bool>());
  EXPECT_TRUE(at::equal(decoded->contribution_fresh,
                        at::tensor({0, 0, 1, 0}).to(at::kBool)));
  EXPECT_EQ(decoded->end, ppo::EpisodeEnd::kTruncated);
  EXPECT_EQ(decoded->bootstrap_value, 1.25f);
  EXPECT_FLOAT_EQ(decoded->initial_c[0][0].item<float>(), 0.2f);
}

TEST_F(TrajectoryCodecTest, AbsentOptionalFieldsStayUndefined) {
  const auto decoded = Decode(message_);
  ASSERT_OK(decoded);
  EXPECT_FALSE(decoded->effective_choices.defined());
  EXPECT_FALSE(decoded->forced.defined());
  EXPECT_FALSE(decoded->contribution_targets.defined());
  EXPECT_FALSE(decoded->initial_h.defined());
}

TEST_F(TrajectoryCodecTest, TheSlotMaskIsTheRowOfTheOpTaken) {
  ActionMasks masks = masks_.AllowAll(kSteps);
  masks.conditional[2][1].fill_(false);
  masks.conditional[2][1][2] = true;
  masks_.Encode(masks, message_.mutable_action_masks());
  const auto decoded = Decode(message_);  // Op 1 at every step.
  ASSERT_OK(decoded);
  EXPECT_TRUE(at::equal(decoded->action_masks[2].narrow(0, 0, 3),
                        at::tensor({0, 0, 1}).to(at::kBool)));
  EXPECT_TRUE(decoded->action_masks[1].all().item<bool>());
}

TEST_F(TrajectoryCodecTest, RefusesWhatCannotBeATrajectory) {
  ExpectRefused("MALFORMED_REQUEST", "end_kind",
                [](auto& t) { t.set_end_kind(v1::END_KIND_ABORTED); });
  ExpectRefused("MALFORMED_REQUEST", "end_kind",
                [](auto& t) { t.clear_end_kind(); });
  ExpectRefused("MALFORMED_REQUEST", "behaviour", [](auto& t) {
    t.mutable_behaviour()->set_kind(v1::NUMBER_KIND_EVALUATED);
  });
  ExpectRefused("MALFORMED_REQUEST", "observations", [](auto& t) {
    EncodeTensor(at::zeros({0, 116}), t.mutable_observations());
  });
  ExpectRefused("MALFORMED_REQUEST", "initial_hidden", [](auto& t) {
    EncodeTensor(at::zeros({1, 16}), t.mutable_initial_cell());
  });
  ExpectRefused("INVALID_ACTION", "op", [](auto& t) {
    EncodeTensor(at::full({kSteps, 8}, 9).to(at::kByte), t.mutable_actions());
  });
}

TEST_F(TrajectoryCodecTest, RefusesFieldsOfOtherShapeOrDtype) {
  ExpectRefused("BAD_SHAPE", "observations", [](auto& t) {
    EncodeTensor(at::zeros({kSteps, 115}), t.mutable_observations());
  });
  ExpectRefused("BAD_SHAPE", "observations",
                [](auto& t) { t.clear_observations(); });
  ExpectRefused("BAD_SHAPE", "categorical",
                [](auto& t) { t.clear_categorical(); });
  ExpectRefused("BAD_SHAPE", "action_masks",
                [](auto& t) { t.mutable_action_masks()->set_shape(1, 6); });
  ExpectRefused("BAD_SHAPE", "actions", [](auto& t) {
    EncodeTensor(at::zeros({kSteps + 1, 8}).to(at::kByte), t.mutable_actions());
  });
  ExpectRefused("BAD_SHAPE", "behaviour.log_probs",
                [](auto& t) { t.mutable_behaviour()->clear_log_probs(); });
  ExpectRefused("BAD_SHAPE", "rewards", [](auto& t) {
    EncodeTensor(at::zeros({kSteps}, at::kDouble), t.mutable_rewards());
  });
  ExpectRefused("BAD_SHAPE", "policy_versions", [](auto& t) {
    EncodeTensor(at::ones({kSteps, 1}, at::kLong), t.mutable_policy_versions());
  });
  ExpectRefused("BAD_SHAPE", "contribution_mask", [](auto& t) {
    EncodeTensor(at::zeros({kSteps, 4}).to(at::kBool),
                 t.mutable_contribution_mask());
  });
}

// The wire form of the rule that inference and training numbers never mix.
TEST_F(TrajectoryCodecTest, EvaluatedNumbersNeverParseAsBehaviour) {
  v1::EvaluatedNumbers evaluated;
  evaluated.set_kind(v1::NUMBER_KIND_EVALUATED);
  EncodeTensor(at::full({kSteps, 8}, -0.25), evaluated.mutable_log_probs());
  EncodeTensor(at::full({kSteps}, 2.0), evaluated.mutable_values());
  ExpectRefused("MALFORMED_REQUEST", "behaviour", [&](auto& t) {
    ASSERT_TRUE(
        t.mutable_behaviour()->ParseFromString(evaluated.SerializeAsString()));
  });
}

TEST_F(TrajectoryCodecTest, ABatchNamesTheTrajectoryAtFault) {
  v1::TrajectoryBatch batch;
  EXPECT_THAT(DecodeTrajectories(batch, spec_, masks_),
              Refused(kInvalid, "MALFORMED_REQUEST"));
  *batch.add_trajectories() = message_;
  *batch.add_trajectories() = message_;
  const auto decoded = DecodeTrajectories(batch, spec_, masks_);
  ASSERT_OK(decoded);
  EXPECT_EQ(decoded->size(), 2u);
  batch.mutable_trajectories(1)->clear_rewards();
  const auto status = DecodeTrajectories(batch, spec_, masks_).status();
  EXPECT_EQ(DetailOf(status)->row, 1);
}

}  // namespace
}  // namespace esper::codec
