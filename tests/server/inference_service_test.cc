// What the inference service promises, over a real channel.
#include "server/inference_service.h"

#include <cmath>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "ATen/ops/zeros.h"
#include "core/policy/inference_policy.h"
#include "core/ppo/learner.h"
#include "gtest/gtest.h"
#include "proto/codec/tensor_codec.h"
#include "tests/server/service_fixture.h"
#include "tests/testing/status_matchers.h"

namespace esper::testing {
namespace {

// Rounding of a product whose batch has another size.
constexpr float kRounding = 2e-5f;

class InferenceServiceTest : public ServiceTest {
 protected:
  InferenceServiceTest() { Start(); }

  // One call with row i = step `step` of environment i.
  v1::GetActionRequest Batch(const std::vector<std::string>& ids,
                             int64_t step) const {
    v1::GetActionRequest request;
    for (size_t i = 0; i < ids.size(); ++i) {
      AddRow(static_cast<int>(i), ids[i], step, &request);
    }
    return request;
  }

  static float Float(const v1::Tensor& tensor, int64_t at) {
    float value = 0;
    std::memcpy(&value, tensor.data().data() + at * sizeof(float),
                sizeof(float));
    return value;
  }
  static double Double(const v1::Tensor& tensor, int64_t at) {
    double value = 0;
    std::memcpy(&value, tensor.data().data() + at * sizeof(double),
                sizeof(double));
    return value;
  }

  v1::EpisodeEnd End(const std::string& id, int64_t steps,
                     v1::EndKind kind) const {
    v1::EpisodeEnd end;
    end.set_episode_id(id);
    end.set_incarnation(1);
    end.set_steps(steps);
    end.set_end_kind(kind);
    end.mutable_last_outcome()->set_reward(0.5f);
    return end;
  }
};

TEST_F(InferenceServiceTest, TellsItsPolicyAndItsLimits) {
  grpc::ClientContext context;
  v1::GetPolicyResponse response;
  ASSERT_TRUE(
      stub_->GetPolicy(&context, v1::GetPolicyRequest(), &response).ok());
  EXPECT_EQ(response.header().policy_version(), 1);
  EXPECT_EQ(response.header().spec_digest(), spec_.Digest());
  const auto spec = policy::PolicySpec::FromJson(response.spec_json());
  ASSERT_OK(spec);
  EXPECT_TRUE(*spec == spec_);
  EXPECT_EQ(response.precision(), "fp32");
  EXPECT_EQ(response.device(), "cpu");
  EXPECT_EQ(response.limits().max_episodes(), 64);
  EXPECT_EQ(response.limits().max_message_bytes(), 4 << 20);
  EXPECT_EQ(response.limits().episode_lease().seconds(), 600);
}

TEST_F(InferenceServiceTest, AnswersWhatThePolicyItselfWouldDo) {
  const auto played = Play(Open("env", /*seed=*/77), 0, 20);
  ExpectSameSteps(played, PlayLocally(77, 0, 20), 1e-6f);
}

TEST_F(InferenceServiceTest, AnswersCarryAllTheyShould) {
  const std::string id = Open("env");
  v1::GetActionRequest request = Request(id, 0);
  request.set_return_entropies(true);
  const auto response = Act(request);
  ASSERT_OK(response);
  EXPECT_EQ(response->header().policy_version(), 1);
  EXPECT_EQ(response->actions().dtype(), v1::DATA_TYPE_UINT8);
  EXPECT_EQ(codec::Describe(response->actions()), "uint8 [1, 8]");
  const v1::BehaviourNumbers& behaviour = response->behaviour();
  EXPECT_EQ(behaviour.kind(), v1::NUMBER_KIND_BEHAVIOUR);
  EXPECT_EQ(codec::Describe(behaviour.log_probs()), "float32 [1, 8]");
  EXPECT_EQ(codec::Describe(behaviour.values()), "float32 [1]");
  EXPECT_EQ(codec::Describe(behaviour.entropies()), "float32 [1, 8]");
  EXPECT_EQ(codec::Describe(response->policy_versions()), "int64 [1]");
  for (const float log_prob : NumbersOf(*response, 0).log_probs) {
    EXPECT_LE(log_prob, 1e-6f);
    EXPECT_TRUE(std::isfinite(log_prob));
  }
  EXPECT_FALSE(Act(Request(id, 1))->behaviour().has_entropies());
}

TEST_F(InferenceServiceTest, ARepeatedStepGetsTheSameBytesAndDoesNotAdvance) {
  const std::string id = Open("env", 5);
  std::vector<StepNumbers> played;
  for (int64_t step = 0; step < 10; ++step) {
    const v1::GetActionRequest request = Request(id, step);
    const auto first = Act(request);
    ASSERT_OK(first);
    for (int i = 0; i < 3; ++i) {
      const auto again = Act(request);
      ASSERT_OK(again);
      EXPECT_EQ(again->SerializeAsString(), first->SerializeAsString());
    }
    played.push_back(NumbersOf(*first, 0));
  }
  // The state has taken each step once.
  ExpectSameSteps(played, PlayLocally(5, 0, 10), 1e-6f);
  EXPECT_EQ(server_->counters().steps_repeated, 30);
}

TEST_F(InferenceServiceTest, ARetryThatOvertakesTheReplyGetsTheSameAnswer) {
  const std::string id = Open("env");
  const v1::GetActionRequest request = Request(id, 0);
  clock_.Hold();
  std::vector<std::string> answers(8);
  std::vector<std::thread> calls;
  for (std::string& answer : answers) {
    calls.emplace_back([&] {
      const auto response = Act(request);
      EXPECT_OK(response);
      if (response.ok()) answer = response->SerializeAsString();
    });
    // The first is being worked on when the others arrive.
    if (calls.size() == 1) clock_.AwaitAsked();
  }
  while (server_->inference().queued_calls() < 7) std::this_thread::yield();
  clock_.Release();
  for (std::thread& call : calls) call.join();
  for (const std::string& answer : answers) EXPECT_EQ(answer, answers.front());
  EXPECT_EQ(server_->counters().actions_served, 1);
  EXPECT_OK(Act(Request(id, 1)));
}

// Several workers, several copies of every call: each step is still taken once.
TEST_F(InferenceServiceTest, CopiesOfACallRaceToTheSameAnswer) {
  constexpr int kEnvironments = 3;
  constexpr int kCopies = 3;
  constexpr int64_t kSteps = 20;
  server::ServerOptions options = Options();
  options.inference.workers = 3;
  Start(options);
  std::vector<std::thread> environments;
  for (int i = 0; i < kEnvironments; ++i) {
    environments.emplace_back([this, i] {
      const std::string id = Open("env" + std::to_string(i), 60 + i);
      std::vector<StepNumbers> played;
      for (int64_t step = 0; step < kSteps; ++step) {
        const v1::GetActionRequest request = Request(id, step, i);
        std::vector<StepNumbers> answers(kCopies);
        std::vector<std::thread> copies;
        for (StepNumbers& answer : answers) {
          copies.emplace_back([&] {
            const auto response = Act(request);
            EXPECT_OK(response);
            if (response.ok()) answer = NumbersOf(*response, 0);
          });
        }
        for (std::thread& copy : copies) copy.join();
        for (const auto& answer : answers) {
          EXPECT_TRUE(answer == answers.front());
        }
        played.push_back(answers.front());
      }
      ExpectSameSteps(played, PlayLocally(60 + i, i, kSteps), kRounding);
    });
  }
  for (std::thread& environment : environments) environment.join();
  EXPECT_EQ(server_->counters().actions_served, kEnvironments * kSteps);
  EXPECT_EQ(server_->counters().steps_repeated,
            kEnvironments * kSteps * (kCopies - 1));
}

TEST_F(InferenceServiceTest, ACallPastItsDeadlineNeverTakesAStep) {
  const std::string a = Open("a"), b = Open("b");
  clock_.Hold();
  std::thread first([&] { EXPECT_OK(Act(Request(a, 0))); });
  clock_.AwaitAsked();
  EXPECT_EQ(Act(Request(b, 0), absl::Milliseconds(100)).status().code(),
            absl::StatusCode::kDeadlineExceeded);
  clock_.Release();
  first.join();
  EXPECT_OK(Act(Request(b, 0)));
  EXPECT_EQ(server_->counters().actions_served, 2);
  EXPECT_EQ(server_->counters().steps_repeated, 0);
}

TEST_F(InferenceServiceTest, ARowDoesNotDependOnItsBatch) {
  constexpr int kEnvironments = 24;
  constexpr int64_t kSteps = 12;
  std::vector<std::string> ids;
  for (int i = 0; i < kEnvironments; ++i) {
    ids.push_back(Open("env" + std::to_string(i), /*seed=*/100 + i));
  }
  std::vector<std::vector<StepNumbers>> played(kEnvironments);
  for (int64_t step = 0; step < kSteps; ++step) {
    const auto response = Act(Batch(ids, step));
    ASSERT_OK(response);
    for (int i = 0; i < kEnvironments; ++i) {
      played[i].push_back(NumbersOf(*response, i));
    }
  }
  for (int i = 0; i < kEnvironments; ++i) {
    ExpectSameSteps(played[i], PlayLocally(100 + i, i, kSteps), kRounding);
  }
}

TEST_F(InferenceServiceTest, ABatchMayMixRepeatedAndNewSteps) {
  const std::string a = Open("a", 1), b = Open("b", 2);
  ASSERT_OK(Act(Request(a, 0, /*environment=*/0)));
  const auto before = Act(Request(a, 1, 0));
  ASSERT_OK(before);
  ASSERT_OK(Act(Request(b, 0, 1)));
  v1::GetActionRequest mixed;
  AddRow(0, a, 1, &mixed);
  AddRow(1, b, 1, &mixed);
  const auto response = Act(mixed);
  ASSERT_OK(response);
  EXPECT_TRUE(NumbersOf(*response, 0) == NumbersOf(*before, 0));
  ExpectSameSteps({NumbersOf(*response, 1)}, {PlayLocally(2, 1, 2)[1]}, 1e-6f);
}

TEST_F(InferenceServiceTest, TheSeedDecidesAndNothingElse) {
  const auto first = Play(Open("a", 9), 0, 15);
  const auto second = Play(Open("b", 9), 0, 15);
  const auto other = Play(Open("c", 10), 0, 15);
  EXPECT_TRUE(first == second);
  EXPECT_FALSE(first == other);
  // A server started anew does it again.
  Start();
  EXPECT_TRUE(first == Play(Open("d", 9), 0, 15));
}

TEST_F(InferenceServiceTest, DeterministicEpisodesTakeTheMostLikelyAction) {
  v1::OpenEpisodesRequest request = OpenRequest("a", 1);
  request.MergeFrom(OpenRequest("b", 2));
  for (auto& episode : *request.mutable_episodes()) {
    episode.set_deterministic(true);
  }
  const auto opened = Open(request);
  ASSERT_OK(opened);
  EXPECT_TRUE(Play(opened->episode_ids(0), 0, 10) ==
              Play(opened->episode_ids(1), 0, 10));
}

TEST_F(InferenceServiceTest, ManyClientsGetWhatEachWouldGetAlone) {
  constexpr int kClients = 8;
  constexpr int64_t kSteps = 50;
  server::ServerOptions options = Options();
  options.inference.workers = 2;
  Start(options);
  std::vector<std::vector<StepNumbers>> played(kClients);
  std::vector<std::thread> clients;
  for (int i = 0; i < kClients; ++i) {
    clients.emplace_back([this, i, &played] {
      played[i] = Play(Open("client" + std::to_string(i), 40 + i), i, kSteps);
    });
  }
  for (std::thread& client : clients) client.join();
  for (int i = 0; i < kClients; ++i) {
    ExpectSameSteps(played[i], PlayLocally(40 + i, i, kSteps), kRounding);
  }
  EXPECT_EQ(server_->counters().actions_served, kClients * kSteps);
}

TEST_F(InferenceServiceTest, ClosingAnswersBootstrapAndReturnAgainAndAgain) {
  const std::string cut = Open("cut", 3), ended = Open("ended", 4);
  const auto played = Play(cut, 0, 2);
  v1::GetActionRequest third = Request(cut, 2);
  auto* outcome = third.mutable_rows(0)->mutable_previous_outcome();
  outcome->set_reward(2.0f);
  outcome->set_effective_choice(
      static_cast<int32_t>(played.back().actions.back()));
  ASSERT_OK(Act(third));
  ASSERT_OK(Act(third));  // The outcome counts once.
  ASSERT_OK(Act(Request(ended, 0, 1)));

  v1::CloseEpisodesRequest request;
  *request.add_episodes() = End(ended, 1, v1::END_KIND_TERMINATED);
  *request.add_episodes() = End(cut, 3, v1::END_KIND_TRUNCATED);
  // The row that is not read may hold anything.
  const StepInputs last = InputsOf(0, 3);
  at::Tensor observations = at::zeros({2, spec_.observation_width()});
  observations[0].fill_(NAN);
  observations[1].copy_(last.observations[0]);
  at::Tensor categorical = at::zeros({2, 3}, at::kLong);
  categorical[0].fill_(99);
  categorical[1].copy_(last.categorical[0]);
  codec::EncodeTensor(observations, request.mutable_final_observations());
  codec::EncodeTensor(categorical.to(at::kChar),
                      request.mutable_final_categorical());
  const auto closed = Close(request);
  ASSERT_OK(closed);
  EXPECT_EQ(Float(closed->bootstrap_values(), 0), 0);
  // The value that acting would have had at the next step.
  EXPECT_NEAR(Float(closed->bootstrap_values(), 1),
              PlayLocally(3, 0, 4).back().value, 1e-6);
  EXPECT_DOUBLE_EQ(Double(closed->returns(), 0), 0.5);
  EXPECT_DOUBLE_EQ(Double(closed->returns(), 1), 2.5);
  const auto again = Close(request);
  ASSERT_OK(again);
  EXPECT_EQ(again->SerializeAsString(), closed->SerializeAsString());
  EXPECT_EQ(server_->inference().open_episodes(), 0);
}

TEST_F(InferenceServiceTest, ANewEpisodeStartsFromZeroState) {
  server::ServerOptions options = Options();
  options.inference.max_episodes = 1;
  Start(options);
  const auto first = Play(Open("a", 6), 0, 5);
  v1::GetActionRequest request = Request(Open("a", 6, /*incarnation=*/3), 0);
  request.mutable_rows(0)->set_incarnation(3);
  const auto fresh = Act(request);
  ASSERT_OK(fresh);
  EXPECT_TRUE(NumbersOf(*fresh, 0) == first.front());
}

TEST_F(InferenceServiceTest, APublishedVersionActsFromTheNextCallOn) {
  const std::string a = Open("a", 1), b = Open("b", 1);
  const auto before = Act(Request(a, 0));
  ASSERT_OK(before);
  // Other weights, published as version 2.
  auto other = ppo::Learner::Create(spec_, ppo::LearnerConfig(), 999);
  ASSERT_OK(other);
  ppo::PolicySnapshot snapshot = *(*other)->published();
  snapshot.version = 2;
  ASSERT_OK(server_->policies().Publish(snapshot));

  const auto after = Act(Request(b, 0));
  ASSERT_OK(after);
  EXPECT_EQ(after->header().policy_version(), 2);
  EXPECT_FALSE(NumbersOf(*after, 0) == NumbersOf(*before, 0));
  // A step of the older version is answered as it was, and says so.
  EXPECT_EQ(Act(Request(a, 0))->SerializeAsString(),
            before->SerializeAsString());
  v1::GetActionRequest mixed;
  AddRow(0, a, 0, &mixed);
  AddRow(0, b, 1, &mixed);
  const auto both = Act(mixed);
  ASSERT_OK(both);
  EXPECT_EQ(both->header().policy_version(), 2);
  int64_t versions[2];
  std::memcpy(versions, both->policy_versions().data().data(),
              sizeof(versions));
  EXPECT_EQ(versions[0], 1);
  EXPECT_EQ(versions[1], 2);
}

// Nothing of the service is tied to the network-growing policy: two heads that
// no other drives, one of them wide, no categorical input, masks optional.
TEST_F(InferenceServiceTest, ServesAPolicyOfAnotherKind) {
  policy::PolicySpec spec;
  spec.name = "two heads";
  spec.observation = {{"x", 5}};
  policy::HeadSpec narrow, wide;
  narrow.name = "narrow";
  narrow.size = 2;
  wide.name = "wide";
  wide.size = 300;
  spec.heads = {narrow, wide};
  spec.sampling_order = {"wide", "narrow"};
  spec.feature_dim = 16;
  spec.hidden_dim = 16;
  spec.lstm_layers = 2;
  spec.mask_optional = true;
  ASSERT_OK(spec.Validate());
  server::ServerOptions options = Options();
  options.spec = spec;
  Start(options);

  v1::GetActionRequest request;
  v1::StepRow* row = request.add_rows();
  row->set_episode_id(Open("env"));
  row->set_incarnation(1);
  codec::EncodeTensor(at::zeros({1, 5}), request.mutable_observations());
  ASSERT_OK(Act(request));
  row->set_step(1);
  row->mutable_previous_outcome()->set_reward(1.5f);
  const auto response = Act(request);
  ASSERT_OK(response);
  EXPECT_EQ(codec::Describe(response->actions()), "int64 [1, 2]");
  codec::EncodeTensor(at::zeros({1, 1}).to(at::kChar),
                      request.mutable_categorical());
  EXPECT_THAT(Act(request),
              Refused(absl::StatusCode::kInvalidArgument, "BAD_SHAPE"));

  v1::CloseEpisodesRequest close;
  *close.add_episodes() = End(row->episode_id(), 2, v1::END_KIND_TRUNCATED);
  codec::EncodeTensor(at::zeros({1, 5}), close.mutable_final_observations());
  const auto closed = Close(close);
  ASSERT_OK(closed);
  EXPECT_DOUBLE_EQ(Double(closed->returns(), 0), 2.0);
}

TEST_F(InferenceServiceTest, OneCallsFaultDoesNotReachAnother) {
  // Both calls wait for the same batch; one names an unknown episode.
  const std::string a = Open("a"), b = Open("b");
  clock_.Hold();
  std::thread first([&] { EXPECT_OK(Act(Request(a, 0))); });
  clock_.AwaitAsked();
  std::thread bad([&] {
    EXPECT_THAT(Act(Request("no such episode!", 0)),
                Refused(absl::StatusCode::kNotFound, "UNKNOWN_EPISODE"));
  });
  std::thread good([&] { EXPECT_OK(Act(Request(b, 0))); });
  while (server_->inference().queued_calls() < 2) std::this_thread::yield();
  clock_.Release();
  first.join();
  bad.join();
  good.join();
}

}  // namespace
}  // namespace esper::testing
