#include "client/trainer/event_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <vector>

#include "nlohmann/json.hpp"
#include "tests/client/trainer/read_events.h"
#include "tests/testing/status_matchers.h"

namespace esper::client {
namespace {

using ::testing::ElementsAre;
using Json = nlohmann::json;

std::vector<int64_t> StepsOf(const std::string& path) {
  std::vector<int64_t> steps;
  for (const Json& event : testing::ReadEvents(path)) {
    steps.push_back(event["step"].get<int64_t>());
  }
  return steps;
}

class EventFileTest : public ::testing::Test {
 protected:
  std::string path_ = ::testing::TempDir() + "/" + EventFile::kName;

  EventFileTest() { std::filesystem::remove(path_); }

  // A file with points at these steps.
  void Fill(const std::vector<int64_t>& steps) {
    auto events = EventFile::Create(path_);
    ASSERT_OK(events);
    for (const int64_t step : steps) {
      EXPECT_OK((*events)->AddScalars(step, absl::UnixEpoch(), {{"a", 1}}));
    }
  }
};

TEST(Crc32cTest, GivesThePublishedValues) {
  // RFC 3720, B.4.
  EXPECT_EQ(Crc32c(std::string(32, '\0')), 0x8A9136AAu);
  EXPECT_EQ(Crc32c(std::string(32, '\xFF')), 0x62A8AB43u);
  EXPECT_EQ(Crc32c("123456789"), 0xE3069283u);
  EXPECT_EQ(Crc32c(""), 0u);
}

TEST_F(EventFileTest, AnIndependentReaderFindsWhatWasWritten) {
  {
    auto events = EventFile::Create(path_);
    ASSERT_OK(events);
    const absl::Time time =
        absl::UnixEpoch() + absl::Milliseconds(1700000000250);
    EXPECT_OK((*events)->AddText(0, time, "config", "```json\n{}\n```"));
    EXPECT_OK((*events)->AddScalars(
        300, time, {{"update/approx_kl", 0.125}, {"entropy/op", -2.5}}));
    // It is in the file before the next one is written.
    EXPECT_EQ(testing::ReadEvents(path_).size(), 3);
  }
  const std::vector<Json> events = testing::ReadEvents(path_);
  ASSERT_EQ(events.size(), 3);
  EXPECT_EQ(events[0]["file_version"], "brain.Event:2");
  EXPECT_EQ(events[1]["values"]["config"], "```json\n{}\n```");
  EXPECT_EQ(events[2]["step"], 300);
  EXPECT_EQ(events[2]["wall_time"], 1700000000.25);
  EXPECT_EQ(events[2]["values"],
            Json::parse(R"({"entropy/op": -2.5, "update/approx_kl": 0.125})"));
}

TEST_F(EventFileTest, ResumingDropsWhatCameLater) {
  Fill({1, 2, 3, 4});
  auto events = EventFile::Resume(path_, 2);
  ASSERT_OK(events);
  EXPECT_OK((*events)->AddScalars(3, absl::UnixEpoch(), {{"a", 9}}));
  EXPECT_THAT(StepsOf(path_), ElementsAre(0, 1, 2, 3));
  EXPECT_EQ(testing::ReadEvents(path_).back()["values"]["a"], 9);
}

TEST_F(EventFileTest, ResumingDropsARecordThatIsNotWhole) {
  Fill({1, 2});
  for (const int missing : {1, 5, 20}) {
    Fill({1, 2});
    std::filesystem::resize_file(path_,
                                 std::filesystem::file_size(path_) - missing);
    ASSERT_OK(EventFile::Resume(path_, 9));
    EXPECT_THAT(StepsOf(path_), ElementsAre(0, 1)) << missing;
  }
}

TEST_F(EventFileTest, ResumingDropsARecordWithAWrongChecksum) {
  Fill({1, 2});
  const auto size = std::filesystem::file_size(path_);
  {
    std::fstream file(path_, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(size - 6);  // In the last record's bytes.
    file.put('\x7F');
  }
  ASSERT_OK(EventFile::Resume(path_, 9));
  EXPECT_THAT(StepsOf(path_), ElementsAre(0, 1));
}

TEST_F(EventFileTest, ResumingWithoutAFileMakesOne) {
  ASSERT_OK(EventFile::Resume(path_, 5));
  EXPECT_THAT(StepsOf(path_), ElementsAre(0));
  std::ofstream(path_) << "no events at all";
  ASSERT_OK(EventFile::Resume(path_, 5));
  EXPECT_THAT(StepsOf(path_), ElementsAre(0));
}

}  // namespace
}  // namespace esper::client
