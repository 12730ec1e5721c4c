// Episodes whose recurrent state the client holds, over a real channel.

#include <algorithm>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "server/state_codec.h"
#include "tests/server/service_fixture.h"
#include "tests/testing/status_matchers.h"

namespace esper::testing {
namespace {

using Code = absl::StatusCode;

class ClientStateTest : public ServiceTest {
 protected:
  ClientStateTest() { Start(); }

  // Adds the row of an environment's step; `state` is empty at step 0.
  void AddHeldRow(int environment, int64_t step, const std::string& state,
                  uint64_t seed, v1::GetActionRequest* request) const {
    AddRow(environment, "", step, request);
    v1::StepRow* row = request->mutable_rows(request->rows_size() - 1);
    row->clear_incarnation();
    if (step == 0) {
      row->mutable_client_episode()->set_seed(seed);
    } else {
      row->set_recurrent_state(state);
    }
  }
  v1::GetActionRequest HeldRequest(int environment, int64_t step,
                                   const std::string& state,
                                   uint64_t seed = 0) const {
    v1::GetActionRequest request;
    AddHeldRow(environment, step, state, seed, &request);
    return request;
  }

  // Takes steps [0, steps), and gives the state after the last.
  std::vector<StepNumbers> PlayHeld(uint64_t seed, int environment,
                                    int64_t steps,
                                    std::string* state = nullptr) {
    std::vector<StepNumbers> played;
    std::string held;
    for (int64_t step = 0; step < steps; ++step) {
      const auto response = Act(HeldRequest(environment, step, held, seed));
      EXPECT_OK(response);
      if (!response.ok() || response->recurrent_states_size() != 1) break;
      held = response->recurrent_states(0);
      played.push_back(NumbersOf(*response, 0));
    }
    if (state != nullptr) *state = held;
    return played;
  }
};

TEST_F(ClientStateTest, ActsBitForBitAsAnEpisodeThatTheServerHolds) {
  const auto held = PlayHeld(/*seed=*/77, 0, 25);
  const auto kept = Play(Open("env", 77), 0, 25);
  ASSERT_EQ(held.size(), kept.size());
  for (size_t step = 0; step < held.size(); ++step) {
    EXPECT_TRUE(held[step] == kept[step]) << "step " << step;
  }
  EXPECT_EQ(server_->inference().open_episodes(), 1);
}

TEST_F(ClientStateTest, DeterministicEpisodesDrawNoNoise) {
  std::vector<StepNumbers> kept, held;
  v1::OpenEpisodesRequest open = OpenRequest("env", 3);
  open.mutable_episodes(0)->set_deterministic(true);
  const auto opened = Open(open);
  ASSERT_OK(opened);
  kept = Play(opened->episode_ids(0), 0, 5);
  std::string state;
  for (int64_t step = 0; step < 5; ++step) {
    v1::GetActionRequest request = HeldRequest(0, step, state, /*seed=*/99);
    if (step == 0) {
      request.mutable_rows(0)->mutable_client_episode()->set_deterministic(
          true);
    }
    const auto response = Act(request);
    ASSERT_OK(response);
    state = response->recurrent_states(0);
    held.push_back(NumbersOf(*response, 0));
  }
  // Another seed, and yet the same.
  EXPECT_TRUE(held == kept);
}

TEST_F(ClientStateTest, AnyReplicaGoesOn) {
  std::string state;
  auto played = PlayHeld(5, 0, 10, &state);
  // Another server with the same weights, which has seen nothing of this.
  Start();
  for (int64_t step = 10; step < 20; ++step) {
    const auto response = Act(HeldRequest(0, step, state));
    ASSERT_OK(response);
    state = response->recurrent_states(0);
    played.push_back(NumbersOf(*response, 0));
  }
  ExpectSameSteps(played, PlayLocally(5, 0, 20), 1e-6f);
}

TEST_F(ClientStateTest, TheSameStateGivesTheSameAnswerAgain) {
  std::string state;
  PlayHeld(5, 0, 3, &state);
  const auto first = Act(HeldRequest(0, 3, state));
  ASSERT_OK(first);
  for (int copy = 0; copy < 3; ++copy) {
    const auto again = Act(HeldRequest(0, 3, state));
    ASSERT_OK(again);
    EXPECT_EQ(again->SerializeAsString(), first->SerializeAsString());
  }
  // A branch: the same state under other observations.
  const auto branch = Act(HeldRequest(1, 3, state));
  ASSERT_OK(branch);
  EXPECT_FALSE(NumbersOf(*branch, 0) == NumbersOf(*first, 0));
}

TEST_F(ClientStateTest, OneCallMixesBothKindsOfRows) {
  const std::string id = Open("kept", 1);
  std::string state;
  std::vector<StepNumbers> kept, held;
  for (int64_t step = 0; step < 10; ++step) {
    v1::GetActionRequest request;
    AddRow(0, id, step, &request);
    AddHeldRow(1, step, state, 2, &request);
    const auto response = Act(request);
    ASSERT_OK(response);
    ASSERT_EQ(response->recurrent_states_size(), 2);
    EXPECT_EQ(response->recurrent_states(0), "");
    state = response->recurrent_states(1);
    kept.push_back(NumbersOf(*response, 0));
    held.push_back(NumbersOf(*response, 1));
  }
  ExpectSameSteps(kept, PlayLocally(1, 0, 10), 2e-5f);
  ExpectSameSteps(held, PlayLocally(2, 1, 10), 2e-5f);
  EXPECT_EQ(Act(Request(id, 10))->recurrent_states_size(), 0);
}

TEST_F(ClientStateTest, OneCallMayTakeManyStepsFromOneState) {
  std::string state;
  PlayHeld(5, 0, 3, &state);
  v1::GetActionRequest request;
  for (int row = 0; row < 5; ++row) AddHeldRow(0, 3, state, 0, &request);
  const auto response = Act(request);
  ASSERT_OK(response);
  for (int row = 1; row < 5; ++row) {
    EXPECT_EQ(NumbersOf(*response, row).actions,
              NumbersOf(*response, 0).actions);
  }
}

TEST_F(ClientStateTest, ManyClientsNeedNoRoomInTheTable) {
  server::ServerOptions options = Options();
  options.inference.max_episodes = 1;
  Start(options);
  Open("the only one");
  std::vector<std::thread> clients;
  std::vector<std::vector<StepNumbers>> played(6);
  for (int i = 0; i < 6; ++i) {
    clients.emplace_back([&, i] { played[i] = PlayHeld(i, i, 15); });
  }
  for (std::thread& client : clients) client.join();
  for (int i = 0; i < 6; ++i) {
    ExpectSameSteps(played[i], PlayLocally(i, i, 15), 2e-5f);
  }
  // Every lent row came back: a batch as large as allowed still has room.
  v1::GetActionRequest large;
  for (int i = 0; i < options.inference.max_rows_per_call; ++i) {
    AddHeldRow(i, 0, "", i, &large);
  }
  EXPECT_OK(Act(large));
  EXPECT_OK(Act(large));
}

TEST_F(ClientStateTest, DamageIsRefusedAndNamesItsRow) {
  std::string state;
  PlayHeld(5, 0, 3, &state);
  std::string damaged = state;
  damaged[100] ^= 1;
  v1::GetActionRequest request;
  AddHeldRow(0, 3, state, 0, &request);
  AddHeldRow(1, 3, damaged, 0, &request);
  const auto refused = Act(request).status();
  EXPECT_THAT(refused, Refused(Code::kInvalidArgument, "BAD_STATE"));
  EXPECT_EQ(DetailOf(refused)->row, 1);
  EXPECT_THAT(Act(HeldRequest(0, 3, "garbage")),
              Refused(Code::kInvalidArgument, "BAD_STATE"));
}

TEST_F(ClientStateTest, AStateOfAnotherPolicyIsRefused) {
  policy::PolicySpec wider = spec_;
  wider.hidden_dim *= 2;
  server::HeldState other;
  other.step = 3;
  other.h.assign(wider.lstm_layers * wider.hidden_dim, 0.5f);
  other.c = other.h;
  const std::string bytes = server::StateCodec(wider, "").Encode(other);
  EXPECT_THAT(Act(HeldRequest(0, 3, bytes)),
              Refused(Code::kFailedPrecondition, "SPEC_MISMATCH"));
}

TEST_F(ClientStateTest, TheStepMustBeTheOneThatTheStateIsFor) {
  std::string state;
  PlayHeld(5, 0, 3, &state);
  for (const int64_t step : {int64_t{1}, int64_t{2}, int64_t{4}}) {
    const auto refused = Act(HeldRequest(0, step, state)).status();
    EXPECT_THAT(refused,
                Refused(Code::kFailedPrecondition, "STEP_OUT_OF_ORDER"));
    EXPECT_EQ(DetailOf(refused)->step, 3);
  }
  v1::GetActionRequest begins_late = HeldRequest(0, 0, "");
  begins_late.mutable_rows(0)->set_step(2);
  EXPECT_THAT(Act(begins_late),
              Refused(Code::kFailedPrecondition, "STEP_OUT_OF_ORDER"));
}

TEST_F(ClientStateTest, ARowSaysOnceWhoseStateItNeeds) {
  std::string state;
  PlayHeld(5, 0, 3, &state);
  v1::GetActionRequest both = HeldRequest(0, 3, state);
  both.mutable_rows(0)->mutable_client_episode()->set_seed(1);
  EXPECT_THAT(Act(both), Refused(Code::kInvalidArgument, "MALFORMED_REQUEST"));
  v1::GetActionRequest kept_too = HeldRequest(0, 3, state);
  kept_too.mutable_rows(0)->set_episode_id(Open("env"));
  EXPECT_THAT(Act(kept_too),
              Refused(Code::kInvalidArgument, "MALFORMED_REQUEST"));
}

TEST_F(ClientStateTest, OutcomesAreCheckedButNotKept) {
  std::string state;
  PlayHeld(5, 0, 3, &state);
  v1::GetActionRequest request = HeldRequest(0, 3, state);
  request.mutable_rows(0)->mutable_previous_outcome()->set_reward(1);
  EXPECT_OK(Act(request));
  request.mutable_rows(0)->mutable_previous_outcome()->set_effective_choice(99);
  EXPECT_THAT(Act(request), Refused(Code::kInvalidArgument, "INVALID_ACTION"));
  v1::GetActionRequest first = HeldRequest(0, 0, "");
  first.mutable_rows(0)->mutable_previous_outcome()->set_reward(1);
  EXPECT_THAT(Act(first), Refused(Code::kInvalidArgument, "MALFORMED_REQUEST"));
}

TEST_F(ClientStateTest, OnlyServersWithTheSameKeyGoOn) {
  server::ServerOptions options = Options();
  options.inference.state_key = "0123456789abcdef";
  Start(options);
  std::string state;
  PlayHeld(5, 0, 3, &state);
  Start(options);
  EXPECT_OK(Act(HeldRequest(0, 3, state)));
  options.inference.state_key = "another key of theirs";
  Start(options);
  EXPECT_THAT(Act(HeldRequest(0, 3, state)),
              Refused(Code::kInvalidArgument, "BAD_STATE"));
  Start();
  EXPECT_THAT(Act(HeldRequest(0, 3, state)),
              Refused(Code::kInvalidArgument, "BAD_STATE"));
}

}  // namespace
}  // namespace esper::testing
