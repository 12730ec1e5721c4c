#ifndef ESPER_TESTS_SERVER_RECORDING_FIXTURE_H_
#define ESPER_TESTS_SERVER_RECORDING_FIXTURE_H_

#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/admin_client.h"
#include "client/env/trajectory_recorder.h"
#include "client/policy_client.h"
#include "client/policy_messages.h"
#include "client/status.h"
#include "client/training_client.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "proto/codec/mask_codec.h"
#include "server/policy_heads.h"
#include "server/recording.h"
#include "server/server.h"
#include "tests/server/fake_clock.h"
#include "tests/testing/rollout.h"
#include "tests/testing/status_matchers.h"

namespace esper::server {

inline absl::Status StatusOf(const absl::Status& status) { return status; }
template <typename T>
absl::Status StatusOf(const absl::StatusOr<T>& value) {
  return value.status();
}

// As esper::testing::Refused, of what a client got.
MATCHER_P2(RefusedWith, code, reason,
           absl::StrCat("has the code ", absl::StatusCodeToString(code),
                        " and the reason ", reason)) {
  const absl::Status status = StatusOf(arg);
  const auto detail = client::ErrorDetailOf(status);
  *result_listener << status.ToString();
  return status.code() == code && detail && detail->reason() == reason;
}

// Bytes of requests, for the cost of training on the wire.
struct WireBytes {
  int64_t with_outcomes = 0;
  int64_t without = 0;
};

// One episode, played by a client that also records it itself: what it would
// upload must be what the server recorded.
class TestEpisode {
 public:
  TestEpisode(client::PolicyClient& client, const policy::PolicySpec& spec,
              int key, bool record, uint64_t incarnation = 1)
      : client_(client), spec_(spec), random_(key) {
    start_.environment_key = absl::StrCat("env", key);
    start_.seed = 100 + key;
    start_.incarnation = incarnation;
    start_.record = record;
  }

  absl::Status Open() {
    auto handles = client_.OpenEpisodes({start_});
    if (!handles.ok()) return handles.status();
    handle_ = handles->front();
    return absl::OkStatus();
  }

  // The row of the next step; the same until the step is taken.
  const client::StepRow& NextRow() {
    if (!row_) {
      client::StepRow row;
      row.episode = handle_;
      row.step = recorder_.steps();
      row.previous_outcome = outcome_;
      row.input = RandomInput();
      row_ = std::move(row);
    }
    return *row_;
  }

  absl::Status Step() {
    auto answers = client_.GetAction({NextRow()});
    if (!answers.ok()) return answers.status();
    Took(answers->front());
    return absl::OkStatus();
  }
  absl::Status Steps(int count) {
    for (int i = 0; i < count; ++i) {
      absl::Status status = Step();
      if (!status.ok()) return status;
    }
    return absl::OkStatus();
  }

  client::EpisodeClose ClosingAs(v1::EndKind end) {
    client::EpisodeClose close;
    close.episode = handle_;
    close.steps = recorder_.steps();
    if (end != v1::END_KIND_ABORTED) close.last_outcome = outcome_;
    close.end_kind = end;
    if (end == v1::END_KIND_TRUNCATED) close.final_input = RandomInput();
    return close;
  }
  absl::Status Close(v1::EndKind end) {
    end_ = end;
    const client::EpisodeClose close = ClosingAs(end);
    if (wire_ != nullptr) Measure(close);
    auto closed = client_.CloseEpisodes({close});
    if (!closed.ok()) return closed.status();
    bootstrap_ = closed->front().bootstrap_value;
    return absl::OkStatus();
  }
  absl::Status Play(int steps, v1::EndKind end) {
    absl::Status status = Open();
    if (status.ok()) status = Steps(steps);
    if (status.ok()) status = Close(end);
    return status;
  }

  // What the client would upload.
  v1::Trajectory Upload() const {
    v1::Trajectory upload = recorder_.Finish(
        spec_.Digest(), start_.environment_key, end_, bootstrap_);
    if (DriverHead(spec_) < 0) upload.clear_effective_choices();
    return upload;
  }

  void MeasureInto(WireBytes* wire) { wire_ = wire; }
  // The next outcome forfeits the rewards before it.
  void ForfeitNext() { forfeit_ = true; }
  const std::string& id() const { return handle_.id; }
  const client::EpisodeHandle& handle() const { return handle_; }
  const std::vector<client::ActionRow>& answers() const { return answers_; }

 private:
  void Took(const client::ActionRow& answer) {
    if (wire_ != nullptr) Measure(*row_);
    client::StepOutcome outcome;
    outcome.reward = std::uniform_real_distribution<float>(-1, 1)(random_);
    const int64_t driver = DriverHead(spec_);
    if (driver >= 0) {
      // Now and then the environment refuses the action, or leaves no choice.
      outcome.effective_choice =
          random_() % 4 == 0 && spec_.heads[driver].idle_choice >= 0
              ? static_cast<int32_t>(spec_.heads[driver].idle_choice)
              : static_cast<int32_t>(answer.actions[driver]);
    }
    outcome.forced = random_() % 5 == 0;
    if (spec_.contribution_outputs > 0 && random_() % 2 == 0) {
      outcome.contribution_targets.resize(spec_.contribution_outputs);
      outcome.contribution_mask.resize(spec_.contribution_outputs);
      for (int64_t p = 0; p < spec_.contribution_outputs; ++p) {
        outcome.contribution_targets[p] =
            std::uniform_real_distribution<float>(-5, 5)(random_);
        outcome.contribution_mask[p] = random_() % 2;
      }
    }
    outcome.forfeits_earlier_rewards = std::exchange(forfeit_, false);
    recorder_.Add(row_->input, answer, outcome);
    if (outcome.forfeits_earlier_rewards) recorder_.ForfeitEarlierRewards();
    answers_.push_back(answer);
    outcome_ = std::move(outcome);
    row_.reset();
  }

  static v1::GetActionRequest Rows(const client::StepRow& row) {
    return client::ToRequest(std::vector<client::StepRow>{row}, false).value();
  }
  static v1::CloseEpisodesRequest Ends(const client::EpisodeClose& close) {
    return client::ToRequest(std::vector<client::EpisodeClose>{close}).value();
  }
  void Measure(client::StepRow row) {
    wire_->with_outcomes += Rows(row).ByteSizeLong();
    row.previous_outcome.reset();
    wire_->without += Rows(row).ByteSizeLong();
  }
  void Measure(client::EpisodeClose close) {
    wire_->with_outcomes += Ends(close).ByteSizeLong();
    close.last_outcome.reset();
    wire_->without += Ends(close).ByteSizeLong();
  }

  client::PolicyInput RandomInput() {
    std::normal_distribution<float> normal;
    client::PolicyInput input;
    input.observation.resize(spec_.observation_width());
    for (float& x : input.observation) x = normal(random_);
    input.categorical.resize(spec_.categorical_count());
    for (int8_t& c : input.categorical) {
      c = static_cast<int8_t>(static_cast<int>(random_() % 14) - 1);
    }
    if (spec_.mask_optional) return input;
    const codec::MaskCodec codec(spec_);
    codec::ActionMasks masks = codec.AllowAll(1);
    masks.conditional[0][random_() % 6][random_() % spec_.heads[0].size] =
        false;
    v1::Tensor packed;
    codec.Encode(masks, &packed);
    input.packed_mask.assign(packed.data().begin(), packed.data().end());
    return input;
  }

  client::PolicyClient& client_;
  const policy::PolicySpec& spec_;
  std::mt19937 random_;
  client::EpisodeStart start_;
  client::EpisodeHandle handle_;
  client::TrajectoryRecorder recorder_;
  std::optional<client::StepRow> row_;
  std::optional<client::StepOutcome> outcome_;
  std::vector<client::ActionRow> answers_;
  v1::EndKind end_ = v1::END_KIND_UNSPECIFIED;
  float bootstrap_ = 0;
  bool forfeit_ = false;
  WireBytes* wire_ = nullptr;
};

// A server in process under a fake clock, and clients that do not retry.
class RecordingTest : public ::testing::Test {
 protected:
  ~RecordingTest() override {
    Stop();
    std::filesystem::remove_all(folder_);
  }

  static client::RetryPolicy NoRetry() {
    client::RetryPolicy retry;
    retry.attempt_timeout = absl::Minutes(1);
    retry.give_up_after = absl::ZeroDuration();
    return retry;
  }
  ServerOptions Options() {
    ServerOptions options;
    options.address = "";
    options.spec = spec_;
    options.init_seed = 3;
    options.clock = clock_.AsClock();
    options.inference.max_episodes = 64;
    return options;
  }
  // Memory for so many recordings of so many blocks in all.
  int64_t MemoryFor(int64_t recordings, int64_t blocks) const {
    return recordings * Recording::kFixedBytes +
           blocks * Recording::BlockBytes(RecordingLayout(spec_));
  }
  ServerOptions Small(int64_t recordings, int64_t blocks) {
    ServerOptions options = Options();
    options.recordings.max_bytes = MemoryFor(recordings, blocks);
    return options;
  }
  void Stop() {
    client_ = nullptr;
    training_ = nullptr;
    admin_ = nullptr;
    channel_ = nullptr;
    server_ = nullptr;
  }
  void Start(const ServerOptions& options) {
    Stop();
    auto server = Server::Create(options);
    ASSERT_OK(server);
    server_ = *std::move(server);
    channel_ = server_->InProcessChannel();
    client_ = std::make_unique<client::PolicyClient>(channel_, NoRetry());
    training_ = std::make_unique<client::TrainingClient>(channel_, NoRetry());
    admin_ = std::make_unique<client::AdminClient>(channel_, NoRetry());
    ASSERT_OK(training_->AcquireLearner("test"));
  }

  TestEpisode Recorded(int key, uint64_t incarnation = 1) {
    return {*client_, spec_, key, /*record=*/true, incarnation};
  }
  TestEpisode Played(int key, int steps, v1::EndKind end) {
    TestEpisode episode = Recorded(key);
    EXPECT_OK(episode.Play(steps, end));
    return episode;
  }
  static v1::ForwardBackwardRequest PpoOn(const std::vector<std::string>& ids) {
    v1::ForwardBackwardRequest request;
    request.mutable_ppo();
    request.set_first_pass(true);
    for (const std::string& id : ids) {
      request.mutable_recorded()->add_episode_ids(id);
    }
    return request;
  }
  absl::StatusOr<v1::ForwardBackwardResponse> TrainOn(
      const std::vector<std::string>& ids) {
    v1::ForwardBackwardRequest request = PpoOn(ids);
    return training_->ForwardBackward(request);
  }
  std::vector<v1::RecordingInfo> List() {
    const auto page = training_->ListRecordings({});
    EXPECT_OK(page);
    if (!page.ok()) return {};
    return {page->recordings().begin(), page->recordings().end()};
  }
  absl::StatusOr<int64_t> Discard(const std::vector<std::string>& ids,
                                  bool all_incomplete = false) {
    v1::DiscardRecordingsRequest request;
    for (const std::string& id : ids) request.add_episode_ids(id);
    request.set_all_incomplete(all_incomplete);
    return training_->DiscardRecordings(request);
  }
  v1::RecordingStatus Status() {
    const auto status = admin_->GetStatus();
    EXPECT_OK(status);
    return status.ok() ? status->recordings() : v1::RecordingStatus();
  }

  policy::PolicySpec spec_ = esper::testing::SmallSpec();
  const std::filesystem::path folder_ =
      std::filesystem::path(::testing::TempDir()) /
      absl::StrCat("recordings", getpid());
  esper::testing::FakeClock clock_;
  std::unique_ptr<Server> server_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<client::PolicyClient> client_;
  std::unique_ptr<client::TrainingClient> training_;
  std::unique_ptr<client::AdminClient> admin_;
};

}  // namespace esper::server
#endif  // ESPER_TESTS_SERVER_RECORDING_FIXTURE_H_
