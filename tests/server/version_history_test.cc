#include "server/version_history.h"

#include <filesystem>
#include <fstream>

#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"

namespace esper::server {
namespace {

namespace fs = std::filesystem;
using ::esper::testing::Refused;
using Labels = std::vector<std::string>;

class VersionHistoryTest : public ::testing::Test {
 protected:
  VersionHistoryTest() { fs::remove_all(folder_); }

  static VersionRecord Record(int64_t version) {
    VersionRecord record;
    record.version = version;
    record.published_at_nanos = 100 + version;
    record.optimizer_steps = 10 * version;
    record.weights_digest = "digest" + std::to_string(version);
    record.bf16 = version % 2 == 0;
    record.rolled_back_to = version - 1;
    return record;
  }

  const fs::path folder_ = fs::path(::testing::TempDir()) / "history";
};

TEST_F(VersionHistoryTest, AnotherProcessReadsAllOfIt) {
  VersionHistory killed(folder_.string());
  ASSERT_OK(killed.Open());
  for (int64_t version : {1, 2, 3}) {
    ASSERT_OK(killed.NoteActing(Record(version)));
  }
  ASSERT_OK(killed.SetLabel("good", 1));
  ASSERT_OK(killed.SetFrozen(3, true));
  VersionHistory next(folder_.string());
  ASSERT_OK(next.Open());
  const VersionHistory::State state = next.Read();
  ASSERT_EQ(state.records.size(), 3);
  const VersionRecord& second = state.records.at(2);
  EXPECT_EQ(second.published_at_nanos, 102);
  EXPECT_EQ(second.optimizer_steps, 20);
  EXPECT_EQ(second.weights_digest, "digest2");
  EXPECT_TRUE(second.bf16);
  EXPECT_EQ(second.rolled_back_to, 1);
  EXPECT_EQ(state.LabelsOf(1), Labels{"good"});
  EXPECT_EQ(state.LabelsOf(2), Labels{"previous"});
  EXPECT_EQ(state.LabelsOf(3), (Labels{"current", "frozen"}));
  // Nothing is left beside the one file.
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_), {}), 1);
}

TEST_F(VersionHistoryTest, ANumberNeverMeansOtherWeights) {
  VersionHistory history(folder_.string());
  ASSERT_OK(history.NoteActing(Record(1)));
  ASSERT_OK(history.NoteActing(Record(2)));
  ASSERT_OK(history.NoteActing(Record(1)));  // Restored.
  EXPECT_EQ(history.Read().current, 1);
  EXPECT_EQ(history.Read().previous, 2);
  VersionRecord other = Record(2);
  other.weights_digest = "another";
  EXPECT_TRUE(history.MeansOthers(2, "another"));
  EXPECT_FALSE(history.MeansOthers(2, "digest2"));
  EXPECT_FALSE(history.MeansOthers(9, "another"));
  EXPECT_THAT(history.NoteActing(other),
              Refused(absl::StatusCode::kDataLoss, "CORRUPT_CHECKPOINT"));
  EXPECT_EQ(history.Read().current, 1);
  EXPECT_EQ(history.Read().records.at(2).weights_digest, "digest2");
}

TEST_F(VersionHistoryTest, ForgetsTheOldestThatNothingHolds) {
  VersionHistory history(folder_.string(), /*remembered=*/3);
  ASSERT_OK(history.NoteActing(Record(1)));
  ASSERT_OK(history.SetLabel("first", 1));
  for (int64_t version = 2; version <= 6; ++version) {
    ASSERT_OK(history.NoteActing(Record(version)));
  }
  std::vector<int64_t> versions;
  for (const auto& [version, record] : history.Read().records) {
    versions.push_back(version);
  }
  EXPECT_EQ(versions, (std::vector<int64_t>{1, 4, 5, 6}));
}

TEST_F(VersionHistoryTest, WhatCannotBeKeptDoesNotHappen) {
  VersionHistory history(folder_.string());
  ASSERT_OK(history.NoteActing(Record(1)));
  fs::remove_all(folder_);
  std::ofstream(folder_.string()) << "a file where the folder was";
  EXPECT_EQ(history.NoteActing(Record(2)).code(), absl::StatusCode::kInternal);
  EXPECT_EQ(history.SetLabel("good", 1).code(), absl::StatusCode::kInternal);
  EXPECT_EQ(history.Read().current, 1);
  EXPECT_TRUE(history.Read().labels.empty());
}

TEST_F(VersionHistoryTest, ADamagedFileIsRefused) {
  fs::create_directories(folder_);
  for (const char* text :
       {"", "{", "[]", "{\"format\": 2}", "{\"format\": 1}",
        "{\"format\":1,\"versions\":[],\"labels\":{\"a\":1},\"frozen\":[],"
        "\"current\":1,\"previous\":0}"}) {
    std::ofstream(folder_ / "versions.json") << text;
    VersionHistory history(folder_.string());
    EXPECT_THAT(history.Open(),
                Refused(absl::StatusCode::kDataLoss, "CORRUPT_CHECKPOINT"))
        << text;
  }
}

}  // namespace
}  // namespace esper::server
