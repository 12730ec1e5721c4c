// What becomes of recordings: budgets, the disk, and episodes without an end.

#include "server/recording_store.h"

#include <fstream>
#include <functional>
#include <iterator>

#include "absl/strings/escaping.h"
#include "absl/time/clock.h"
#include "client/status.h"
#include "core/tensor/safetensors.h"
#include "google/protobuf/util/message_differencer.h"
#include "proto/recording/recording_file.h"
#include "tests/server/recording_fixture.h"

namespace esper::server {
namespace {

namespace fs = std::filesystem;
using Code = absl::StatusCode;
using google::protobuf::util::MessageDifferencer;

constexpr int kBlock = Recording::kStepsPerBlock;

class RecordingStoreTest : public RecordingTest {
 protected:
  ServerOptions Spilling(int64_t recordings, int64_t blocks) {
    ServerOptions options = Small(recordings, blocks);
    options.recordings.overflow = RecordingOverflow::kSpill;
    options.recordings.folder = folder_.string();
    return options;
  }
  std::string FileOf(const std::string& id) const {
    return (folder_ / (absl::BytesToHexString(id) + ".safetensors")).string();
  }
  // Waits until it holds; the test's own time limit ends it otherwise.
  static void Await(const std::function<bool()>& holds) {
    while (!holds()) absl::SleepFor(absl::Milliseconds(5));
  }
  // Again while the disk has not caught up, as clients that retry do.
  static absl::Status Patiently(const std::function<absl::Status()>& call) {
    while (true) {
      const absl::Status status = call();
      const auto detail = client::ErrorDetailOf(status);
      if (!detail || detail->reason() != "QUEUE_FULL") return status;
      absl::SleepFor(absl::Milliseconds(2));
    }
  }
  absl::Status PlayPatiently(TestEpisode* episode, int steps) {
    absl::Status status = Patiently([&] { return episode->Open(); });
    for (int i = 0; i < steps && status.ok(); ++i) {
      status = Patiently([&] { return episode->Step(); });
    }
    return status.ok() ? episode->Close(v1::END_KIND_TERMINATED) : status;
  }
};

TEST_F(RecordingStoreTest, RefusesAStepThatDoesNotFitAndDoesNotTakeIt) {
  Start(Small(2, 2));
  const TestEpisode done = Played(1, kBlock, v1::END_KIND_TERMINATED);
  TestEpisode open = Recorded(2);
  ASSERT_OK(open.Open());
  ASSERT_OK(open.Steps(kBlock));
  EXPECT_EQ(Status().memory_bytes(), Status().max_memory_bytes());

  for (int attempt = 0; attempt < 2; ++attempt) {
    const absl::Status refused = open.Step();
    EXPECT_THAT(refused,
                RefusedWith(Code::kResourceExhausted, "BUDGET_EXCEEDED"));
    EXPECT_EQ(client::ErrorDetailOf(refused)->field(), "max_recording_mb");
  }
  EXPECT_THAT(Recorded(3).Open(),
              RefusedWith(Code::kResourceExhausted, "BUDGET_EXCEEDED"));
  TestEpisode plain(*client_, spec_, 4, /*record=*/false);
  EXPECT_OK(plain.Play(2, v1::END_KIND_TERMINATED));  // No business of it.

  ASSERT_OK(Discard({done.id()}));
  ASSERT_OK(open.Steps(kBlock));
  EXPECT_THAT(open.Step(),
              RefusedWith(Code::kResourceExhausted, "BUDGET_EXCEEDED"));
  ASSERT_OK(open.Close(v1::END_KIND_TRUNCATED));  // An end always fits.
  const auto recording = training_->GetRecording(open.id());
  ASSERT_OK(recording);
  EXPECT_TRUE(
      MessageDifferencer::Equals(recording->trajectory(), open.Upload()));
  // The state did not move either: the same as without a recording.
  TestEpisode same(*client_, spec_, 2, /*record=*/false);
  ASSERT_OK(same.Open());
  ASSERT_OK(same.Steps(2 * kBlock));
  for (int i = 0; i < 2 * kBlock; ++i) {
    EXPECT_EQ(same.answers()[i].log_probs, open.answers()[i].log_probs);
  }
}

TEST_F(RecordingStoreTest, OpeningIsAllOrNone) {
  Start(Small(2, 2));
  std::vector<client::EpisodeStart> starts(3);
  for (int i = 0; i < 3; ++i) {
    starts[i].environment_key = absl::StrCat("k", i);
    starts[i].record = true;
  }
  EXPECT_THAT(client_->OpenEpisodes(starts),
              RefusedWith(Code::kResourceExhausted, "BUDGET_EXCEEDED"));
  EXPECT_EQ(server_->inference().open_episodes(), 0);
  EXPECT_EQ(Status().memory_bytes(), 0);
  EXPECT_EQ(Status().open(), 0);
  starts.pop_back();
  EXPECT_OK(client_->OpenEpisodes(starts));
  EXPECT_EQ(Status().open(), 2);
}

TEST_F(RecordingStoreTest, DeadClientsLeaveAnIncompleteRecording) {
  Start(Options());
  TestEpisode dead = Recorded(1);
  ASSERT_OK(dead.Open());
  ASSERT_OK(dead.Steps(5));
  clock_.Advance(absl::Minutes(11));

  ASSERT_EQ(List().size(), 1);
  const v1::RecordingInfo info = List()[0];
  EXPECT_EQ(info.episode_id(), dead.id());
  EXPECT_EQ(info.environment_key(), "env1");
  EXPECT_EQ(info.state(), v1::RECORDING_STATE_INCOMPLETE);
  EXPECT_EQ(info.cause(), v1::INCOMPLETE_CAUSE_EXPIRED);
  EXPECT_EQ(info.steps(), 5);
  EXPECT_EQ(info.outcomes(), 4);
  EXPECT_EQ(Status().incomplete_causes().at("expired"), 1);
  EXPECT_EQ(Status().incomplete(), 1);
  EXPECT_EQ(Status().open(), 0);
  EXPECT_THAT(TrainOn({dead.id()}),
              RefusedWith(Code::kFailedPrecondition, "INCOMPLETE_RECORDING"));
  EXPECT_OK(training_->GetRecording(dead.id()));  // To be looked at.

  const TestEpisode alive = Played(2, 3, v1::END_KIND_TERMINATED);
  EXPECT_THAT(Discard({}, /*all_incomplete=*/true),
              ::esper::testing::StatusIs(Code::kOk));
  ASSERT_EQ(List().size(), 1);
  EXPECT_EQ(List()[0].episode_id(), alive.id());
  EXPECT_EQ(Status().incomplete_causes().at("expired"), 1);  // Since start.
}

TEST_F(RecordingStoreTest, OtherEndsAreAccountedForByCause) {
  Start(Options());
  TestEpisode older = Recorded(1);
  ASSERT_OK(older.Open());
  ASSERT_OK(older.Steps(2));
  TestEpisode newer = Recorded(1, /*incarnation=*/2);
  ASSERT_OK(newer.Open());
  ASSERT_OK(newer.Steps(3));
  ASSERT_OK(newer.Close(v1::END_KIND_TERMINATED));
  const TestEpisode aborted = Played(2, 4, v1::END_KIND_ABORTED);
  Played(3, 0, v1::END_KIND_ABORTED);  // Has nothing to keep.

  const auto infos = List();
  ASSERT_EQ(infos.size(), 3);
  EXPECT_EQ(infos[0].episode_id(), older.id());
  EXPECT_EQ(infos[0].cause(), v1::INCOMPLETE_CAUSE_SUPERSEDED);
  EXPECT_EQ(infos[0].steps(), 2);
  EXPECT_EQ(infos[1].episode_id(), newer.id());
  EXPECT_EQ(infos[1].state(), v1::RECORDING_STATE_COMPLETE);
  EXPECT_EQ(infos[1].cause(), v1::INCOMPLETE_CAUSE_UNSPECIFIED);
  EXPECT_EQ(infos[2].episode_id(), aborted.id());
  EXPECT_EQ(infos[2].cause(), v1::INCOMPLETE_CAUSE_ABORTED);
  const v1::RecordingStatus status = Status();
  EXPECT_EQ(status.completed(), 1);
  EXPECT_EQ(status.incomplete_causes().at("superseded"), 1);
  EXPECT_EQ(status.incomplete_causes().at("aborted"), 2);
  EXPECT_EQ(status.memory_bytes(), MemoryFor(3, 3));
}

TEST_F(RecordingStoreTest, IncompleteRecordingsMakeRoomAndCompleteOnesDoNot) {
  Start(Small(2, 2));
  const TestEpisode complete = Played(1, 2, v1::END_KIND_TERMINATED);
  const TestEpisode aborted = Played(2, 2, v1::END_KIND_ABORTED);
  TestEpisode next = Recorded(3);
  ASSERT_OK(next.Open());
  EXPECT_EQ(Status().evicted(), 1);
  EXPECT_THAT(training_->GetRecording(aborted.id()),
              RefusedWith(Code::kNotFound, "UNKNOWN_EPISODE"));
  EXPECT_THAT(Recorded(4).Open(),
              RefusedWith(Code::kResourceExhausted, "BUDGET_EXCEEDED"));
  EXPECT_OK(TrainOn({complete.id()}));
}

TEST_F(RecordingStoreTest, SpilledRecordingsTrainAndOutliveTheServer) {
  constexpr int kEpisodes = 12;
  Start(Spilling(2, 4));
  std::vector<TestEpisode> episodes;
  std::vector<std::string> ids;
  for (int key = 0; key < kEpisodes; ++key) {
    episodes.push_back(Recorded(key));
    ASSERT_OK(PlayPatiently(&episodes.back(), 2 * kBlock + key % 3 - 1));
    ids.push_back(episodes.back().id());
  }
  EXPECT_LE(Status().memory_bytes(), Status().max_memory_bytes());
  EXPECT_EQ(Status().complete(), kEpisodes);
  Await([&] { return Status().on_disk() == kEpisodes; });
  const auto before = TrainOn(ids);
  ASSERT_OK(before);

  Start(Spilling(2, 4));
  const auto found = List();
  ASSERT_EQ(found.size(), kEpisodes);
  EXPECT_EQ(Status().on_disk(), kEpisodes);
  EXPECT_EQ(Status().memory_bytes(), 0);
  for (const TestEpisode& episode : episodes) {
    const auto recording = training_->GetRecording(episode.id());
    ASSERT_OK(recording);
    EXPECT_TRUE(
        MessageDifferencer::Equals(recording->trajectory(), episode.Upload()));
  }
  const auto after = TrainOn(ids);
  ASSERT_OK(after);
  EXPECT_TRUE(MessageDifferencer::Equals(*before, *after));

  const auto discarded = Discard(ids);
  ASSERT_OK(discarded);
  EXPECT_EQ(*discarded, kEpisodes);
  EXPECT_TRUE(fs::is_empty(folder_));
  Start(Spilling(2, 4));
  EXPECT_TRUE(List().empty());
}

TEST_F(RecordingStoreTest, FilesAreSafetensors) {
  Start(Spilling(2, 4));
  const TestEpisode episode = Played(1, 9, v1::END_KIND_TRUNCATED);
  Await([&] { return Status().on_disk() == 1; });
  const auto file = tensor::ReadSafetensors(FileOf(episode.id()));
  ASSERT_OK(file);
  const at::Tensor* observations = file->Find("observations");
  ASSERT_NE(observations, nullptr);
  EXPECT_EQ(observations->sizes().vec(),
            (std::vector<int64_t>{9, spec_.observation_width()}));
  EXPECT_EQ(observations->scalar_type(), at::kFloat);
  ASSERT_NE(file->Find("behaviour.log_probs"), nullptr);
  EXPECT_EQ(*file->FindMetadata("format"), "esper.recording.v1");
  const auto read = recording::ReadRecording(FileOf(episode.id()));
  ASSERT_OK(read);
  EXPECT_TRUE(MessageDifferencer::Equals(read->trajectory(), episode.Upload()));
}

TEST_F(RecordingStoreTest, DrainingKeepsWhatThereIs) {
  ServerOptions options = Options();
  options.recordings.folder = folder_.string();
  Start(options);
  const TestEpisode complete = Played(1, 5, v1::END_KIND_TRUNCATED);
  TestEpisode open = Recorded(2);
  ASSERT_OK(open.Open());
  ASSERT_OK(open.Steps(3));
  EXPECT_TRUE(fs::is_empty(folder_));
  server_->Drain(absl::ZeroDuration());
  Start(options);
  const auto infos = List();
  ASSERT_EQ(infos.size(), 2);
  for (const v1::RecordingInfo& info : infos) {
    if (info.episode_id() == complete.id()) continue;
    EXPECT_EQ(info.episode_id(), open.id());
    EXPECT_EQ(info.cause(), v1::INCOMPLETE_CAUSE_DRAINED);
    EXPECT_EQ(info.steps(), 3);
  }
  EXPECT_OK(TrainOn({complete.id()}));
  EXPECT_THAT(TrainOn({open.id()}),
              RefusedWith(Code::kFailedPrecondition, "INCOMPLETE_RECORDING"));
}

TEST_F(RecordingStoreTest, ADiskThatFailsLosesNothing) {
  Start(Spilling(3, 4));
  fs::remove_all(folder_);
  std::ofstream(folder_) << "in the way";
  const TestEpisode episode = Played(1, kBlock, v1::END_KIND_TERMINATED);
  TestEpisode open = Recorded(2);
  ASSERT_OK(open.Open());
  ASSERT_OK(open.Steps(3 * kBlock));
  // Once it is known that the disk does not help, waiting for it is no use.
  Await([&] {
    const auto detail = client::ErrorDetailOf(open.Step());
    return detail && detail->reason() == "BUDGET_EXCEEDED";
  });
  EXPECT_OK(TrainOn({episode.id()}));
  fs::remove(folder_);
  fs::create_directory(folder_);
  Await([&] { return Status().on_disk() == 1; });
  EXPECT_OK(open.Step());
  EXPECT_OK(TrainOn({episode.id()}));
}

TEST_F(RecordingStoreTest, DamagedFilesAreToldAndHarmNoOthers) {
  Start(Spilling(4, 4));
  const TestEpisode cut = Played(1, 3, v1::END_KIND_TERMINATED);
  const TestEpisode flipped = Played(2, 3, v1::END_KIND_TERMINATED);
  const TestEpisode good = Played(3, 3, v1::END_KIND_TERMINATED);
  Await([&] { return Status().on_disk() == 3; });
  Stop();
  fs::resize_file(FileOf(cut.id()), fs::file_size(FileOf(cut.id())) - 1);
  {
    std::fstream file(FileOf(flipped.id()),
                      std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(-20, std::ios::end);
    const char byte = static_cast<char>(file.get() ^ 1);
    file.seekp(-20, std::ios::end);
    file.put(byte);
  }
  std::ofstream(folder_ / "other.safetensors") << "no recording";
  Start(Spilling(4, 4));
  EXPECT_EQ(List().size(), 2);
  EXPECT_THAT(TrainOn({cut.id()}),
              RefusedWith(Code::kNotFound, "UNKNOWN_EPISODE"));
  EXPECT_THAT(TrainOn({good.id(), flipped.id()}),
              RefusedWith(Code::kDataLoss, "CORRUPT_RECORDING"));
  EXPECT_OK(TrainOn({good.id()}));
  EXPECT_TRUE(fs::exists(FileOf(cut.id())));  // Left for people to look at.
}

TEST_F(RecordingStoreTest, OptionsThatCannotWorkAreRefused) {
  ServerOptions options = Options();
  options.recordings.overflow = RecordingOverflow::kSpill;
  EXPECT_THAT(Server::Create(options).status(),
              ::esper::testing::StatusIs(Code::kInvalidArgument));
  options = Options();
  options.recordings.max_bytes = 100;
  EXPECT_THAT(Server::Create(options).status(),
              ::esper::testing::StatusIs(Code::kInvalidArgument));
  EXPECT_THAT(ParseRecordingOverflow("drop").status(),
              ::esper::testing::StatusIs(Code::kInvalidArgument));
  EXPECT_EQ(*ParseRecordingOverflow("spill"), RecordingOverflow::kSpill);
}

}  // namespace
}  // namespace esper::server
