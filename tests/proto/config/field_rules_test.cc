#include "proto/config/field_rules.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "absl/strings/ascii.h"
#include "esper/v1/training_config.pb.h"
#include "tests/testing/status_matchers.h"

namespace esper::config {
namespace {

using ::esper::testing::Refused;
using ::testing::HasSubstr;
using Code = absl::StatusCode;

TEST(CheckFieldsTest, AcceptsTheEndsOfARangeThatAreIn) {
  v1::PpoLoss loss;
  EXPECT_OK(CheckFields(loss, "ppo"));
  loss.set_gamma(1);
  loss.set_value_coef(0);
  loss.set_ends(v1::END_HANDLING_UPSTREAM);
  (*loss.mutable_entropy_floors())["op"] = 1;
  EXPECT_OK(CheckFields(loss, "ppo"));
}

TEST(CheckFieldsTest, NamesTheFieldItsValueAndTheRange) {
  v1::PpoLoss loss;
  loss.set_gamma(1.5);
  const absl::Status status = CheckFields(loss, "ppo");
  EXPECT_THAT(status, Refused(Code::kInvalidArgument, "MALFORMED_REQUEST"));
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("ppo.gamma = 1.5 is not in (0, 1]"));
  EXPECT_EQ(DetailOf(status)->field, "ppo.gamma");
}

TEST(CheckFieldsTest, RefusesWhatIsOutOfRange) {
  const auto refused = [](auto change, const std::string& words) {
    v1::TrainingConfig config;
    change(&config);
    const absl::Status status = CheckFields(config, "");
    EXPECT_THAT(status, Refused(Code::kInvalidArgument, "MALFORMED_REQUEST"));
    EXPECT_THAT(std::string(status.message()), HasSubstr(words));
  };
  using C = v1::TrainingConfig;
  refused([](C* c) { c->mutable_ppo()->set_gamma(0); }, "ppo.gamma = 0");
  refused([](C* c) { c->mutable_ppo()->set_gamma(std::nan("")); }, "ppo.gamma");
  refused([](C* c) { c->mutable_ppo()->set_clip_ratio(INFINITY); }, "(0, inf)");
  refused([](C* c) { c->mutable_learner()->set_beta1(1); }, "[0, 1)");
  refused([](C* c) { c->mutable_update()->set_passes(0); },
          "update.passes = 0 is not in [1, inf)");
  refused([](C* c) { c->mutable_learner()->set_max_version_lag(-1); },
          "learner.max_version_lag = -1");
  refused(
      [](C* c) { (*c->mutable_ppo()->mutable_entropy_floors())["op"] = -0.1; },
      "ppo.entropy_floors.op = -0.1 is not in [0, 1]");
  refused(
      [](C* c) { c->mutable_run()->mutable_worker_lease()->set_nanos(500); },
      "run.worker_lease");
  refused([](C* c) { c->set_profile(v1::PROFILE_UNSPECIFIED); },
          "profile = 0 is none of default, upstream");
  refused([](C* c) { c->set_profile(static_cast<v1::Profile>(9)); },
          "profile = 9");
}

TEST(CheckFieldsTest, InfinityIsForFieldsThatAllowIt) {
  v1::RewardConfig reward;
  reward.set_prune_attribution_cap(INFINITY);
  EXPECT_OK(CheckFields(reward, ""));
  reward.set_prune_attribution_cap(-INFINITY);
  EXPECT_FALSE(CheckFields(reward, "").ok());
}

TEST(ChoiceNameTest, IsTheValueWithoutItsTypesName) {
  const auto* type = v1::RewardConfig::RewardMode_descriptor();
  EXPECT_EQ(ChoiceName(*type->FindValueByName("REWARD_MODE_BASIC_PLUS")),
            "basic_plus");
  EXPECT_EQ(Choices(*v1::Profile_descriptor()), "default, upstream");
}

// A rule that no number can meet, or a choice without a prefix, would be a
// mistake in the .proto.
void CheckType(const google::protobuf::Descriptor& type) {
  for (int i = 0; i < type.field_count(); ++i) {
    const auto& field = *type.field(i);
    if (field.enum_type() != nullptr) {
      EXPECT_THAT(Choices(*field.enum_type()), ::testing::Not(HasSubstr(" ,")));
      for (int v = 0; v < field.enum_type()->value_count(); ++v) {
        const auto& value = *field.enum_type()->value(v);
        EXPECT_NE(absl::AsciiStrToLower(value.name()), ChoiceName(value));
      }
    }
    if (field.message_type() != nullptr && !field.is_map() &&
        field.message_type()->file() == type.file()) {
      CheckType(*field.message_type());
    }
  }
}

TEST(ChoiceNameTest, EveryChoiceOfTheConfigurationHasOne) {
  CheckType(*v1::TrainingConfig::descriptor());
  CheckType(*v1::PpoLoss::descriptor());
}

}  // namespace
}  // namespace esper::config
