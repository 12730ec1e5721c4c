#include "proto/config/json_message.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "esper/v1/training_config.pb.h"
#include "tests/testing/status_matchers.h"

namespace esper::config {
namespace {

using ::esper::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Code = absl::StatusCode;

absl::Status Merge(const std::string& text, v1::TrainingConfig* config) {
  const auto json = ParseJson(text);
  return json.ok() ? MergeJson(*json, config) : json.status();
}

// The sentence that refuses `text`.
std::string Refusal(const std::string& text) {
  v1::TrainingConfig config;
  const absl::Status status = Merge(text, &config);
  EXPECT_THAT(status, StatusIs(Code::kInvalidArgument)) << text;
  return std::string(status.message());
}

TEST(JsonMessageTest, ReadsEveryKindOfField) {
  v1::TrainingConfig config;
  ASSERT_OK(Merge(R"(
      // A comment.
      {"$schema": "x", "profile": "upstream",
       "run": {"task": "text", "seed": 18446744073709551615,
               "collect_deadline": "1m30s", "worker_lease": 2.5},
       "ppo": {"gamma": 1, "entropy_floors": {"op": 0.25}, "ends": "every_end"},
       "learner": {"popart": false}, /* Another one. */
       "environment": {"reward": {"prune_attribution_cap": "Infinity"}},
       "policy": {"slots": ["r0c0", "r0c1"]}})",
                  &config));
  EXPECT_EQ(config.profile(), v1::PROFILE_UPSTREAM);
  EXPECT_EQ(config.run().task(), "text");
  EXPECT_EQ(config.run().seed(), 18446744073709551615ull);
  EXPECT_EQ(config.run().collect_deadline().seconds(), 90);
  EXPECT_EQ(config.run().worker_lease().nanos(), 500'000'000);
  EXPECT_EQ(config.ppo().gamma(), 1);
  EXPECT_EQ(config.ppo().entropy_floors().at("op"), 0.25);
  EXPECT_EQ(config.ppo().ends(), v1::END_HANDLING_EVERY_END);
  EXPECT_TRUE(config.learner().has_popart());
  EXPECT_FALSE(config.learner().popart());
  EXPECT_TRUE(
      std::isinf(config.environment().reward().prune_attribution_cap()));
  EXPECT_THAT(config.policy().slots(), ElementsAre("r0c0", "r0c1"));
}

TEST(JsonMessageTest, WhatItWritesItReads) {
  v1::TrainingConfig config;
  ASSERT_OK(Merge(R"({"run": {"seed": 9007199254740993, "task": "a\"b"},
                      "ppo": {"gamma": 0.1, "entropy_floors": {"a": 1, "b": 0}},
                      "environment": {"control": "off_switch", "reward":
                          {"prune_attribution_cap": "Infinity"}}})",
                  &config));
  v1::TrainingConfig again;
  ASSERT_OK(Merge(ToJson(config).dump(2), &again));
  EXPECT_EQ(ToJson(again).dump(), ToJson(config).dump());
  EXPECT_EQ(again.run().seed(), 9007199254740993ull);
}

TEST(JsonMessageTest, ObjectsAreMergedAndListsReplaced) {
  v1::TrainingConfig config;
  ASSERT_OK(Merge(R"({"ppo": {"gamma": 0.9, "clip_ratio": 0.1,
                              "entropy_floors": {"op": 0.1, "slot": 0.2}},
                      "policy": {"slots": ["r0c0", "r0c1"]}})",
                  &config));
  ASSERT_OK(Merge(R"({"ppo": {"gamma": 0.8, "entropy_floors": {"op": 0.3}},
                      "policy": {"slots": ["r1c1"]}})",
                  &config));
  EXPECT_EQ(config.ppo().gamma(), 0.8);
  EXPECT_EQ(config.ppo().clip_ratio(), 0.1);
  EXPECT_EQ(config.ppo().entropy_floors().at("op"), 0.3);
  EXPECT_EQ(config.ppo().entropy_floors().at("slot"), 0.2);
  EXPECT_EQ(config.ppo().entropy_floors().size(), 2);
  EXPECT_THAT(config.policy().slots(), ElementsAre("r1c1"));
}

TEST(JsonMessageTest, AnUnknownFieldIsRefusedWithTheNearestName) {
  EXPECT_THAT(Refusal(R"({"ppo": {"gama": 0.9}})"),
              HasSubstr("ppo.gama is unknown; the nearest is ppo.gamma"));
  EXPECT_THAT(Refusal(R"({"environment": {"reward": {"rent_wieght": 0.9}}})"),
              HasSubstr("the nearest is environment.reward.rent_weight"));
  // Known, and elsewhere.
  EXPECT_THAT(Refusal(R"({"clip_ratio": 0.9})"),
              HasSubstr("the nearest is ppo.clip_ratio"));
  EXPECT_THAT(Refusal(R"({"profil": "default"})"),
              HasSubstr("the nearest is profile"));
}

TEST(JsonMessageTest, AWrongTypeIsRefusedWithTheRightOne) {
  EXPECT_THAT(Refusal(R"({"ppo": {"gamma": "high"}})"),
              HasSubstr("ppo.gamma must be a number, got \"high\""));
  EXPECT_THAT(Refusal(R"({"ppo": {"gamma": null}})"),
              HasSubstr("ppo.gamma is null"));
  EXPECT_THAT(Refusal(R"({"ppo": 3})"), HasSubstr("ppo must be an object"));
  EXPECT_THAT(Refusal(R"({"run": {"max_epochs": 1.5}})"),
              HasSubstr("run.max_epochs must be a whole number"));
  EXPECT_THAT(Refusal(R"({"run": {"max_epochs": 3000000000}})"),
              HasSubstr("2147483647"));
  EXPECT_THAT(Refusal(R"({"run": {"seed": -1}})"), HasSubstr("run.seed"));
  EXPECT_THAT(Refusal(R"({"run": {"task": 3}})"), HasSubstr("a text"));
  EXPECT_THAT(Refusal(R"({"run": {"worker_lease": "soon"}})"),
              HasSubstr("a duration like"));
  EXPECT_THAT(Refusal(R"({"learner": {"popart": 1}})"),
              HasSubstr("true or false"));
  EXPECT_THAT(Refusal(R"({"policy": {"slots": "r0c0"}})"),
              HasSubstr("policy.slots must be a list"));
  EXPECT_THAT(Refusal(R"({"policy": {"slots": ["r0c0", 1]}})"),
              HasSubstr("policy.slots[1]"));
  EXPECT_THAT(Refusal(R"({"ppo": {"entropy_floors": {"op": "x"}}})"),
              HasSubstr("ppo.entropy_floors.op"));
  EXPECT_THAT(Refusal(R"({"policy": {"floor": "mixtrue"}})"),
              HasSubstr("one of: none, upstream, mixture"));
  EXPECT_THAT(Refusal(R"({"policy": {"floor": "mixtrue"}})"),
              HasSubstr("The nearest is mixture"));
  EXPECT_THAT(Refusal(R"({"policy": {"floor": "unspecified"}})"),
              HasSubstr("one of"));
}

TEST(JsonMessageTest, BrokenTextIsRefusedWithItsPlace) {
  EXPECT_THAT(Refusal("{\"run\": {\n \"seed\": }}"), HasSubstr("line 2"));
  EXPECT_THAT(Refusal("[1]"), HasSubstr("must be an object"));
  EXPECT_THAT(Refusal(R"({"ppo": {"gamma": 1, "gamma": 0.9}})"),
              HasSubstr("gamma stands twice"));
  // The same name in two objects is fine.
  v1::TrainingConfig config;
  EXPECT_OK(Merge(R"({"ppo": {"gamma": 1},
                      "environment": {"reward": {"gamma": 0.995}}})",
                  &config));
}

TEST(JsonMessageTest, ReadsProtoText) {
  const auto json = ParseProtoText(
      "profile: PROFILE_UPSTREAM  # A comment.\n"
      "ppo { gamma: 0.9 entropy_floors { key: \"op\" value: 0.1 } }\n"
      "policy { slots: \"r0c0\" }",
      v1::TrainingConfig());
  ASSERT_OK(json);
  EXPECT_EQ(json->dump(),
            R"({"profile":"upstream","ppo":{"gamma":0.9,"entropy_floors":)"
            R"({"op":0.1}},"policy":{"slots":["r0c0"]}})");
  const auto bad =
      ParseProtoText("ppo {\n  gama: 0.9\n}", v1::TrainingConfig());
  EXPECT_THAT(bad, StatusIs(Code::kInvalidArgument));
  EXPECT_THAT(std::string(bad.status().message()), HasSubstr("line 2"));
  EXPECT_THAT(std::string(bad.status().message()),
              HasSubstr("The nearest is gamma"));
}

}  // namespace
}  // namespace esper::config
