// Recorded logs, replayed against a real server.
#include "client/replay.h"

#include <unistd.h>

#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/action_log.h"
#include "client/policy_client.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/server/service_fixture.h"
#include "tests/server/step_rows.h"
#include "tests/testing/status_matchers.h"

namespace esper::testing {
namespace {

using client::ActionLogReader;
using client::ActionLogWriter;
using client::PolicyClient;
using client::ReplayReport;
using client::StepRow;
using ::testing::HasSubstr;
using Code = absl::StatusCode;

constexpr int kEnvironments = 3;
constexpr int64_t kSteps = 12;

class ReplayTest : public ServiceTest {
 protected:
  ReplayTest() : path_(absl::StrCat(::testing::TempDir(), "/log", getpid())) {
    unlink(path_.c_str());
    Start();
    Record();
  }
  ~ReplayTest() override { unlink(path_.c_str()); }

  StepRow Row(int environment, int64_t step) const {
    StepRow row = RowOf(InputsOf(environment, step), mask_codec_);
    row.step = step;
    return row;
  }

  // Plays episodes of both kinds, and records them.
  void Record() {
    auto log = ActionLogWriter::Create(path_);
    ASSERT_OK(log);
    PolicyClient client(channel_);
    client.RecordTo(log->get());
    std::vector<client::EpisodeStart> starts;
    for (int i = 0; i < kEnvironments; ++i) {
      starts.push_back({absl::StrCat("env", i), 1, 70u + i, i == 2});
    }
    const auto episodes = client.OpenEpisodes(starts);
    ASSERT_OK(episodes);
    std::string state;
    for (int64_t step = 0; step < kSteps; ++step) {
      std::vector<StepRow> rows;
      for (int i = 0; i < kEnvironments; ++i) {
        rows.push_back(Row(i, step));
        rows.back().episode = (*episodes)[i];
      }
      rows.push_back(Row(9, step));
      rows.back().client_episode = client::ClientEpisode{5, false};
      rows.back().recurrent_state = state;
      const auto answer = client.GetAction(rows);
      ASSERT_TRUE(answer.ok()) << answer.status();
      state = answer->back().recurrent_state;
    }
    client::EpisodeClose close;
    close.episode = (*episodes)[0];
    close.steps = kSteps;
    close.end_kind = v1::END_KIND_TERMINATED;
    close.last_outcome = client::StepOutcome();
    // The choice that took effect must be one the policy could have made.
    close.last_outcome->effective_choice = 0;
    ASSERT_OK(client.CloseEpisodes({close}));
  }

  absl::StatusOr<ReplayReport> Replay() {
    auto log = ActionLogReader::Open(path_);
    if (!log.ok()) return log.status();
    PolicyClient client(channel_);
    return client::Replay(**log, client);
  }

  std::string Bytes() const {
    std::ifstream file(path_, std::ios::binary);
    return {std::istreambuf_iterator<char>(file),
            std::istreambuf_iterator<char>()};
  }
  void SetBytes(const std::string& bytes) const {
    std::ofstream(path_, std::ios::binary | std::ios::trunc) << bytes;
  }

  // Writes the log again with the answers of step `step` changed.
  template <typename Change>
  void Tamper(int64_t step, const Change& change) {
    auto log = ActionLogReader::Open(path_);
    ASSERT_OK(log);
    std::vector<log::ActionLogRecord> records;
    for (auto record = (*log)->Next(); record.ok() && record->has_value();
         record = (*log)->Next()) {
      records.push_back(**record);
    }
    unlink(path_.c_str());
    auto writer = ActionLogWriter::Create(path_);
    ASSERT_OK(writer);
    for (log::ActionLogRecord& record : records) {
      if (record.has_opened()) {
        ASSERT_OK((*writer)->Opened(record.opened().request(),
                                    record.opened().response()));
      } else if (record.has_steps()) {
        auto* steps = record.mutable_steps();
        if (steps->request().rows(0).step() == step) {
          change(steps->mutable_response());
        }
        ASSERT_OK((*writer)->Acted(steps->request(), steps->response()));
      } else if (record.has_closed()) {
        ASSERT_OK((*writer)->Closed(record.closed().request(),
                                    record.closed().response()));
      }
    }
  }

  const std::string path_;
};

TEST_F(ReplayTest, TheSameWeightsTakeTheSameSteps) {
  Start();  // A server that has seen nothing of it.
  const auto report = Replay();
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_FALSE(report->difference.has_value())
      << client::DescribeReplay(*report);
  EXPECT_EQ(report->steps, (kEnvironments + 1) * kSteps);
  EXPECT_EQ(report->episodes, kEnvironments + 1);
  EXPECT_LE(report->largest_log_prob_difference, 2e-5);
  EXPECT_FALSE(report->cut_off);
  EXPECT_EQ(report->recorded.policy_version(), 1);
  EXPECT_EQ(report->recorded.spec_digest(), spec_.Digest());
  EXPECT_THAT(client::DescribeReplay(*report),
              HasSubstr("48 steps of 4 episodes identical"));
  // Nothing is left open.
  EXPECT_EQ(server_->inference().open_episodes(), 0);
}

TEST_F(ReplayTest, AnotherActionIsFoundWhereItIs) {
  Tamper(7, [](v1::GetActionResponse* response) {
    std::string* actions = response->mutable_actions()->mutable_data();
    const int64_t heads = response->actions().shape(1);
    (*actions)[1 * heads + 3] ^= 1;  // Row 1, head 3.
  });
  const auto report = Replay();
  ASSERT_TRUE(report.ok()) << report.status();
  ASSERT_TRUE(report->difference.has_value());
  EXPECT_EQ(report->difference->episode, "env1");
  EXPECT_EQ(report->difference->step, 7);
  EXPECT_EQ(report->difference->head, spec_.heads[3].name);
  EXPECT_THAT(report->difference->recorded, HasSubstr("action"));
  EXPECT_EQ(report->steps, 7 * (kEnvironments + 1) + 1);
  EXPECT_THAT(client::DescribeReplay(*report),
              HasSubstr(absl::StrCat("episode env1, step 7, head ",
                                     spec_.heads[3].name)));
  EXPECT_EQ(server_->inference().open_episodes(), kEnvironments - 1);
}

TEST_F(ReplayTest, AnotherLogProbabilityIsADifference) {
  Tamper(2, [](v1::GetActionResponse* response) {
    std::string* bytes =
        response->mutable_behaviour()->mutable_log_probs()->mutable_data();
    const float wrong = -42;
    bytes->replace(0, sizeof(wrong), reinterpret_cast<const char*>(&wrong),
                   sizeof(wrong));
  });
  const auto report = Replay();
  ASSERT_TRUE(report.ok()) << report.status();
  ASSERT_TRUE(report->difference.has_value());
  EXPECT_EQ(report->difference->step, 2);
  EXPECT_THAT(report->difference->recorded, HasSubstr("-42"));
}

TEST_F(ReplayTest, OtherWeightsAreADifference) {
  server::ServerOptions options = Options();
  options.init_seed = 12;
  Start(options);
  const auto report = Replay();
  ASSERT_TRUE(report.ok()) << report.status();
  ASSERT_TRUE(report->difference.has_value());
  EXPECT_EQ(report->difference->step, 0);
}

TEST_F(ReplayTest, AnotherPolicyIsNotReplayed) {
  server::ServerOptions options = Options();
  options.spec->hidden_dim *= 2;
  Start(options);
  EXPECT_THAT(Replay(), StatusIs(Code::kFailedPrecondition));
}

TEST_F(ReplayTest, ALogThatWasCutOffIsGoodUpToThere) {
  const std::string bytes = Bytes();
  SetBytes(bytes.substr(0, bytes.size() * 2 / 3));
  Start();
  const auto report = Replay();
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_FALSE(report->difference.has_value());
  EXPECT_TRUE(report->cut_off);
  EXPECT_GT(report->steps, 0);
  EXPECT_LT(report->steps, (kEnvironments + 1) * kSteps);
}

TEST_F(ReplayTest, ADamagedLogIsRefused) {
  SetBytes("\x03zzz" + Bytes());
  EXPECT_THAT(Replay(), StatusIs(Code::kDataLoss));
  SetBytes("");
  EXPECT_THAT(Replay(), StatusIs(Code::kDataLoss));
  unlink(path_.c_str());
  EXPECT_THAT(Replay(), StatusIs(Code::kNotFound));
}

TEST_F(ReplayTest, LogsAreNeverOverwritten) {
  EXPECT_THAT(ActionLogWriter::Create(path_).status(),
              StatusIs(Code::kAlreadyExists));
  EXPECT_THAT(ActionLogWriter::Create("/no/such/folder/log").status(),
              StatusIs(Code::kUnavailable));
}

}  // namespace
}  // namespace esper::testing
