#include "client/ctl/commands.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "client/status.h"
#include "nlohmann/json.hpp"
#include "tests/client/testing/fake_policy_server.h"
#include "tests/testing/status_matchers.h"

namespace esper::client {
namespace {

using ::esper::testing::StatusIs;
using testing::FakePolicyServer;
using testing::FastRetry;
using ::testing::HasSubstr;
using Code = absl::StatusCode;

class CommandsTest : public ::testing::Test {
 protected:
  absl::StatusOr<std::string> Run(const std::vector<std::string>& arguments,
                                  bool json = false) {
    return Commands(policy_, admin_, json).Run(arguments);
  }
  nlohmann::json Json(const std::vector<std::string>& arguments) {
    return nlohmann::json::parse(Run(arguments, /*json=*/true).value());
  }

  FakePolicyServer server_;
  PolicyClient policy_{server_.Channel(), FastRetry()};
  AdminClient admin_{server_.Channel(), FastRetry()};
};

TEST_F(CommandsTest, StatusIsATableOrJson) {
  server_.inference.version = 4;
  const std::string table = Run({"status"}).value();
  EXPECT_THAT(table, HasSubstr("policy_version       4\n"));
  EXPECT_THAT(table, HasSubstr("checkpoints          v1 v2\n"));
  EXPECT_THAT(table, HasSubstr("refusals\n  QUEUE_FULL  3\n"));
  EXPECT_THAT(table, HasSubstr("ratio_check_max      -\n"));
  const nlohmann::json json = Json({"status"});
  EXPECT_EQ(json["actions_served"], 77);
  EXPECT_EQ(json["refusals"]["QUEUE_FULL"], 3);
  EXPECT_TRUE(json["ratio_check_max"].is_null());
}

TEST_F(CommandsTest, PolicyShowsHeadsAndLimits) {
  const std::string table = Run({"policy"}).value();
  EXPECT_THAT(table, HasSubstr("slot:3 op:6"));
  EXPECT_THAT(table, HasSubstr("max_rows_per_call      64"));
  EXPECT_EQ(Json({"policy"})["spec"]["heads"][1]["name"], "op");
}

TEST_F(CommandsTest, SavesAndRestores) {
  EXPECT_THAT(Run({"save", "good"}).value(), HasSubstr("good"));
  EXPECT_EQ(Json({"save"})["checkpoint"], "v1");
  server_.inference.version = 9;
  EXPECT_EQ(Json({"restore", "good"})["policy_version"], 1);
  EXPECT_EQ(server_.inference.version, 1);
  const auto unknown = Run({"restore", "bad"});
  EXPECT_THAT(unknown, StatusIs(Code::kNotFound));
  EXPECT_THAT(Describe(unknown.status()), HasSubstr("UNKNOWN_CHECKPOINT"));
}

TEST_F(CommandsTest, RefusesWhatIsNoCommand) {
  EXPECT_THAT(Run({"sTatus"}), StatusIs(Code::kInvalidArgument));
  EXPECT_THAT(Run({"status", "now"}), StatusIs(Code::kInvalidArgument));
  EXPECT_THAT(Run({"save", "a", "b"}), StatusIs(Code::kInvalidArgument));
  EXPECT_THAT(Run({}), StatusIs(Code::kInvalidArgument));
}

}  // namespace
}  // namespace esper::client
