// Episodes that the server records: they train as uploads do, at a fraction of
// their bytes, and every step is in them once.

#include <chrono>
#include <fstream>
#include <iostream>
#include <iterator>

#include "client/replay.h"
#include "google/protobuf/util/message_differencer.h"
#include "tests/server/recording_fixture.h"

namespace esper::server {
namespace {

using ::esper::testing::StatusIs;
using Code = absl::StatusCode;
using google::protobuf::util::MessageDifferencer;

// A driver with an idle choice, Gaussian heads, no masks and no categories.
policy::PolicySpec HybridSpec() {
  policy::HeadSpec aim = policy::HeadSpec::Gaussian("aim", 2, 8);
  aim.driver = "mode";
  aim.relevant_when = {1, 2};
  policy::PolicySpec spec = policy::PolicySpec::Plain(
      4, {policy::HeadSpec::Categorical("mode", 3, 8), aim});
  spec.heads[0].idle_choice = 0;
  spec.feature_dim = 16;
  spec.hidden_dim = 16;
  return spec;
}

// Choices too many for a byte, and no driver.
policy::PolicySpec WideSpec() {
  policy::PolicySpec spec = policy::PolicySpec::Plain(
      4, {policy::HeadSpec::Categorical("many", 300, 8)});
  spec.feature_dim = 16;
  spec.hidden_dim = 16;
  return spec;
}

std::string BytesOf(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

class RecordedSpecTest : public RecordingTest,
                         public ::testing::WithParamInterface<int> {
 protected:
  RecordedSpecTest() {
    if (GetParam() == 1) spec_ = HybridSpec();
    if (GetParam() == 2) spec_ = WideSpec();
  }

  // Three episodes on a fresh server, then a step of PPO on them, uploaded or
  // recorded: the checkpoint's bytes, and the reply.
  std::string Train(bool recorded, v1::ForwardBackwardResponse* reply) {
    ServerOptions options = Options();
    options.checkpoint_dir = (folder_ / (recorded ? "a" : "b")).string();
    Start(options);
    v1::ForwardBackwardRequest request = PpoOn({});
    request.clear_recorded();
    for (int key = 0; key < 3; ++key) {
      TestEpisode episode(*client_, spec_, key, recorded);
      EXPECT_OK(episode.Play(key + 5, key == 1 ? v1::END_KIND_TERMINATED
                                               : v1::END_KIND_TRUNCATED));
      if (recorded) {
        request.mutable_recorded()->add_episode_ids(episode.id());
      } else {
        *request.mutable_batch()->add_trajectories() = episode.Upload();
      }
    }
    const auto pass = training_->ForwardBackward(request);
    EXPECT_OK(pass);
    if (pass.ok()) *reply = *pass;
    v1::OptimStepRequest step;
    step.set_publish(true);
    EXPECT_OK(training_->OptimStep(step));
    EXPECT_OK(admin_->SaveCheckpoint("after"));
    return BytesOf(folder_ / (recorded ? "a" : "b") / "after" /
                   "learner.safetensors");
  }
};

TEST_P(RecordedSpecTest, TrainsToTheBitAsUploadsDo) {
  v1::ForwardBackwardResponse uploaded, recorded;
  const std::string from_uploads = Train(false, &uploaded);
  const std::string from_recordings = Train(true, &recorded);
  ASSERT_GT(from_uploads.size(), 1000);
  EXPECT_TRUE(from_uploads == from_recordings);
  EXPECT_EQ(uploaded.transitions(), 5 + 6 + 7);
  EXPECT_GT(uploaded.metrics().size(), 5);
  EXPECT_TRUE(MessageDifferencer::Equals(uploaded, recorded))
      << uploaded.ShortDebugString() << "\n"
      << recorded.ShortDebugString();
}

TEST_P(RecordedSpecTest, KeepsWhatTheClientWouldUpload) {
  Start(Options());
  for (const v1::EndKind end :
       {v1::END_KIND_TERMINATED, v1::END_KIND_TRUNCATED}) {
    // Over several blocks, and ending inside one.
    const TestEpisode episode = Played(end, 21, end);
    const auto recording = training_->GetRecording(episode.id());
    ASSERT_OK(recording);
    v1::Trajectory kept = recording->trajectory();
    // Masks that a client may leave out stand for themselves.
    if (spec_.mask_optional) kept.clear_action_masks();
    EXPECT_TRUE(MessageDifferencer::Equals(kept, episode.Upload()))
        << kept.ShortDebugString();
    EXPECT_EQ(recording->info().steps(), 21);
    EXPECT_EQ(recording->info().outcomes(), 21);
    EXPECT_EQ(recording->info().end_kind(), end);
    EXPECT_EQ(recording->trajectory().has_bootstrap_value(),
              end == v1::END_KIND_TRUNCATED);
  }
}

INSTANTIATE_TEST_SUITE_P(Specs, RecordedSpecTest, ::testing::Values(0, 1, 2));

TEST_F(RecordingTest, EvaluationsTakeRecordings) {
  Start(Options());
  const TestEpisode episode = Played(1, 6, v1::END_KIND_TERMINATED);
  const auto evaluate = [&](bool recorded) {
    v1::EvaluateActionsRequest request;
    request.mutable_evaluate()->set_evaluation_id(1);
    if (recorded) {
      request.mutable_evaluate()->mutable_recorded()->add_episode_ids(
          episode.id());
    } else {
      *request.mutable_evaluate()->mutable_batch()->add_trajectories() =
          episode.Upload();
    }
    grpc::ClientContext context;
    auto stub = v1::PolicyTraining::NewStub(channel_);
    auto stream = stub->EvaluateActions(&context);
    v1::EvaluateActionsResponse response;
    EXPECT_TRUE(stream->Write(request) && stream->Read(&response));
    stream->WritesDone();
    EXPECT_TRUE(stream->Finish().ok());
    return response;
  };
  const v1::EvaluateActionsResponse uploaded = evaluate(false);
  ASSERT_TRUE(uploaded.has_evaluation()) << uploaded.ShortDebugString();
  EXPECT_TRUE(MessageDifferencer::Equals(uploaded, evaluate(true)));
}

TEST_F(RecordingTest, TrainingCostsATenthOfUploadingAtMost) {
  spec_ = policy::PolicySpec::NetworkGrowing();  // The one that is served.
  Start(Options());
  constexpr int kEpisodes = 4;
  constexpr int kLength = 60;
  WireBytes acting;
  v1::ForwardBackwardRequest upload = PpoOn({}), recorded = PpoOn({});
  upload.clear_recorded();
  v1::DiscardRecordingsRequest discard;
  for (int key = 0; key < kEpisodes; ++key) {
    TestEpisode episode = Recorded(key);
    episode.MeasureInto(&acting);
    ASSERT_OK(episode.Play(kLength, v1::END_KIND_TRUNCATED));
    *upload.mutable_batch()->add_trajectories() = episode.Upload();
    recorded.mutable_recorded()->add_episode_ids(episode.id());
    discard.add_episode_ids(episode.id());
  }
  // Every byte of every outcome is charged, although other uses want them too.
  const int64_t flag = 2 * kEpisodes;  // EpisodeStart.record.
  const int64_t extra = acting.with_outcomes - acting.without + flag +
                        static_cast<int64_t>(recorded.ByteSizeLong()) +
                        static_cast<int64_t>(discard.ByteSizeLong());
  const double ratio = static_cast<double>(extra) / upload.ByteSizeLong();
  std::cout << "extra bytes for training " << extra << " ("
            << static_cast<double>(extra) / (kEpisodes * kLength)
            << " a step), upload " << upload.ByteSizeLong() << " ("
            << static_cast<double>(upload.ByteSizeLong()) /
                   (kEpisodes * kLength)
            << " a step), ratio " << ratio << "; memory "
            << RecordingLayout(spec_).step_bytes << " bytes a step\n";
  EXPECT_LE(ratio, 0.1);
  EXPECT_GT(acting.with_outcomes, acting.without);
  // It is the same training.
  const auto by_upload = training_->ForwardBackward(upload);
  ASSERT_OK(by_upload);
  EXPECT_EQ(by_upload->transitions(), kEpisodes * kLength);
  EXPECT_OK(training_->ForwardBackward(recorded));
}

TEST_F(RecordingTest, RepeatedStepsAreRecordedOnce) {
  Start(Options());
  TestEpisode episode = Recorded(1);
  ASSERT_OK(episode.Open());
  for (int step = 0; step < 10; ++step) {
    const client::StepRow row = episode.NextRow();
    ASSERT_OK(episode.Step());
    if (step % 3 != 1) continue;
    client::StepRow again = row;  // With another outcome: told too late.
    again.previous_outcome->reward = 77;
    again.input.observation[0] = 55;
    const auto answer = client_->GetAction({again});
    ASSERT_OK(answer);
    EXPECT_EQ(answer->front().log_probs, episode.answers().back().log_probs);
  }
  ASSERT_OK(episode.Close(v1::END_KIND_TERMINATED));
  ASSERT_OK(client_->CloseEpisodes(
      {episode.ClosingAs(v1::END_KIND_TERMINATED)}));  // And so is its end.
  const auto recording = training_->GetRecording(episode.id());
  ASSERT_OK(recording);
  EXPECT_EQ(recording->info().steps(), 10);
  EXPECT_TRUE(
      MessageDifferencer::Equals(recording->trajectory(), episode.Upload()));
  EXPECT_EQ(Status().completed(), 1);
}

TEST_F(RecordingTest, OneCallMixesRecordedEpisodesWithOthers) {
  Start(Options());
  TestEpisode recorded = Recorded(1);
  TestEpisode other(*client_, spec_, 2, /*record=*/false);
  ASSERT_OK(recorded.Open());
  ASSERT_OK(other.Open());
  client::StepRow held;
  held.client_episode = client::ClientEpisode{5, false};
  held.input = other.NextRow().input;
  // The recorded row is the last one, so a mix-up of rows would show.
  const auto answers =
      client_->GetAction({held, other.NextRow(), recorded.NextRow()});
  ASSERT_OK(answers);
  client::EpisodeClose close;
  close.episode = recorded.handle();
  close.steps = 1;
  close.end_kind = v1::END_KIND_TERMINATED;
  close.last_outcome = client::StepOutcome();
  ASSERT_OK(client_->CloseEpisodes({close}));
  const auto recording = training_->GetRecording(recorded.id());
  ASSERT_OK(recording);
  const std::string& bytes = recording->trajectory().observations().data();
  const std::vector<float>& shown = recorded.NextRow().input.observation;
  EXPECT_EQ(bytes, std::string(reinterpret_cast<const char*>(shown.data()),
                               shown.size() * sizeof(float)));
  EXPECT_EQ(recording->trajectory().behaviour().values().data(),
            std::string(reinterpret_cast<const char*>(&(*answers)[2].value),
                        sizeof(float)));
  EXPECT_EQ(List().size(), 1);
}

TEST_F(RecordingTest, ForfeitedRewardsCountNothing) {
  Start(Options());
  TestEpisode episode = Recorded(1);
  ASSERT_OK(episode.Open());
  ASSERT_OK(episode.Steps(11));
  episode.ForfeitNext();
  ASSERT_OK(episode.Steps(3));
  ASSERT_OK(episode.Close(v1::END_KIND_TERMINATED));
  const auto recording = training_->GetRecording(episode.id());
  ASSERT_OK(recording);
  EXPECT_TRUE(
      MessageDifferencer::Equals(recording->trajectory(), episode.Upload()));
  const auto* rewards = reinterpret_cast<const float*>(
      recording->trajectory().rewards().data().data());
  EXPECT_EQ(rewards[10], 0);
  EXPECT_NE(rewards[11], 0);
  double sum = 0;
  for (int i = 0; i < 14; ++i) sum += rewards[i];
  EXPECT_DOUBLE_EQ(recording->info().episode_return(), sum);
}

TEST_F(RecordingTest, EveryStepNeedsTheOutcomeOfTheOneBefore) {
  Start(Options());
  TestEpisode episode = Recorded(1);
  ASSERT_OK(episode.Open());
  ASSERT_OK(episode.Steps(2));
  client::StepRow row = episode.NextRow();
  row.previous_outcome.reset();
  EXPECT_THAT(client_->GetAction({row}),
              RefusedWith(Code::kInvalidArgument, "MALFORMED_REQUEST"));
  ASSERT_OK(episode.Step());  // The refused one was not taken.
  ASSERT_OK(episode.Close(v1::END_KIND_TERMINATED));
  const auto recording = training_->GetRecording(episode.id());
  ASSERT_OK(recording);
  EXPECT_TRUE(
      MessageDifferencer::Equals(recording->trajectory(), episode.Upload()));
}

TEST_F(RecordingTest, EpisodesThatNoServerHoldsAreNotRecorded) {
  Start(Options());
  TestEpisode episode = Recorded(1);
  client::StepRow row = episode.NextRow();
  row.client_episode = client::ClientEpisode{5, false};
  auto request = client::ToRequest(std::vector<client::StepRow>{row}, false);
  ASSERT_OK(request);
  request->mutable_rows(0)->mutable_client_episode()->set_record(true);
  EXPECT_THAT(client_->GetActionMessage(*request),
              RefusedWith(Code::kInvalidArgument, "MALFORMED_REQUEST"));
}

TEST_F(RecordingTest, ARequestHasUploadedOrRecordedEpisodes) {
  Start(Options());
  const TestEpisode episode = Played(1, 3, v1::END_KIND_TERMINATED);
  v1::ForwardBackwardRequest request = PpoOn({episode.id()});
  *request.mutable_batch()->add_trajectories() = episode.Upload();
  EXPECT_THAT(training_->ForwardBackward(request),
              RefusedWith(Code::kInvalidArgument, "MALFORMED_REQUEST"));
  request.clear_batch();
  request.clear_recorded();
  EXPECT_THAT(training_->ForwardBackward(request),
              RefusedWith(Code::kInvalidArgument, "MALFORMED_REQUEST"));
  request.mutable_recorded();
  EXPECT_THAT(training_->ForwardBackward(request),
              RefusedWith(Code::kInvalidArgument, "MALFORMED_REQUEST"));
  EXPECT_THAT(TrainOn({episode.id(), episode.id()}),
              RefusedWith(Code::kInvalidArgument, "MALFORMED_REQUEST"));
  EXPECT_THAT(TrainOn({episode.id(), "0123456789abcdef"}),
              RefusedWith(Code::kNotFound, "UNKNOWN_EPISODE"));
  TestEpisode open = Recorded(2);
  ASSERT_OK(open.Open());
  ASSERT_OK(open.Steps(2));
  EXPECT_THAT(TrainOn({open.id()}),
              RefusedWith(Code::kFailedPrecondition, "INCOMPLETE_RECORDING"));
  EXPECT_OK(TrainOn({episode.id()}));
}

TEST_F(RecordingTest, StayUntilTheLearnerDiscardsThem) {
  Start(Options());
  const TestEpisode first = Played(1, 3, v1::END_KIND_TERMINATED);
  const TestEpisode second = Played(2, 4, v1::END_KIND_TRUNCATED);
  ASSERT_OK(TrainOn({first.id(), second.id()}));
  ASSERT_OK(TrainOn({first.id(), second.id()}));  // A learner that crashed.
  ASSERT_EQ(List().size(), 2);

  auto stub = v1::PolicyTraining::NewStub(channel_);
  const auto discard = [&](int64_t token, int64_t sequence) {
    v1::DiscardRecordingsRequest request;
    request.mutable_write()->set_lease_token(token);
    request.mutable_write()->set_sequence(sequence);
    request.add_episode_ids(first.id());
    request.add_episode_ids("gone");
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() +
                         std::chrono::minutes(1));
    v1::DiscardRecordingsResponse response;
    const grpc::Status status =
        stub->DiscardRecordings(&context, request, &response);
    return status.ok() ? response.discarded() : -1;
  };
  const auto lease = training_->AcquireLearner("test");
  ASSERT_OK(lease);
  EXPECT_EQ(discard(lease->lease_token() - 1, 1), -1);  // Another's lease.
  EXPECT_EQ(List().size(), 2);
  EXPECT_EQ(discard(lease->lease_token(), 1), 1);
  EXPECT_EQ(discard(lease->lease_token(), 1), 1);  // The stored answer.
  EXPECT_EQ(discard(lease->lease_token(), 2), 0);
  ASSERT_EQ(List().size(), 1);
  EXPECT_EQ(List()[0].episode_id(), second.id());
  EXPECT_EQ(Status().discarded(), 1);
  EXPECT_EQ(Status().memory_bytes(), MemoryFor(1, 1));
}

TEST_F(RecordingTest, AreListedPageByPage) {
  Start(Options());
  std::vector<std::string> ids;
  for (int key = 0; key < 5; ++key) {
    ids.push_back(
        Played(key, 1,
               key == 2 ? v1::END_KIND_ABORTED : v1::END_KIND_TERMINATED)
            .id());
  }
  v1::ListRecordingsRequest request;
  request.set_max_results(2);
  request.set_state(v1::RECORDING_STATE_COMPLETE);
  std::vector<std::string> listed;
  int pages = 0;
  do {
    const auto page = training_->ListRecordings(request);
    ASSERT_OK(page);
    for (const auto& info : page->recordings()) {
      listed.push_back(info.episode_id());
    }
    request.set_after(page->next());
  } while (++pages < 9 && request.after() != 0);
  EXPECT_EQ(pages, 2);
  EXPECT_EQ(listed, (std::vector<std::string>{ids[0], ids[1], ids[3], ids[4]}));
  request.set_max_results(-1);
  EXPECT_THAT(training_->ListRecordings(request),
              RefusedWith(Code::kInvalidArgument, "MALFORMED_REQUEST"));
}

TEST_F(RecordingTest, AreReplayedLikeLogs) {
  Start(Options());
  const TestEpisode episode = Played(1, 12, v1::END_KIND_TRUNCATED);
  auto recording = training_->GetRecording(episode.id());
  ASSERT_OK(recording);
  Start(Options());  // A server that has seen nothing of it.
  auto report = client::Replay(*recording, *client_);
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_FALSE(report->difference) << client::DescribeReplay(*report);
  EXPECT_EQ(report->steps, 12);
  EXPECT_EQ(server_->inference().open_episodes(), 0);
  EXPECT_TRUE(List().empty());  // The replay is not recorded.

  const int64_t heads = recording->trajectory().actions().shape(1);
  std::string* actions =
      recording->mutable_trajectory()->mutable_actions()->mutable_data();
  (*actions)[7 * heads + 3] ^= 1;
  report = client::Replay(*recording, *client_);
  ASSERT_TRUE(report.ok()) << report.status();
  ASSERT_TRUE(report->difference);
  EXPECT_EQ(report->difference->episode, "env1");
  EXPECT_EQ(report->difference->step, 7);
  EXPECT_EQ(report->difference->head, spec_.heads[3].name);

  actions->resize(actions->size() - 1);
  EXPECT_THAT(client::Replay(*recording, *client_), StatusIs(Code::kDataLoss));
}

}  // namespace
}  // namespace esper::server
