#include "server/number_log.h"

#include <filesystem>
#include <fstream>

#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"

namespace esper::server {
namespace {

namespace fs = std::filesystem;
using ::esper::testing::Refused;

class NumberLogTest : public ::testing::Test {
 protected:
  NumberLogTest() { fs::remove_all(folder_); }

  const fs::path folder_ = fs::path(::testing::TempDir()) / "versions";
};

TEST_F(NumberLogTest, GivesEachNumberOnceWhereverTheLearnerStands) {
  NumberLog log(folder_.string(), "highest_version");
  ASSERT_OK(log.Open());
  EXPECT_EQ(log.highest(), 0);
  EXPECT_EQ(log.Take(0).value(), 1);
  EXPECT_EQ(log.Take(1).value(), 2);
  EXPECT_EQ(log.Take(1).value(), 3);  // Went back to version 1.
  EXPECT_EQ(log.Take(9).value(), 10);
  EXPECT_EQ(log.highest(), 10);
}

TEST_F(NumberLogTest, AnotherProcessGoesOnAboveWhatThisOneGave) {
  NumberLog killed(folder_.string(), "highest_version");
  ASSERT_OK(killed.Take(41));
  NumberLog next(folder_.string(), "highest_version");
  ASSERT_OK(next.Open());
  EXPECT_EQ(next.Take(5).value(), 43);
  // Nothing is left beside the one file.
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_), {}), 1);
}

TEST_F(NumberLogTest, AFileWithoutANumberIsRefused) {
  fs::create_directories(folder_);
  for (const char* text : {"", "many", "0", "-3", "12 13"}) {
    std::ofstream(folder_ / "highest_version") << text;
    NumberLog log(folder_.string(), "highest_version");
    EXPECT_THAT(log.Open(),
                Refused(absl::StatusCode::kDataLoss, "CORRUPT_CHECKPOINT"))
        << text;
  }
}

TEST_F(NumberLogTest, ANumberThatCannotBeKeptIsNotGiven) {
  NumberLog log(folder_.string(), "highest_version");
  ASSERT_OK(log.Take(0));
  fs::remove_all(folder_);
  std::ofstream(folder_.string()) << "a file where the folder was";
  const auto refused = log.Take(1);
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kInternal);
  EXPECT_NE(refused.status().message().find(folder_.string()),
            absl::string_view::npos);
  EXPECT_EQ(log.highest(), 1);
  fs::remove(folder_);
  EXPECT_EQ(log.Take(1).value(), 2);
}

TEST_F(NumberLogTest, WithoutAFolderNumbersAreThoseOfThisProcess) {
  NumberLog log("", "highest_version");
  ASSERT_OK(log.Open());
  EXPECT_EQ(log.Take(0).value(), 1);
  EXPECT_EQ(log.Take(0).value(), 2);
}

}  // namespace
}  // namespace esper::server
