// What StreamActions promises, over a real channel.
#include "server/action_stream.h"

#include <chrono>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "grpcpp/create_channel.h"
#include "gtest/gtest.h"
#include "proto/codec/error_detail.h"
#include "tests/server/service_fixture.h"
#include "tests/testing/status_matchers.h"

namespace esper::testing {
namespace {

using Code = absl::StatusCode;
using Stream = grpc::ClientReaderWriter<v1::StreamActionsRequest,
                                        v1::StreamActionsResponse>;

class ActionStreamTest : public ServiceTest {
 protected:
  ActionStreamTest() {
    server::ServerOptions options = Options();
    options.inference.max_stream_requests = 8;
    Start(options);
  }

  // A stream and the context it needs.
  struct OpenStream {
    std::unique_ptr<grpc::ClientContext> context;
    std::unique_ptr<Stream> stream;

    bool Send(uint64_t id, v1::GetActionRequest request) {
      v1::StreamActionsRequest message;
      message.set_request_id(id);
      *message.mutable_request() = std::move(request);
      return stream->Write(message);
    }
    // The next answer; the stream must have one.
    v1::StreamActionsResponse Next() {
      v1::StreamActionsResponse response;
      EXPECT_TRUE(stream->Read(&response));
      return response;
    }
    // Reads to the end.
    std::map<uint64_t, v1::StreamActionsResponse> Rest() {
      std::map<uint64_t, v1::StreamActionsResponse> answers;
      v1::StreamActionsResponse response;
      while (stream->Read(&response)) {
        EXPECT_TRUE(answers.emplace(response.request_id(), response).second);
      }
      return answers;
    }
    absl::Status Finish() {
      return codec::DecodeStatus(stream->Finish(), *context);
    }
  };

  OpenStream NewStream(absl::Duration timeout = absl::Minutes(1)) {
    OpenStream open;
    open.context = std::make_unique<grpc::ClientContext>();
    open.context->set_deadline(std::chrono::system_clock::now() +
                               absl::ToChronoNanoseconds(timeout));
    open.stream = stub_->StreamActions(open.context.get());
    return open;
  }

  static absl::Status RefusalOf(const v1::StreamActionsResponse& answer) {
    return answer.has_refusal() ? codec::DecodeRefusal(answer.refusal())
                                : absl::OkStatus();
  }

  // Waits until the server has refused something for `reason`.
  void AwaitRefusal(const std::string& reason) {
    const absl::Time deadline = absl::Now() + absl::Seconds(20);
    while (server_->counters().Refusals()[reason] == 0 &&
           absl::Now() < deadline) {
      absl::SleepFor(absl::Milliseconds(1));
    }
    EXPECT_EQ(server_->counters().Refusals()[reason], 1);
  }

  // Waits until the server waits for nothing.
  void AwaitIdle() {
    const absl::Time deadline = absl::Now() + absl::Seconds(20);
    while (server_->inference().queued_calls() > 0 && absl::Now() < deadline) {
      absl::SleepFor(absl::Milliseconds(1));
    }
    EXPECT_EQ(server_->inference().queued_calls(), 0);
  }
};

TEST_F(ActionStreamTest, AnswersWhatThePolicyItselfWouldDo) {
  constexpr int kEnvironments = 6;
  constexpr int64_t kSteps = 8;
  std::vector<std::string> ids;
  for (int i = 0; i < kEnvironments; ++i) {
    ids.push_back(Open(absl::StrCat("env", i), /*seed=*/100 + i));
  }
  OpenStream stream = NewStream();
  std::vector<std::vector<StepNumbers>> played(kEnvironments);
  for (int64_t step = 0; step < kSteps; ++step) {
    for (int i = 0; i < kEnvironments; ++i) {
      ASSERT_TRUE(stream.Send(step * 100 + i, Request(ids[i], step, i)));
    }
    for (int i = 0; i < kEnvironments; ++i) {
      const v1::StreamActionsResponse answer = stream.Next();
      ASSERT_TRUE(answer.has_response()) << RefusalOf(answer);
      ASSERT_EQ(answer.request_id() / 100, step);
      EXPECT_EQ(answer.response().header().policy_version(), 1);
      played[answer.request_id() % 100].push_back(
          NumbersOf(answer.response(), 0));
    }
  }
  stream.stream->WritesDone();
  EXPECT_TRUE(stream.Rest().empty());
  EXPECT_OK(stream.Finish());
  for (int i = 0; i < kEnvironments; ++i) {
    ExpectSameSteps(played[i], PlayLocally(100 + i, i, kSteps), 2e-5f);
  }
}

TEST_F(ActionStreamTest, AnswersComeInTheOrderInWhichTheyFinish) {
  const std::string id = Open("a");
  OpenStream stream = NewStream();
  clock_.Hold();
  ASSERT_TRUE(stream.Send(1, Request(id, 0)));
  clock_.AwaitAsked();  // The worker has the first one in its hands.
  // A refusal that needs no worker overtakes it.
  ASSERT_TRUE(stream.Send(2, v1::GetActionRequest()));
  const v1::StreamActionsResponse first = stream.Next();
  EXPECT_EQ(first.request_id(), 2);
  EXPECT_THAT(RefusalOf(first),
              Refused(Code::kInvalidArgument, "MALFORMED_REQUEST"));
  clock_.Release();
  const v1::StreamActionsResponse second = stream.Next();
  EXPECT_EQ(second.request_id(), 1);
  EXPECT_TRUE(second.has_response());
}

TEST_F(ActionStreamTest, ARefusalIsAnAnswerAndTheStreamLives) {
  const std::string id = Open("a", 5);
  OpenStream stream = NewStream();
  ASSERT_TRUE(stream.Send(1, Request("nobody", 0)));
  const v1::StreamActionsResponse unknown = stream.Next();
  EXPECT_EQ(unknown.request_id(), 1);
  EXPECT_THAT(RefusalOf(unknown), Refused(Code::kNotFound, "UNKNOWN_EPISODE"));
  EXPECT_EQ(unknown.refusal().detail().row(), 0);

  ASSERT_TRUE(stream.Send(2, Request(id, 7)));
  const v1::StreamActionsResponse early = stream.Next();
  EXPECT_THAT(RefusalOf(early),
              Refused(Code::kFailedPrecondition, "STEP_OUT_OF_ORDER"));
  EXPECT_EQ(early.refusal().detail().step(), 0);

  ASSERT_TRUE(stream.Send(3, Request(id, 0)));
  const v1::StreamActionsResponse taken = stream.Next();
  ASSERT_TRUE(taken.has_response()) << RefusalOf(taken);
  ExpectSameSteps({NumbersOf(taken.response(), 0)}, PlayLocally(5, 0, 1),
                  1e-6f);
  stream.stream->WritesDone();
  EXPECT_TRUE(stream.Rest().empty());
  EXPECT_OK(stream.Finish());
  EXPECT_EQ(server_->counters().Refusals().at("UNKNOWN_EPISODE"), 1);
}

TEST_F(ActionStreamTest, CopiesOfAStepGetTheSameAnswer) {
  const std::string id = Open("a", 5);
  OpenStream stream = NewStream();
  for (uint64_t copy = 0; copy < 8; ++copy) {
    ASSERT_TRUE(stream.Send(copy, Request(id, 0)));
  }
  stream.stream->WritesDone();
  const auto answers = stream.Rest();
  EXPECT_OK(stream.Finish());
  ASSERT_EQ(answers.size(), 8);
  for (const auto& [copy, answer] : answers) {
    EXPECT_EQ(answer.response().SerializeAsString(),
              answers.at(0).response().SerializeAsString());
  }
  // Taken once.
  EXPECT_OK(Act(Request(id, 1)));
  EXPECT_EQ(server_->counters().actions_served, 2);
}

TEST_F(ActionStreamTest, ARequestIdInFlightEndsTheStreamOnceAllIsAnswered) {
  const std::string a = Open("a"), b = Open("b");
  OpenStream stream = NewStream();
  clock_.Hold();
  ASSERT_TRUE(stream.Send(1, Request(a, 0)));
  clock_.AwaitAsked();
  ASSERT_TRUE(stream.Send(2, Request(b, 0)));
  ASSERT_TRUE(stream.Send(1, Request(b, 0)));
  AwaitRefusal("MALFORMED_REQUEST");
  clock_.Release();
  const auto answers = stream.Rest();
  EXPECT_EQ(answers.size(), 2);
  for (const auto& [id, answer] : answers) EXPECT_TRUE(answer.has_response());
  const absl::Status ended = stream.Finish();
  EXPECT_THAT(ended, Refused(Code::kInvalidArgument, "MALFORMED_REQUEST"));
  EXPECT_EQ(DetailOf(ended)->field, "request_id");
}

TEST_F(ActionStreamTest, ARequestIdIsFreeAgainOnceItIsAnswered) {
  const std::string id = Open("a");
  OpenStream stream = NewStream();
  for (int64_t step = 0; step < 20; ++step) {
    ASSERT_TRUE(stream.Send(7, Request(id, step)));
    ASSERT_TRUE(stream.Next().has_response());
  }
}

TEST_F(ActionStreamTest, OneRequestTooManyEndsTheStream) {
  std::vector<std::string> ids;
  for (int i = 0; i < 9; ++i) ids.push_back(Open(absl::StrCat("env", i)));
  OpenStream stream = NewStream();
  clock_.Hold();
  ASSERT_TRUE(stream.Send(0, Request(ids[0], 0)));
  clock_.AwaitAsked();
  for (int i = 1; i < 9; ++i) ASSERT_TRUE(stream.Send(i, Request(ids[i], 0)));
  AwaitRefusal("BUDGET_EXCEEDED");
  clock_.Release();
  EXPECT_EQ(stream.Rest().size(), 8);
  const absl::Status ended = stream.Finish();
  EXPECT_THAT(ended, Refused(Code::kResourceExhausted, "BUDGET_EXCEEDED"));
  EXPECT_EQ(DetailOf(ended)->field, "max_stream_requests");
  EXPECT_OK(Act(Request(ids[8], 0)));
}

TEST_F(ActionStreamTest, AHalfCloseWaitsForWhatIsInFlight) {
  const std::string id = Open("a");
  OpenStream stream = NewStream();
  clock_.Hold();
  ASSERT_TRUE(stream.Send(1, Request(id, 0)));
  clock_.AwaitAsked();
  stream.stream->WritesDone();
  clock_.Release();
  EXPECT_EQ(stream.Rest().size(), 1);
  EXPECT_OK(stream.Finish());
  // One without any request.
  OpenStream idle = NewStream();
  idle.stream->WritesDone();
  EXPECT_TRUE(idle.Rest().empty());
  EXPECT_OK(idle.Finish());
}

TEST_F(ActionStreamTest, AClientThatVanishesTakesNoStepThatWasWaiting) {
  const std::string a = Open("a", 1), b = Open("b", 2);
  {
    OpenStream stream = NewStream();
    clock_.Hold();
    ASSERT_TRUE(stream.Send(1, Request(a, 0)));
    clock_.AwaitAsked();
    ASSERT_TRUE(stream.Send(2, Request(b, 0)));
    while (server_->inference().queued_calls() < 1) std::this_thread::yield();
    stream.context->TryCancel();
    EXPECT_THAT(stream.Finish(), StatusIs(Code::kCancelled));
    // The cancellation reaches the server while the worker is held.
    absl::SleepFor(absl::Milliseconds(100));
    clock_.Release();
  }
  AwaitIdle();
  // What ran was taken, and is told again; what waited was not.
  const auto told = Act(Request(a, 0));
  ASSERT_OK(told);
  ExpectSameSteps({NumbersOf(*told, 0)}, PlayLocally(1, 0, 1), 1e-6f);
  EXPECT_EQ(server_->counters().steps_repeated, 1);
  EXPECT_EQ(server_->counters().actions_served, 1);
  EXPECT_OK(Act(Request(b, 0)));
  EXPECT_EQ(server_->counters().actions_served, 2);
}

TEST_F(ActionStreamTest, ManyClientsMayVanishAtAnyMoment) {
  std::vector<std::thread> clients;
  for (int client = 0; client < 8; ++client) {
    clients.emplace_back([this, client] {
      for (int round = 0; round < 20; ++round) {
        const std::string id = Open(absl::StrCat("env", client), client,
                                    static_cast<uint64_t>(round + 1));
        OpenStream stream = NewStream();
        for (uint64_t step = 0; step < 4; ++step) {
          v1::GetActionRequest request = Request(id, step, client);
          request.mutable_rows(0)->set_incarnation(round + 1);
          stream.Send(step, request);
          if (round % 3 > 0) stream.Next();
        }
        if (round % 3 < 2) stream.context->TryCancel();
        stream.stream->WritesDone();
        v1::StreamActionsResponse ignored;
        while (stream.stream->Read(&ignored)) {
        }
        stream.stream->Finish();
      }
    });
  }
  for (std::thread& client : clients) client.join();
  AwaitIdle();
  EXPECT_EQ(server_->inference().open_episodes(), 8);
  EXPECT_OK(Act(Request(Open("last"), 0)));
}

TEST_F(ActionStreamTest, AStreamPastItsDeadlineEnds) {
  const std::string id = Open("a");
  OpenStream stream = NewStream(absl::Milliseconds(200));
  ASSERT_TRUE(stream.Send(1, Request(id, 0)));
  EXPECT_TRUE(stream.Next().has_response());
  EXPECT_TRUE(stream.Rest().empty());
  EXPECT_THAT(stream.Finish(), StatusIs(Code::kDeadlineExceeded));
}

TEST_F(ActionStreamTest, ADrainingServerRefusesInsideTheStream) {
  const std::string a = Open("a"), b = Open("b");
  OpenStream stream = NewStream();
  clock_.Hold();
  ASSERT_TRUE(stream.Send(1, Request(a, 0)));
  clock_.AwaitAsked();
  std::thread drain([&] { server_->Drain(absl::Seconds(30)); });
  while (!server_->inference().draining()) std::this_thread::yield();
  // The queue closes a moment later.
  absl::SleepFor(absl::Milliseconds(50));
  ASSERT_TRUE(stream.Send(2, Request(b, 0)));
  const v1::StreamActionsResponse refused = stream.Next();
  EXPECT_EQ(refused.request_id(), 2);
  EXPECT_THAT(RefusalOf(refused), Refused(Code::kUnavailable, "DRAINING"));
  clock_.Release();
  const v1::StreamActionsResponse accepted = stream.Next();
  EXPECT_EQ(accepted.request_id(), 1);
  EXPECT_TRUE(accepted.has_response());
  stream.stream->WritesDone();
  EXPECT_TRUE(stream.Rest().empty());
  EXPECT_OK(stream.Finish());
  drain.join();  // Did not have to wait out the grace.
}

TEST_F(ActionStreamTest, WorksOverTcpAndAnAbruptEnd) {
  server::ServerOptions options = Options();
  options.address = "127.0.0.1:0";
  Start(options);
  const std::string id = Open("a", 3);
  {
    auto channel =
        grpc::CreateChannel(absl::StrCat("127.0.0.1:", server_->port()),
                            grpc::InsecureChannelCredentials());
    stub_ = v1::PolicyInference::NewStub(channel);
    OpenStream stream = NewStream();
    ASSERT_TRUE(stream.Send(1, Request(id, 0)));
    ASSERT_TRUE(stream.Next().has_response());
    ASSERT_TRUE(stream.Send(2, Request(id, 1)));
    stream.context->TryCancel();
  }
  stub_ = v1::PolicyInference::NewStub(channel_);
  // Whether or not step 1 was taken, it is there to be asked for.
  const auto told = Act(Request(id, 1));
  ASSERT_OK(told);
  ExpectSameSteps({NumbersOf(*told, 0)}, {PlayLocally(3, 0, 2)[1]}, 1e-6f);
}

TEST_F(ActionStreamTest, TheLimitIsTold) {
  grpc::ClientContext context;
  v1::GetPolicyResponse response;
  ASSERT_TRUE(
      stub_->GetPolicy(&context, v1::GetPolicyRequest(), &response).ok());
  EXPECT_EQ(response.limits().max_stream_requests(), 8);
}

}  // namespace
}  // namespace esper::testing
