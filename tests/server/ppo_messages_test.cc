#include "server/ppo_messages.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/ppo/options_json.h"
#include "nlohmann/json.hpp"
#include "proto/config/training_config.h"
#include "tests/testing/status_matchers.h"

namespace esper::server {
namespace {

using ::esper::testing::Refused;
using Code = absl::StatusCode;

v1::TrainingConfig ConfigOf(const std::string& profile,
                            std::vector<std::string> assignments = {}) {
  config::ConfigSources sources;
  sources.profile = profile;
  sources.assignments = std::move(assignments);
  return config::LoadConfig(sources).value();
}

template <typename Options>
std::string Text(const Options& options) {
  return ppo::ToJson(options).dump(1);
}

// One field expands to every switch, and nothing else moves.
TEST(ProfileTest, MapsToExactlyTheSettingsOfTheCore) {
  const v1::TrainingConfig upstream = ConfigOf("upstream");
  EXPECT_EQ(Text(*DecodePpoLoss(upstream.ppo(), upstream.profile())),
            Text(ppo::PpoOptions::Upstream()));
  EXPECT_EQ(Text(*DecodeLearnerConfig(upstream.learner(), upstream.profile())),
            Text(ppo::LearnerConfig::Upstream()));
  policy::NetworkGrowingOptions options;
  options.floor_mode = policy::FloorMode::kUpstream;
  EXPECT_EQ(DecodePolicyConfig(upstream.policy(), upstream.profile())->Digest(),
            policy::PolicySpec::NetworkGrowing(options).Digest());

  const v1::TrainingConfig standard = ConfigOf("default");
  EXPECT_EQ(Text(*DecodePpoLoss(standard.ppo(), standard.profile())),
            Text(ppo::PpoOptions()));
  EXPECT_EQ(Text(*DecodeLearnerConfig(standard.learner(), standard.profile())),
            Text(ppo::LearnerConfig()));
  EXPECT_EQ(DecodePolicyConfig(standard.policy(), standard.profile())->Digest(),
            policy::PolicySpec::NetworkGrowing().Digest());
}

// The same where the client sends the profile alone.
TEST(ProfileTest, IsWhatUnsetFieldsMean) {
  EXPECT_EQ(Text(*DecodePpoLoss({}, v1::PROFILE_UPSTREAM)),
            Text(ppo::PpoOptions::Upstream()));
  EXPECT_EQ(Text(*DecodePpoLoss({}, v1::PROFILE_UNSPECIFIED)),
            Text(ppo::PpoOptions()));
  EXPECT_EQ(Text(*DecodeLearnerConfig({}, v1::PROFILE_UPSTREAM)),
            Text(ppo::LearnerConfig::Upstream()));
}

// A field that the mapping forgot would leave the options as they were.
TEST(PpoMessagesTest, EveryFieldOfTheLossReachesTheOptions) {
  const auto* type = v1::PpoLoss::descriptor();
  for (int i = 0; i < type->field_count(); ++i) {
    const auto& field = *type->field(i);
    std::string value = "0.123";
    if (field.is_map()) value = "{\"op\": 0.123}";
    if (field.enum_type() != nullptr) {
      value = field.name() == "ratio_denominator" ? "anchor" : "upstream";
    }
    if (field.cpp_type() == field.CPPTYPE_INT64) value = "7";
    v1::PpoLoss loss;
    const auto json = config::ParseJson(
        "{\"" + field.name() + "\": " +
        (field.enum_type() == nullptr ? value : "\"" + value + "\"") + "}");
    ASSERT_OK(config::MergeJson(*json, &loss));
    const auto options = DecodePpoLoss(loss, v1::PROFILE_DEFAULT);
    ASSERT_OK(options);
    EXPECT_NE(Text(*options), Text(ppo::PpoOptions())) << field.name();
    ppo::LossOptions used;
    used.clip_ratio = options->clip_ratio;
    used.value_coef = options->value.target;
    used.entropy_coef = options->entropy.fixed;
    used.contribution_coef = options->contribution.coefficient;
    const v1::PpoLoss echoed = EncodePpoLoss(*options, used);
    EXPECT_EQ(config::ToJson(echoed)[field.name()].is_null(), false);
    EXPECT_EQ(Text(*DecodePpoLoss(echoed, v1::PROFILE_DEFAULT)), Text(*options))
        << field.name();
  }
}

TEST(PpoMessagesTest, EveryFieldOfTheLearnerReachesItAndComesBack) {
  const auto* type = v1::LearnerConfig::descriptor();
  const config::Json defaults =
      config::ToJson(EncodeLearnerConfig(ppo::LearnerConfig()));
  for (int i = 0; i < type->field_count(); ++i) {
    const std::string& name = type->field(i)->name();
    ASSERT_TRUE(defaults.contains(name)) << name;
    config::Json changed = defaults;
    config::Json& value = changed[name];
    if (value.is_boolean()) {
      value = !value.get<bool>();
    } else if (value.is_string()) {
      value = "upstream";
    } else if (type->field(i)->cpp_type() == type->field(i)->CPPTYPE_DOUBLE) {
      value = name.find("rows") == std::string::npos ? 0.123 : 77.0;
    } else {
      value = 7;
    }
    v1::LearnerConfig message;
    ASSERT_OK(config::MergeJson(changed, &message));
    const auto config = DecodeLearnerConfig(message, v1::PROFILE_DEFAULT);
    ASSERT_OK(config);
    EXPECT_NE(Text(*config), Text(ppo::LearnerConfig())) << name;
    EXPECT_EQ(config::ToJson(EncodeLearnerConfig(*config)).dump(),
              changed.dump())
        << name;
  }
}

TEST(PpoMessagesTest, NamedHeadsOverrideAndOthersStay) {
  v1::PpoLoss loss;
  (*loss.mutable_entropy_floors())["op"] = 0;
  const auto options = DecodePpoLoss(loss, v1::PROFILE_DEFAULT);
  ASSERT_OK(options);
  EXPECT_EQ(options->entropy_floors.at("op"), 0);
  EXPECT_EQ(options->entropy_floors.at("slot"), 0.15);
}

TEST(PpoMessagesTest, ATargetOfZeroNeverStops) {
  v1::PpoLoss loss;
  loss.set_target_kl(0);
  EXPECT_FALSE(DecodePpoLoss(loss, v1::PROFILE_DEFAULT)->target_kl);
}

TEST(PpoMessagesTest, RefusesWhatIsOutOfRange) {
  v1::PpoLoss loss;
  loss.set_reward_clip(-1);
  EXPECT_THAT(DecodePpoLoss(loss, v1::PROFILE_DEFAULT),
              Refused(Code::kInvalidArgument, "MALFORMED_REQUEST"));
  v1::LearnerConfig learner;
  learner.set_exact_rows(0);
  EXPECT_THAT(DecodeLearnerConfig(learner, v1::PROFILE_DEFAULT),
              Refused(Code::kInvalidArgument, "MALFORMED_REQUEST"));
  v1::PolicyConfig policy;
  policy.set_hidden_dim(4);
  EXPECT_THAT(DecodePolicyConfig(policy, v1::PROFILE_DEFAULT),
              Refused(Code::kInvalidArgument, "MALFORMED_REQUEST"));
}

TEST(PpoMessagesTest, ThePolicyHasTheSlotsAndWidths) {
  const v1::TrainingConfig config =
      ConfigOf("default", {"policy.slots=[\"r0c1\",\"r1c1\"]",
                           "policy.hidden_dim=64", "policy.feature_dim=32",
                           "policy.lstm_layers=2", "policy.floor=none"});
  const auto spec = DecodePolicyConfig(config.policy(), config.profile());
  ASSERT_OK(spec);
  EXPECT_THAT(spec->slot_ids, ::testing::ElementsAre("r0c1", "r1c1"));
  EXPECT_EQ(spec->hidden_dim, 64);
  EXPECT_EQ(spec->feature_dim, 32);
  EXPECT_EQ(spec->lstm_layers, 2);
  EXPECT_EQ(spec->floor_mode, policy::FloorMode::kNone);
}

}  // namespace
}  // namespace esper::server
