// The error table of the inference service, over a real channel: code, reason,
// and what the detail names.
#include <functional>
#include <limits>
#include <thread>

#include "ATen/ops/full.h"
#include "ATen/ops/zeros.h"
#include "absl/synchronization/notification.h"
#include "grpcpp/generic/generic_stub.h"
#include "gtest/gtest.h"
#include "proto/codec/error_detail.h"
#include "proto/codec/tensor_codec.h"
#include "server/inference_service.h"
#include "tests/server/service_fixture.h"
#include "tests/testing/status_matchers.h"

namespace esper::testing {
namespace {

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr auto kPrecondition = absl::StatusCode::kFailedPrecondition;
constexpr auto kExhausted = absl::StatusCode::kResourceExhausted;
constexpr auto kUnavailable = absl::StatusCode::kUnavailable;
constexpr auto kNotFound = absl::StatusCode::kNotFound;

class InferenceRefusalTest : public ServiceTest {
 protected:
  InferenceRefusalTest() { Start(); }

  // Two rows, the second one at fault after `change`: expects a refusal, and
  // that neither row has advanced.
  ErrorDetail ExpectRefused(
      absl::StatusCode code, const std::string& reason,
      const std::function<void(v1::GetActionRequest&)>& change) {
    const std::string key = "env" + std::to_string(++keys_);
    const std::string first = Open(key + "/0");
    const std::string second = Open(key + "/1");
    v1::GetActionRequest request;
    AddRow(0, first, 0, &request);
    AddRow(1, second, 0, &request);
    const v1::GetActionRequest good = request;
    change(request);
    const absl::Status status = Act(request).status();
    EXPECT_THAT(status, Refused(code, reason));
    const int64_t served = server_->counters().actions_served;
    EXPECT_OK(Act(good));  // Step 0 is still the expected one, of both.
    EXPECT_EQ(server_->counters().actions_served, served + 2);
    CloseAll({first, second});
    return DetailOf(status).value_or(ErrorDetail());
  }

  void CloseAll(const std::vector<std::string>& ids) {
    v1::CloseEpisodesRequest request;
    for (const std::string& id : ids) {
      v1::EpisodeEnd* end = request.add_episodes();
      end->set_episode_id(id);
      end->set_incarnation(1);
      end->set_steps(1);
      end->set_end_kind(v1::END_KIND_ABORTED);
    }
    EXPECT_OK(Close(request));
  }

  // The serialized grpc.health.v1.HealthCheckResponse for the whole server.
  std::string Health() {
    grpc::GenericStub stub(channel_);
    grpc::ClientContext context;
    grpc::Slice empty("");
    grpc::ByteBuffer request(&empty, 1), response;
    absl::Notification done;
    grpc::Status result;
    stub.UnaryCall(&context, "/grpc.health.v1.Health/Check", {}, &request,
                   &response, [&](grpc::Status status) {
                     result = std::move(status);
                     done.Notify();
                   });
    done.WaitForNotification();
    EXPECT_TRUE(result.ok()) << result.error_message();
    std::vector<grpc::Slice> slices;
    EXPECT_TRUE(response.Dump(&slices).ok());
    std::string bytes;
    for (const grpc::Slice& slice : slices) {
      bytes.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
    }
    return bytes;
  }

 private:
  int keys_ = 0;
};

TEST_F(InferenceRefusalTest, AskingForGradientsNamesTheTrainingCall) {
  std::string message;
  ExpectRefused(kInvalid, "INFERENCE_ONLY", [&](v1::GetActionRequest& request) {
    request.set_requires_grad(true);
    message = std::string(Act(request).status().message());
  });
  EXPECT_THAT(message, ::testing::HasSubstr("EvaluateActions"));
}

TEST_F(InferenceRefusalTest, ShapesAndDtypesOfEveryTensor) {
  const int64_t width = spec_.observation_width();
  const auto refuse = [&](const std::string& field,
                          const std::function<void(v1::GetActionRequest&)>& f) {
    EXPECT_EQ(ExpectRefused(kInvalid, "BAD_SHAPE", f).field, field);
  };
  refuse("observations", [&](auto& request) {
    codec::EncodeTensor(at::zeros({2, width - 1}),
                        request.mutable_observations());
  });
  refuse("observations", [&](auto& request) {
    codec::EncodeTensor(at::zeros({1, width}), request.mutable_observations());
  });
  refuse("observations", [&](auto& request) {
    codec::EncodeTensor(at::zeros({2, width}, at::kDouble),
                        request.mutable_observations());
  });
  refuse("observations", [&](auto& request) { request.clear_observations(); });
  refuse("observations", [&](auto& request) {
    request.mutable_observations()->mutable_data()->pop_back();
  });
  refuse("observations", [&](auto& request) {
    request.mutable_observations()->set_shape(1, int64_t{1} << 62);
  });
  refuse("categorical", [&](auto& request) {
    codec::EncodeTensor(at::zeros({2, 3}, at::kInt),
                        request.mutable_categorical());
  });
  refuse("categorical", [&](auto& request) {
    codec::EncodeTensor(at::zeros({2, 4}).to(at::kChar),
                        request.mutable_categorical());
  });
  refuse("action_masks", [&](auto& request) { request.clear_action_masks(); });
  refuse("action_masks", [&](auto& request) {
    request.mutable_action_masks()->mutable_data()->append("x");
  });
  refuse("previous_outcome.contribution_targets", [&](auto& request) {
    auto* outcome = request.mutable_rows(1)->mutable_previous_outcome();
    outcome->set_contribution_targets(std::string(8, '\0'));
  });
}

TEST_F(InferenceRefusalTest, Bfloat16ObservationsAreTaken) {
  v1::GetActionRequest request = Request(Open("bf16"), 0);
  codec::EncodeTensor(
      at::full({1, spec_.observation_width()}, 0.5).to(at::kBFloat16),
      request.mutable_observations());
  EXPECT_OK(Act(request));
}

TEST_F(InferenceRefusalTest, NonFiniteNumbersNameTheirRow) {
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(),
                          std::numeric_limits<float>::infinity()}) {
    const auto detail = ExpectRefused(
        kInvalid, "NONFINITE_INPUT", [&](v1::GetActionRequest& request) {
          at::Tensor x = at::zeros({2, spec_.observation_width()});
          x[1][5] = bad;
          codec::EncodeTensor(x, request.mutable_observations());
        });
    EXPECT_EQ(detail.row, 1);
    EXPECT_EQ(detail.tensor, "observations");
    ExpectRefused(
        kInvalid, "NONFINITE_INPUT", [&](v1::GetActionRequest& request) {
          request.mutable_rows(1)->mutable_previous_outcome()->set_reward(bad);
        });
  }
}

TEST_F(InferenceRefusalTest, CategoricalInputsOutOfRange) {
  for (const int bad : {-2, 13, 127}) {
    const auto detail = ExpectRefused(
        kInvalid, "BAD_BLUEPRINT_INDEX", [&](v1::GetActionRequest& request) {
          at::Tensor indices = at::zeros({2, 3}).to(at::kChar);
          indices[1][2] = bad;
          codec::EncodeTensor(indices, request.mutable_categorical());
        });
    EXPECT_EQ(detail.row, 1);
  }
}

TEST_F(InferenceRefusalTest, EmptyMasksNameHeadAndRow) {
  codec::ActionMasks masks = mask_codec_.AllowAll(2);
  masks.heads[1].narrow(0, spec_.action_width() - 6, 6).fill_(false);
  auto detail = ExpectRefused(
      kInvalid, "EMPTY_ACTION_MASK", [&](v1::GetActionRequest& request) {
        mask_codec_.Encode(masks, request.mutable_action_masks());
      });
  EXPECT_EQ(detail.row, 1);
  EXPECT_EQ(detail.field, "op");
  // A slot for none of the ops that need one.
  masks = mask_codec_.AllowAll(2);
  masks.conditional[0][4].fill_(false);
  detail = ExpectRefused(
      kInvalid, "EMPTY_ACTION_MASK", [&](v1::GetActionRequest& request) {
        mask_codec_.Encode(masks, request.mutable_action_masks());
      });
  EXPECT_EQ(detail.row, 0);
  EXPECT_EQ(detail.field, "slot");
}

TEST_F(InferenceRefusalTest, WaitingNeedsNoSlot) {
  codec::ActionMasks masks = mask_codec_.AllowAll(1);
  masks.conditional.fill_(false);
  masks.heads[0].narrow(0, spec_.action_width() - 5, 5).fill_(false);
  v1::GetActionRequest request = Request(Open("a"), 0);
  mask_codec_.Encode(masks, request.mutable_action_masks());
  const auto response = Act(request);
  ASSERT_OK(response);
  EXPECT_EQ(NumbersOf(*response, 0).actions.back(), 0);  // Op WAIT.
  EXPECT_EQ(NumbersOf(*response, 0).actions.front(), 0);
}

TEST_F(InferenceRefusalTest, EpisodesAndStepsThatAreNotExpected) {
  auto detail = ExpectRefused(
      kNotFound, "UNKNOWN_EPISODE", [](v1::GetActionRequest& request) {
        request.mutable_rows(1)->set_episode_id("sixteen bytes id");
      });
  EXPECT_EQ(detail.row, 1);
  detail = ExpectRefused(kPrecondition, "WRONG_INCARNATION",
                         [](v1::GetActionRequest& request) {
                           request.mutable_rows(1)->set_incarnation(2);
                         });
  EXPECT_EQ(detail.row, 1);
  detail = ExpectRefused(kPrecondition, "STEP_OUT_OF_ORDER",
                         [](v1::GetActionRequest& request) {
                           request.mutable_rows(1)->set_step(4);
                         });
  EXPECT_EQ(detail.row, 1);
  EXPECT_EQ(detail.step, 0);
  ExpectRefused(kInvalid, "MALFORMED_REQUEST",
                [](v1::GetActionRequest& request) {
                  *request.mutable_rows(1) = request.rows(0);
                });
  ExpectRefused(
      kInvalid, "MALFORMED_REQUEST", [](v1::GetActionRequest& request) {
        request.mutable_rows(1)->mutable_previous_outcome()->set_reward(1);
      });
}

TEST_F(InferenceRefusalTest, OutcomesThatCannotBe) {
  const std::string id = Open("a");
  const auto first = Act(Request(id, 0));
  ASSERT_OK(first);
  const int64_t chosen = NumbersOf(*first, 0).actions.back();
  v1::GetActionRequest request = Request(id, 1);
  v1::StepOutcome* outcome =
      request.mutable_rows(0)->mutable_previous_outcome();
  for (const int64_t bad : {chosen % 5 + 1, int64_t{6}, int64_t{-1}}) {
    if (bad == chosen) continue;
    outcome->set_effective_choice(bad);
    EXPECT_THAT(Act(request), Refused(kInvalid, "INVALID_ACTION")) << bad;
  }
  outcome->set_effective_choice(chosen);
  outcome->set_contribution_mask(1);  // Without targets.
  EXPECT_THAT(Act(request), Refused(kInvalid, "MALFORMED_REQUEST"));
  outcome->set_contribution_targets(std::string(12, '\0'));
  EXPECT_OK(Act(request));
}

TEST_F(InferenceRefusalTest, ExpiredEpisodesAreToldApartFromUnknownOnes) {
  const std::string id = Open("a");
  clock_.Advance(absl::Minutes(11));
  EXPECT_THAT(Act(Request(id, 0)), Refused(kPrecondition, "EPISODE_EXPIRED"));
}

TEST_F(InferenceRefusalTest, OpeningIsAllOrNone) {
  Open("taken", 0, /*incarnation=*/5);
  v1::OpenEpisodesRequest request = OpenRequest("free", 0);
  request.MergeFrom(OpenRequest("taken", 0, 5));
  auto refused = Open(request).status();
  EXPECT_THAT(refused, Refused(kPrecondition, "WRONG_INCARNATION"));
  EXPECT_EQ(DetailOf(refused)->row, 1);
  EXPECT_EQ(server_->inference().open_episodes(), 1);
  EXPECT_THAT(Open(OpenRequest("", 0)), Refused(kInvalid, "MALFORMED_REQUEST"));
  EXPECT_THAT(Open(v1::OpenEpisodesRequest()),
              Refused(kInvalid, "MALFORMED_REQUEST"));
  EXPECT_THAT(Act(v1::GetActionRequest()),
              Refused(kInvalid, "MALFORMED_REQUEST"));
  EXPECT_THAT(Close(v1::CloseEpisodesRequest()),
              Refused(kInvalid, "MALFORMED_REQUEST"));
}

TEST_F(InferenceRefusalTest, BudgetsAreNamed) {
  server::ServerOptions options = Options();
  options.inference.max_episodes = 2;
  options.inference.max_rows_per_call = 3;
  options.inference.max_message_bytes = 5000;
  Start(options);
  v1::OpenEpisodesRequest request;
  for (const char* key : {"a", "b", "c"}) {
    request.MergeFrom(OpenRequest(key, 0));
  }
  auto refused = Open(request).status();
  EXPECT_THAT(refused, Refused(kExhausted, "BUDGET_EXCEEDED"));
  EXPECT_EQ(DetailOf(refused)->field, "max_episodes");
  request.MergeFrom(OpenRequest("d", 0));
  refused = Open(request).status();
  EXPECT_THAT(refused, Refused(kExhausted, "BUDGET_EXCEEDED"));
  EXPECT_EQ(DetailOf(refused)->field, "max_rows_per_call");
  v1::GetActionRequest large = Request(Open("a"), 0);
  large.mutable_action_masks()->mutable_data()->append(5000, 'x');
  refused = Act(large).status();
  EXPECT_THAT(refused, Refused(kExhausted, "BUDGET_EXCEEDED"));
  EXPECT_EQ(DetailOf(refused)->field, "max_message_bytes");
}

TEST_F(InferenceRefusalTest, EndsThatDoNotFit) {
  const std::string id = Open("a");
  ASSERT_OK(Act(Request(id, 0)));
  v1::CloseEpisodesRequest request;
  v1::EpisodeEnd* end = request.add_episodes();
  end->set_episode_id(id);
  end->set_incarnation(1);
  end->set_steps(1);
  EXPECT_THAT(Close(request), Refused(kInvalid, "MALFORMED_REQUEST"));
  end->set_end_kind(v1::END_KIND_TRUNCATED);
  EXPECT_THAT(Close(request), Refused(kInvalid, "BAD_SHAPE"));
  end->set_end_kind(v1::END_KIND_TERMINATED);
  EXPECT_THAT(Close(request), Refused(kInvalid, "MALFORMED_REQUEST"));
  end->mutable_last_outcome()->set_reward(1);
  end->set_steps(2);
  EXPECT_THAT(Close(request), Refused(kPrecondition, "STEP_OUT_OF_ORDER"));
  end->set_steps(1);
  end->set_incarnation(9);
  EXPECT_THAT(Close(request), Refused(kPrecondition, "WRONG_INCARNATION"));
  end->set_incarnation(1);
  EXPECT_OK(Close(request));
}

TEST_F(InferenceRefusalTest, TheDetailTravelsInTheTrailerAsWell) {
  grpc::ClientContext context;
  v1::GetActionResponse response;
  v1::GetActionRequest request = Request("unknown episode!", 0);
  ASSERT_FALSE(stub_->GetAction(&context, request, &response).ok());
  const auto& trailers = context.GetServerTrailingMetadata();
  const auto it = trailers.find("esper-error-detail-bin");
  ASSERT_NE(it, trailers.end());
  v1::ErrorDetail detail;
  ASSERT_TRUE(detail.ParseFromArray(it->second.data(), it->second.size()));
  EXPECT_EQ(detail.reason(), "UNKNOWN_EPISODE");
  EXPECT_EQ(detail.row(), 0);
  EXPECT_TRUE(detail.has_row());
  EXPECT_FALSE(detail.hint().empty());
  EXPECT_EQ(server_->counters().Refusals()["UNKNOWN_EPISODE"], 1);
}

TEST_F(InferenceRefusalTest, AFullQueueIsRetryable) {
  server::ServerOptions options = Options();
  options.inference.max_queued_calls = 1;
  Start(options);
  const std::string a = Open("a"), b = Open("b"), c = Open("c");
  clock_.Hold();
  std::vector<std::thread> calls;
  calls.emplace_back([&] { EXPECT_OK(Act(Request(a, 0))); });
  clock_.AwaitAsked();  // The worker has the first call in its hands.
  calls.emplace_back([&] { EXPECT_OK(Act(Request(b, 0))); });
  while (server_->inference().queued_calls() < 1) std::this_thread::yield();
  EXPECT_THAT(Act(Request(c, 0)), Refused(kUnavailable, "QUEUE_FULL"));
  clock_.Release();
  for (std::thread& call : calls) call.join();
  EXPECT_OK(Act(Request(c, 0)));
}

TEST_F(InferenceRefusalTest, ADrainingServerFinishesWhatItAccepted) {
  const std::string a = Open("a"), b = Open("b"), c = Open("c");
  clock_.Hold();
  std::vector<std::thread> calls;
  calls.emplace_back([&] { EXPECT_OK(Act(Request(a, 0))); });
  clock_.AwaitAsked();
  calls.emplace_back([&] { EXPECT_OK(Act(Request(b, 0))); });
  while (server_->inference().queued_calls() < 1) std::this_thread::yield();
  EXPECT_EQ(Health(), "\x08\x01");  // SERVING
  std::thread drain([&] { server_->Drain(absl::Seconds(30)); });
  while (!server_->inference().draining()) std::this_thread::yield();
  EXPECT_EQ(Health(), "\x08\x02");  // NOT_SERVING
  EXPECT_THAT(Open(OpenRequest("d", 0)), Refused(kUnavailable, "DRAINING"));
  // The queue closes a moment later; until then a step may be accepted.
  absl::Status refused;
  do {
    refused = Act(Request(c, 0), absl::Milliseconds(200)).status();
  } while (refused.code() == absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(refused, Refused(kUnavailable, "DRAINING"));
  clock_.Release();
  drain.join();
  for (std::thread& call : calls) call.join();
}

}  // namespace
}  // namespace esper::testing
