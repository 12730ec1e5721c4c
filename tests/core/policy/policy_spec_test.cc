#include "core/policy/policy_spec.h"

#include <cmath>
#include <functional>
#include <set>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/testing/status_matchers.h"

namespace esper::policy {
namespace {

using ::esper::testing::Refused;
using Json = nlohmann::json;

constexpr absl::StatusCode kInvalid = absl::StatusCode::kInvalidArgument;

TEST(PolicySpecTest, DescribesTheNetworkGrowingPolicy) {
  const PolicySpec spec = PolicySpec::NetworkGrowing();
  ASSERT_OK(spec.Validate());
  EXPECT_EQ(spec.observation_width(), 116);
  EXPECT_EQ(spec.action_width(), 41);
  EXPECT_EQ(spec.num_heads(), 8);
  EXPECT_EQ(spec.HeadIndex("slot"), 0);
  EXPECT_EQ(spec.HeadIndex("op"), 7);
  EXPECT_EQ(spec.HeadIndex("absent"), -1);
  EXPECT_EQ(spec.ConditionalHead(), 0);
  EXPECT_EQ(spec.DriverOf(1), 7);
  EXPECT_EQ(spec.DriverOf(7), -1);
  EXPECT_EQ(spec.sampling_order.front(), "op");
  EXPECT_EQ(spec.heads[0].labels, spec.slot_ids);
  EXPECT_EQ(spec.heads[7].labels[1], "GERMINATE");
}

TEST(PolicySpecTest, FollowsTheNumberOfSlots) {
  for (const int slots : {1, 5, 9}) {
    NetworkGrowingOptions options;
    options.slot_ids.clear();
    for (int i = 0; i < slots; ++i) {
      options.slot_ids.push_back("r0c" + std::to_string(i));
    }
    const PolicySpec spec = PolicySpec::NetworkGrowing(options);
    ASSERT_OK(spec.Validate());
    EXPECT_EQ(spec.observation_width(), 23 + 31 * slots);
    EXPECT_EQ(spec.action_width(), 38 + slots);
    EXPECT_EQ(spec.contribution_outputs, slots);
  }
}

TEST(PolicySpecTest, GivesEveryFloorModeItsFloors) {
  NetworkGrowingOptions options;
  options.floor_mode = FloorMode::kUpstream;
  const PolicySpec upstream = PolicySpec::NetworkGrowing(options);
  EXPECT_EQ(
      upstream.Floors().floors,
      (std::vector<double>{0.05, 0.12, 0.08, 0.12, 0.08, 0.06, 0.06, 0.15}));
  for (const double floor : PolicySpec::NetworkGrowing().Floors().floors) {
    EXPECT_GT(floor, 0);
    EXPECT_LE(floor, 0.01);
  }
  NetworkGrowingOptions exact;
  exact.floor_mode = FloorMode::kExact;
  EXPECT_EQ(PolicySpec::NetworkGrowing(exact).Floors().floors,
            PolicySpec::NetworkGrowing(options).Floors().floors);
  options.floor_mode = FloorMode::kNone;
  for (const double floor : PolicySpec::NetworkGrowing(options).Floors().floors)
    EXPECT_EQ(floor, 0);
}

TEST(PolicySpecTest, RefusesUnknownHeadsAndFloorsOutOfRange) {
  const PolicySpec spec = PolicySpec::NetworkGrowing();
  EXPECT_THAT(spec.FloorsFrom(FloorMode::kUpstream, {{"opp", 0.1}}),
              Refused(kInvalid, "BAD_FLOOR"));
  for (const double floor : {-0.1, 1.0, std::nan("")}) {
    EXPECT_THAT(spec.FloorsFrom(FloorMode::kMixture, {{"op", floor}}),
                Refused(kInvalid, "BAD_FLOOR"));
  }
  const auto floors = spec.FloorsFrom(FloorMode::kMixture, {{"op", 0.2}});
  ASSERT_OK(floors);
  EXPECT_EQ(floors->floors[7], 0.2);
  EXPECT_EQ(floors->floors[0], 0);
}

TEST(PolicySpecTest, SurvivesJson) {
  const PolicySpec spec = PolicySpec::NetworkGrowing();
  const auto again = PolicySpec::FromJson(spec.ToJson());
  ASSERT_OK(again);
  EXPECT_TRUE(*again == spec);
  EXPECT_EQ(again->Digest(), spec.Digest());
}

TEST(PolicySpecTest, EveryFloorModeHasANameAndADigestOfItsOwn) {
  std::set<std::string> digests;
  for (const FloorMode mode : {FloorMode::kNone, FloorMode::kUpstream,
                               FloorMode::kExact, FloorMode::kMixture}) {
    PolicySpec spec = PolicySpec::NetworkGrowing();
    spec.floor_mode = mode;
    const auto again = PolicySpec::FromJson(spec.ToJson());
    ASSERT_OK(again) << FloorModeName(mode);
    EXPECT_EQ(again->floor_mode, mode);
    digests.insert(spec.Digest());
  }
  EXPECT_EQ(digests.size(), 4);
  auto json = nlohmann::json::parse(PolicySpec::NetworkGrowing().ToJson());
  json["floor_mode"] = "exactly";
  const auto refused = PolicySpec::FromJson(json.dump());
  EXPECT_THAT(refused, Refused(kInvalid, "BAD_SPEC"));
  EXPECT_EQ(DetailOf(refused.status())->field, "floor_mode");
}

TEST(PolicySpecTest, DigestIsStableUnderFieldOrderAndSpacing) {
  const PolicySpec spec = PolicySpec::NetworkGrowing();
  const auto reordered = nlohmann::ordered_json::parse(spec.ToJson());
  nlohmann::ordered_json reversed;
  for (auto it = reordered.rbegin(); it != reordered.rend(); ++it) {
    reversed[it.key()] = it.value();
  }
  const auto again = PolicySpec::FromJson(reversed.dump(2));
  ASSERT_OK(again);
  EXPECT_EQ(again->Digest(), spec.Digest());
  EXPECT_EQ(spec.Digest().size(), 64);
}

TEST(PolicySpecTest, DigestSeesEveryField) {
  const PolicySpec spec = PolicySpec::NetworkGrowing();
  const std::vector<std::function<void(PolicySpec&)>> changes = {
      [](PolicySpec& s) { s.name = "other"; },
      [](PolicySpec& s) { s.observation[0].name = "base"; },
      [](PolicySpec& s) { s.categorical->width = 5; },
      [](PolicySpec& s) { s.heads[7].floor = 0.02; },
      [](PolicySpec& s) { s.heads[1].entropy_coef = 1; },
      [](PolicySpec& s) { s.heads[1].placeholder = 1; },
      [](PolicySpec& s) {
        s.heads[1].relevant_when = {1, 2};
      },
      [](PolicySpec& s) { s.heads[0].conditional_mask = false; },
      [](PolicySpec& s) { s.heads[7].idle_choice = -1; },
      [](PolicySpec& s) { s.heads[2].hidden = {128}; },
      [](PolicySpec& s) { s.heads[2].final_gain = 0.1; },
      [](PolicySpec& s) {
        std::swap(s.sampling_order[6], s.sampling_order[7]);
      },
      [](PolicySpec& s) { s.slot_ids[2] = "r1c0"; },
      [](PolicySpec& s) { s.lstm_layers = 2; },
      [](PolicySpec& s) { s.floor_mode = FloorMode::kUpstream; },
      [](PolicySpec& s) { s.mask_optional = true; }};
  for (size_t i = 0; i < changes.size(); ++i) {
    PolicySpec changed = spec;
    changes[i](changed);
    EXPECT_NE(changed.Digest(), spec.Digest()) << "change " << i;
    EXPECT_FALSE(changed == spec) << "change " << i;
  }
}

TEST(PolicySpecTest, RefusesUnknownMissingAndMistypedFields) {
  const Json good = Json::parse(PolicySpec::NetworkGrowing().ToJson());
  const std::vector<std::function<void(Json&)>> changes = {
      [](Json& j) { j["temperature"] = 1; },
      [](Json& j) { j["heads"][0]["colour"] = "red"; },
      [](Json& j) { j["categorical"]["null"] = 13; },
      [](Json& j) { j["observation"][0]["offset"] = 0; },
      [](Json& j) { j.erase("hidden_dim"); },
      [](Json& j) { j["heads"][3].erase("floor"); },
      [](Json& j) { j["hidden_dim"] = "512"; },
      [](Json& j) { j["hidden_dim"] = 512.5; },
      [](Json& j) { j["heads"] = 8; },
      [](Json& j) { j["floor_mode"] = "soft"; },
      [](Json& j) { j["format_version"] = 2; }};
  for (size_t i = 0; i < changes.size(); ++i) {
    Json json = good;
    changes[i](json);
    EXPECT_THAT(PolicySpec::FromJson(json.dump()),
                Refused(kInvalid, "BAD_SPEC"))
        << "change " << i;
  }
  EXPECT_THAT(PolicySpec::FromJson("{"), Refused(kInvalid, "BAD_SPEC"));
  EXPECT_THAT(PolicySpec::FromJson("[]"), Refused(kInvalid, "BAD_SPEC"));
}

TEST(PolicySpecTest, RefusesWhatCannotWork) {
  const std::vector<std::function<void(PolicySpec&)>> changes = {
      [](PolicySpec& s) { s.heads.clear(); },
      [](PolicySpec& s) { s.heads[0].size = 0; },
      [](PolicySpec& s) { s.heads[1].name = "slot"; },
      [](PolicySpec& s) { s.heads[1].name = "state_value"; },
      [](PolicySpec& s) { s.heads[1].name = "a.b"; },
      [](PolicySpec& s) { s.heads[1].driver = "absent"; },
      [](PolicySpec& s) { s.heads[1].relevant_when = {6}; },
      [](PolicySpec& s) { s.heads[1].placeholder = 13; },
      [](PolicySpec& s) { s.heads[1].conditional_mask = true; },
      [](PolicySpec& s) { s.heads[1].floor = 1; },
      [](PolicySpec& s) { s.heads[1].labels.pop_back(); },
      [](PolicySpec& s) { s.heads[7].relevant_when = {0}; },
      // A cycle of drivers has no order that puts drivers first.
      [](PolicySpec& s) { s.heads[7].driver = "slot"; },
      [](PolicySpec& s) { s.sampling_order.pop_back(); },
      [](PolicySpec& s) { s.sampling_order[1] = "op"; },
      [](PolicySpec& s) {
        std::swap(s.sampling_order[0], s.sampling_order[1]);
      },
      [](PolicySpec& s) { s.observation[1].name = "host"; },
      [](PolicySpec& s) { s.observation[1].width = 0; },
      [](PolicySpec& s) { s.categorical->cardinality = 0; },
      [](PolicySpec& s) { s.slot_ids[1] = s.slot_ids[0]; },
      [](PolicySpec& s) { s.hidden_dim = 4; },
      [](PolicySpec& s) { s.lstm_layers = 0; },
      [](PolicySpec& s) { s.q_head = "absent"; }};
  for (size_t i = 0; i < changes.size(); ++i) {
    PolicySpec spec = PolicySpec::NetworkGrowing();
    changes[i](spec);
    EXPECT_THAT(spec.Validate(), Refused(kInvalid, "BAD_SPEC"))
        << "change " << i;
  }
}

}  // namespace
}  // namespace esper::policy
