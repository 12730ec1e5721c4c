// Specifications with Gaussian heads, and the plain ones made for them.
#include <functional>
#include <limits>

#include "core/policy/policy_spec.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/core/policy/test_specs.h"
#include "tests/testing/status_matchers.h"

namespace esper::policy {
namespace {

using ::esper::testing::Refused;
using Json = nlohmann::json;

constexpr absl::StatusCode kInvalid = absl::StatusCode::kInvalidArgument;

// Recorded before there was a second kind of head: weights and episodes of
// those policies must stay theirs.
TEST(GaussianSpecTest, DigestsOfCategoricalPoliciesStay) {
  EXPECT_EQ(PolicySpec::NetworkGrowing().Digest(),
            "993ec8609ea57fd44a2750337ab34381cd4bbb87b597c7e839c3878c3146053d");
  NetworkGrowingOptions options;
  options.floor_mode = FloorMode::kUpstream;
  options.slot_ids = {"a"};
  EXPECT_EQ(PolicySpec::NetworkGrowing(options).Digest(),
            "261800bd3bf80b9ca44cac8b691f2dc746bcee73470ed5a8bc4eb43fb785cb33");
}

TEST(GaussianSpecTest, SurvivesJson) {
  for (const PolicySpec& spec : GaussianTestSpecs()) {
    ASSERT_OK(spec.Validate());
    const auto again = PolicySpec::FromJson(spec.ToJson());
    ASSERT_OK(again);
    EXPECT_TRUE(*again == spec) << spec.ToJson();
    EXPECT_EQ(again->Digest(), spec.Digest());
  }
}

TEST(GaussianSpecTest, JsonNamesTheKindOfGaussianHeadsOnly) {
  Json json = Json::parse(Hybrid().ToJson());
  EXPECT_EQ(json["heads"][0]["kind"], "gaussian");
  EXPECT_FALSE(json["heads"][0].contains("floor"));
  EXPECT_FALSE(json["heads"][1].contains("kind"));
  EXPECT_FALSE(json["heads"][1].contains("low"));
  // Said all the same, it means the same.
  json["heads"][1]["kind"] = "categorical";
  const auto again = PolicySpec::FromJson(json.dump());
  ASSERT_OK(again);
  EXPECT_EQ(again->Digest(), Hybrid().Digest());

  const std::vector<std::function<void(Json&)>> changes = {
      [](Json& j) { j["heads"][0]["kind"] = "beta"; },
      [](Json& j) { j["heads"][0]["kind"] = 1; },
      [](Json& j) { j["heads"][0]["floor"] = 0; },
      [](Json& j) { j["heads"][0].erase("initial_log_std"); },
      [](Json& j) { j["heads"][0]["low"] = nullptr; },
      [](Json& j) { j["heads"][1]["low"] = Json::array(); }};
  for (size_t i = 0; i < changes.size(); ++i) {
    Json changed = Json::parse(Hybrid().ToJson());
    changes[i](changed);
    EXPECT_THAT(PolicySpec::FromJson(changed.dump()),
                Refused(kInvalid, "BAD_SPEC"))
        << "change " << i;
  }
}

TEST(GaussianSpecTest, DigestSeesEveryField) {
  const PolicySpec spec = PlainBox();
  const std::vector<std::function<void(HeadSpec&)>> changes = {
      [](HeadSpec& h) { h.initial_log_std = -1; },
      [](HeadSpec& h) { h.low[1] = -2; }, [](HeadSpec& h) { h.high[2] = 6; },
      [](HeadSpec& h) { h.entropy_coef = 1; },
      [](HeadSpec& h) {
        h.labels = {"x", "y", "z"};
      }};
  for (size_t i = 0; i < changes.size(); ++i) {
    PolicySpec changed = spec;
    changes[i](changed.heads[0]);
    ASSERT_OK(changed.Validate());
    EXPECT_NE(changed.Digest(), spec.Digest()) << "change " << i;
    EXPECT_FALSE(changed == spec) << "change " << i;
  }
}

TEST(GaussianSpecTest, WidthsCountEachKind) {
  const PolicySpec spec = Hybrid();
  EXPECT_EQ(spec.action_width(), 7);
  EXPECT_EQ(spec.continuous_width(), 8);
  EXPECT_EQ(PlainBox().action_width(), 0);
  EXPECT_EQ(PolicySpec::NetworkGrowing().continuous_width(), 0);
}

TEST(GaussianSpecTest, RefusesWhatOnlyTheOtherKindHas) {
  const double infinity = std::numeric_limits<double>::infinity();
  const std::vector<std::function<void(PolicySpec&)>> changes = {
      [](PolicySpec& s) { s.heads[0].floor = 0.1; },
      [](PolicySpec& s) { s.heads[0].idle_choice = 0; },
      [](PolicySpec& s) { s.heads[0].placeholder = 0; },
      [](PolicySpec& s) { s.heads[0].conditional_mask = true; },
      [](PolicySpec& s) { s.heads[0].initial_log_std = 3; },
      [](PolicySpec& s) { s.heads[0].initial_log_std = std::nan(""); },
      [](PolicySpec& s) {
        s.heads[0].low = {0, 0};
      },
      [](PolicySpec& s) { s.heads[0].low = s.heads[0].high = {0}; },
      [](PolicySpec& s) {
        s.heads[0].low = {0, 0};
        s.heads[0].high = {1, 0};
      },
      [infinity](PolicySpec& s) {
        s.heads[0].low = {0, -infinity};
        s.heads[0].high = {1, 0};
      },
      [](PolicySpec& s) { s.heads[1].initial_log_std = -1; },
      [](PolicySpec& s) {
        s.heads[1].low = s.heads[1].high = {0, 0, 0, 0};
      },
      [](PolicySpec& s) { s.q_head = "speed"; },
      [](PolicySpec& s) {
        s.heads[0].driver = "speed";
        s.heads[0].relevant_when = {0};
      }};
  for (size_t i = 0; i < changes.size(); ++i) {
    PolicySpec spec = Hybrid();
    changes[i](spec);
    EXPECT_THAT(spec.Validate(), Refused(kInvalid, "BAD_SPEC"))
        << "change " << i;
  }
  EXPECT_THAT(Hybrid().FloorsFrom(FloorMode::kMixture, {{"aim", 0.1}}),
              Refused(kInvalid, "BAD_FLOOR"));
  EXPECT_OK(Hybrid().FloorsFrom(FloorMode::kMixture, {{"mode", 0.1}}));
}

TEST(PlainSpecTest, PutsDriversFirstAndLeavesTheRestInOrder) {
  const PolicySpec spec = Hybrid();
  EXPECT_EQ(spec.sampling_order,
            (std::vector<std::string>{"speed", "mode", "aim", "tool", "grip"}));
  EXPECT_OK(PolicySpec::Plain(3, {HeadSpec::Categorical("a", 2),
                                  HeadSpec::Categorical("b", 5)})
                .Validate());
}

TEST(PlainSpecTest, RefusesHeadsThatCannotBeOrdered) {
  HeadSpec a = HeadSpec::Categorical("a", 2), b = HeadSpec::Categorical("b", 2);
  a.driver = "b";
  b.driver = "a";
  EXPECT_THAT(PolicySpec::Plain(3, {a, b}).Validate(),
              Refused(kInvalid, "BAD_SPEC"));
  EXPECT_THAT(PolicySpec::Plain(0, {HeadSpec::Categorical("a", 2)}).Validate(),
              Refused(kInvalid, "BAD_SPEC"));
}

}  // namespace
}  // namespace esper::policy
