#include "server/checkpoint_store.h"

#include <filesystem>
#include <fstream>

#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"

namespace esper::server {
namespace {

namespace fs = std::filesystem;
using ::esper::testing::Refused;

class CheckpointStoreTest : public ::testing::Test {
 protected:
  CheckpointStoreTest() { fs::remove_all(root_); }

  Checkpoint Make(const std::string& name, const std::string& content) {
    Checkpoint checkpoint;
    checkpoint.info.name = name;
    checkpoint.info.policy_version = 3;
    checkpoint.info.optimizer_steps = 12;
    checkpoint.info.spec_digest = "digest";
    checkpoint.info.lease_token = 7;
    checkpoint.files["learner.safetensors"] = content;
    checkpoint.files["policy.safetensors"] = "weights";
    return checkpoint;
  }

  const fs::path root_ = fs::path(::testing::TempDir()) / "checkpoints";
  CheckpointStore store_{root_.string()};
};

TEST_F(CheckpointStoreTest, LoadsWhatWasSaved) {
  ASSERT_OK(store_.Save(Make("a", std::string("one\0two", 7))));
  auto loaded = store_.Load("a");
  ASSERT_OK(loaded);
  EXPECT_EQ(loaded->files.at("learner.safetensors"),
            std::string("one\0two", 7));
  EXPECT_EQ(loaded->info.policy_version, 3);
  EXPECT_EQ(loaded->info.optimizer_steps, 12);
  EXPECT_EQ(loaded->info.lease_token, 7);
  EXPECT_EQ(loaded->info.spec_digest, "digest");
  EXPECT_EQ(loaded->info.size_bytes, 14);
}

TEST_F(CheckpointStoreTest, TheNewestIsLatestAndTheSameNameIsReplaced) {
  ASSERT_OK(store_.Save(Make("b", "1")));
  ASSERT_OK(store_.Save(Make("a", "2")));
  EXPECT_EQ(store_.Load("")->info.name, "a");
  ASSERT_OK(store_.Save(Make("b", "3")));
  auto latest = store_.Load("latest");
  ASSERT_OK(latest);
  EXPECT_EQ(latest->info.name, "b");
  EXPECT_EQ(latest->files.at("learner.safetensors"), "3");
  ASSERT_EQ(store_.List().size(), 2);
  EXPECT_EQ(store_.List()[0].name, "a");
}

TEST_F(CheckpointStoreTest, OldAutomaticOnesMakeRoomAndNamedOnesStay) {
  CheckpointStore store(root_.string(), /*keep_automatic=*/2);
  ASSERT_OK(store.Save(Make("named", "0")));
  for (const char* name : {"v1", "v2", "v3"}) {
    Checkpoint checkpoint = Make(name, "1");
    checkpoint.info.automatic = true;
    ASSERT_OK(store.Save(checkpoint));
  }
  std::vector<std::string> names;
  for (const CheckpointInfo& info : store.List()) names.push_back(info.name);
  EXPECT_EQ(names, (std::vector<std::string>{"named", "v2", "v3"}));
}

TEST_F(CheckpointStoreTest, AnInterruptedSaveLeavesNothingToLoad) {
  ASSERT_OK(store_.Save(Make("good", "1")));
  fs::create_directories(root_ / ".half.tmp");
  std::ofstream(root_ / ".half.tmp" / "learner.safetensors") << "par";
  fs::create_directories(root_ / "no-manifest");
  ASSERT_EQ(store_.List().size(), 1);
  EXPECT_EQ(store_.Load("latest")->info.name, "good");
  EXPECT_THAT(store_.Load("no-manifest"),
              Refused(absl::StatusCode::kDataLoss, "CORRUPT_CHECKPOINT"));
}

TEST_F(CheckpointStoreTest, TruncatedChangedAndMissingFilesAreFound) {
  const fs::path file = root_ / "a" / "learner.safetensors";
  for (const char* content : {"sho", "longer than it was", "0123456x"}) {
    ASSERT_OK(store_.Save(Make("a", "01234567")));
    std::ofstream(file, std::ios::trunc) << content;
    auto loaded = store_.Load("a");
    EXPECT_THAT(loaded,
                Refused(absl::StatusCode::kDataLoss, "CORRUPT_CHECKPOINT"));
    EXPECT_EQ(DetailOf(loaded.status())->field, "learner.safetensors");
  }
  fs::remove(file);
  EXPECT_THAT(store_.Load("a"),
              Refused(absl::StatusCode::kDataLoss, "CORRUPT_CHECKPOINT"));
  for (const char* manifest :
       {"", "{", "[]", "{\"format\":1}", "{\"format\":\"1\"}"}) {
    ASSERT_OK(store_.Save(Make("a", "01234567")));
    std::ofstream(root_ / "a" / "manifest.json", std::ios::trunc) << manifest;
    EXPECT_THAT(store_.Load("a"),
                Refused(absl::StatusCode::kDataLoss, "CORRUPT_CHECKPOINT"))
        << manifest;
  }
}

TEST_F(CheckpointStoreTest, NamesThatAreNotPlainAreRefused) {
  for (const std::string& name :
       {std::string("../x"), std::string("a/b"), std::string(".hidden"),
        std::string("/etc"), std::string("a\0b", 3), std::string(65, 'a'),
        std::string("a b")}) {
    EXPECT_THAT(
        store_.Save(Make(name, "1")),
        Refused(absl::StatusCode::kInvalidArgument, "MALFORMED_REQUEST"))
        << name;
    EXPECT_THAT(store_.Load(name), Refused(absl::StatusCode::kInvalidArgument,
                                           "MALFORMED_REQUEST"))
        << name;
  }
}

TEST_F(CheckpointStoreTest, UnknownNamesAndAnUnsetFolderAreRefused) {
  EXPECT_THAT(store_.Load("latest"),
              Refused(absl::StatusCode::kNotFound, "UNKNOWN_CHECKPOINT"));
  EXPECT_THAT(store_.Load("nobody"),
              Refused(absl::StatusCode::kNotFound, "UNKNOWN_CHECKPOINT"));
  CheckpointStore unset("");
  EXPECT_THAT(
      unset.Save(Make("a", "1")),
      Refused(absl::StatusCode::kFailedPrecondition, "NO_CHECKPOINT_FOLDER"));
}

TEST_F(CheckpointStoreTest, AFolderThatCannotBeWrittenIsAnError) {
  std::ofstream(root_.string() + ".file") << "in the way";
  CheckpointStore blocked(root_.string() + ".file");
  EXPECT_THAT(blocked.Save(Make("a", "1")),
              ::esper::testing::StatusIs(absl::StatusCode::kInternal));
}

}  // namespace
}  // namespace esper::server
