#include "client/ctl/commands.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

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

TEST_F(CommandsTest, ListsVersionsLabelsThemAndRollsBack) {
  EXPECT_EQ(Json({"label", "good", "2"})["labels"][0], "good");
  const nlohmann::json versions = Json({"versions"})["versions"];
  ASSERT_EQ(versions.size(), 2);
  EXPECT_EQ(versions[1]["weights_digest"], "digest2");
  EXPECT_EQ(versions[1]["labels"][0], "good");
  EXPECT_FALSE(versions[0]["kept"].get<bool>());
  const std::string table = Run({"versions"}).value();
  EXPECT_THAT(table, HasSubstr("policy_version  labels  published_at"));
  EXPECT_THAT(table, HasSubstr("1               -       "));

  EXPECT_EQ(Json({"rollback", "1"})["rolled_back_to"], 1);
  EXPECT_EQ(Json({"rollback", "good"})["rolled_back_to"], 2);
  EXPECT_EQ(server_.inference.version, 3);
  EXPECT_OK(Run({"unlabel", "good", "2"}));
  EXPECT_TRUE(server_.admin.labels.empty());
  EXPECT_THAT(Run({"label", "good", "two"}), StatusIs(Code::kInvalidArgument));
}

TEST_F(CommandsTest, ARollbackWhoseReplyIsLostIsNotRepeated) {
  server_.faults.Push("Rollback", {absl::UnavailableError("lost"),
                                   /*after_effect=*/true});
  EXPECT_THAT(Run({"rollback", "1"}), StatusIs(Code::kUnavailable));
  EXPECT_EQ(server_.inference.version, 2);
}

TEST_F(CommandsTest, ListsCheckpoints) {
  EXPECT_EQ(Run({"checkpoints"}).value(), "none\n");
  EXPECT_OK(Run({"save", "good"}));
  const nlohmann::json all = Json({"checkpoints"})["checkpoints"];
  ASSERT_EQ(all.size(), 1);
  EXPECT_EQ(all[0]["checkpoint"], "good");
  EXPECT_EQ(all[0]["saved_at"], "1970-01-02T00:00:00+00:00");
}

TEST_F(CommandsTest, ExportsAndImportsWholeFiles) {
  const std::string path = ::testing::TempDir() + "/policy.safetensors";
  server_.admin.file = std::string("we\0ights", 8);
  EXPECT_EQ(Json({"export", path, "good"})["size_bytes"], 13);
  EXPECT_EQ(Json({"import", path, "mine"})["checkpoint"], "mine");
  EXPECT_EQ(server_.admin.file, std::string("good:we\0ights", 13));
  EXPECT_THAT(Run({"export", "/no/such/folder/file"}),
              StatusIs(Code::kUnknown));
  EXPECT_THAT(Run({"import", "/no/such/file"}), StatusIs(Code::kNotFound));

  // More than one chunk.
  const std::string large(3 << 20 | 17, 'x');
  std::ofstream(path, std::ios::binary) << large;
  EXPECT_OK(Run({"import", path}));
  EXPECT_EQ(server_.admin.file, large);
}

TEST_F(CommandsTest, RefusesWhatIsNoCommand) {
  EXPECT_THAT(Run({"sTatus"}), StatusIs(Code::kInvalidArgument));
  EXPECT_THAT(Run({"status", "now"}), StatusIs(Code::kInvalidArgument));
  EXPECT_THAT(Run({"save", "a", "b"}), StatusIs(Code::kInvalidArgument));
  EXPECT_THAT(Run({}), StatusIs(Code::kInvalidArgument));
}

}  // namespace
}  // namespace esper::client
