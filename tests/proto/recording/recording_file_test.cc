#include "proto/recording/recording_file.h"

#include <string>
#include <vector>

#include "google/protobuf/util/message_differencer.h"
#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"

namespace esper::recording {
namespace {

using ::esper::testing::StatusIs;
using google::protobuf::util::MessageDifferencer;
using Code = absl::StatusCode;

void Fill(v1::Tensor* tensor, v1::DataType dtype,
          const std::vector<int64_t>& shape, size_t bytes, char first) {
  tensor->set_dtype(dtype);
  for (const int64_t size : shape) tensor->add_shape(size);
  for (size_t i = 0; i < bytes; ++i) {
    tensor->mutable_data()->push_back(static_cast<char>(first + i));
  }
}

v1::Recording Example() {
  v1::Recording recording;
  v1::RecordingInfo* info = recording.mutable_info();
  info->set_episode_id(std::string("\0\xff id of 16 bytes", 16));
  info->set_environment_key("key \"quoted\" \xC3\xA9");
  info->set_seed(~uint64_t{0});
  info->set_incarnation(uint64_t{1} << 60);
  info->set_steps(2);
  info->set_state(v1::RECORDING_STATE_COMPLETE);
  info->set_episode_return(0.1);
  v1::Trajectory* trajectory = recording.mutable_trajectory();
  trajectory->set_spec_digest("abc");
  trajectory->set_end_kind(v1::END_KIND_TRUNCATED);
  trajectory->set_bootstrap_value(0.1f);
  trajectory->mutable_behaviour()->set_kind(v1::NUMBER_KIND_BEHAVIOUR);
  Fill(trajectory->mutable_observations(), v1::DATA_TYPE_FLOAT32, {2, 3}, 24,
       1);
  Fill(trajectory->mutable_categorical(), v1::DATA_TYPE_INT8, {2, 2}, 4, 50);
  Fill(trajectory->mutable_behaviour()->mutable_values(), v1::DATA_TYPE_FLOAT32,
       {2}, 8, 80);
  Fill(trajectory->mutable_policy_versions(), v1::DATA_TYPE_INT64, {2}, 16, 9);
  Fill(trajectory->mutable_forced(), v1::DATA_TYPE_BOOL, {2}, 2, 0);
  return recording;
}

TEST(RecordingFileTest, GivesBackEveryBit) {
  const v1::Recording recording = Example();
  const auto read = ParseRecording(SerializeRecording(recording), "it");
  ASSERT_OK(read);
  EXPECT_TRUE(MessageDifferencer::Equals(*read, recording))
      << read->DebugString();
}

TEST(RecordingFileTest, CutOffFilesAreDamaged) {
  const std::string bytes = SerializeRecording(Example());
  for (size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_THAT(ParseRecording(bytes.substr(0, size), "it"),
                StatusIs(Code::kDataLoss))
        << size;
  }
  EXPECT_THAT(ParseRecording(bytes + "x", "it"), StatusIs(Code::kDataLoss));
}

TEST(RecordingFileTest, FlippedBitsOfTheDataAreDamage) {
  const std::string bytes = SerializeRecording(Example());
  for (size_t i = bytes.size() - 54; i < bytes.size(); ++i) {
    std::string flipped = bytes;
    flipped[i] ^= 4;
    EXPECT_THAT(ParseRecording(flipped, "it"), StatusIs(Code::kDataLoss)) << i;
  }
}

// Whatever is in the header, it is refused or read, without harm.
TEST(RecordingFileTest, FlippedBitsOfTheHeaderDoNoHarm) {
  const std::string bytes = SerializeRecording(Example());
  for (size_t i = 0; i < bytes.size() - 54; ++i) {
    for (const char bit : {1, 4, 16, 64}) {
      std::string flipped = bytes;
      flipped[i] ^= bit;
      const auto read = ParseRecording(flipped, "it");
      if (!read.ok()) {
        EXPECT_EQ(read.status().code(), Code::kDataLoss);
      }
    }
  }
}

TEST(RecordingFileTest, WhatIsNotThereIsNotFound) {
  EXPECT_THAT(ReadRecording("/no/such/file"), StatusIs(Code::kNotFound));
  EXPECT_THAT(ReadRecordingInfo("/no/such/file"), StatusIs(Code::kNotFound));
}

}  // namespace
}  // namespace esper::recording
