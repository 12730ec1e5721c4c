// The Open Inference Protocol over a real channel.
#include <algorithm>
#include <chrono>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "grpcpp/client_context.h"
#include "gtest/gtest.h"
#include "inference/grpc_service.grpc.pb.h"
#include "proto/codec/tensor_codec.h"
#include "tests/server/service_fixture.h"
#include "tests/testing/status_matchers.h"

namespace esper::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using InferRequest = inference::ModelInferRequest;
using InferResponse = inference::ModelInferResponse;

class OipServiceTest : public ServiceTest {
 protected:
  void SetUp() override { StartOip(Options()); }
  void StartOip(const server::ServerOptions& options) {
    oip_ = nullptr;
    Start(options);
    oip_ = inference::GRPCInferenceService::NewStub(channel_);
  }

  // A request of the rows of `environments` at a step, with raw contents.
  InferRequest Ask(int64_t sequence, int64_t step,
                   std::vector<int> environments) {
    v1::GetActionRequest rows;
    for (const int environment : environments) {
      AddRow(environment, "", step, &rows);
    }
    InferRequest request;
    request.set_model_name("network_growing");
    if (sequence != 0) {
      Parameter("sequence_id", &request).set_int64_param(sequence);
    }
    AddInput("observations", "FP32", rows.observations(), &request);
    AddInput("categorical", "INT8", rows.categorical(), &request);
    AddInput("action_masks", "UINT8", rows.action_masks(), &request);
    return request;
  }
  // The first request of a sequence.
  InferRequest Begin(int64_t sequence, uint64_t seed,
                     std::vector<int> environments, bool start = true) {
    InferRequest request = Ask(sequence, 0, std::move(environments));
    Parameter("sequence_start", &request).set_bool_param(start);
    if (start) Parameter("seed", &request).set_int64_param(seed);
    return request;
  }
  static inference::InferParameter& Parameter(const std::string& name,
                                              InferRequest* request) {
    return (*request->mutable_parameters())[name];
  }
  static void AddInput(const std::string& name, const std::string& datatype,
                       const v1::Tensor& tensor, InferRequest* request) {
    auto* input = request->add_inputs();
    input->set_name(name);
    input->set_datatype(datatype);
    *input->mutable_shape() = tensor.shape();
    request->add_raw_input_contents(tensor.data());
  }

  // Bytes of each input to the protocol's typed fields.
  static void MakeTyped(InferRequest* request) {
    for (int i = 0; i < request->inputs_size(); ++i) {
      auto* input = request->mutable_inputs(i);
      const std::string& raw = request->raw_input_contents(i);
      auto* contents = input->mutable_contents();
      if (input->datatype() == "FP32") {
        contents->mutable_fp32_contents()->Resize(raw.size() / 4, 0);
        std::memcpy(contents->mutable_fp32_contents()->mutable_data(),
                    raw.data(), raw.size());
      } else {
        for (const char byte : raw) {
          if (input->datatype() == "INT8") {
            contents->add_int_contents(static_cast<int8_t>(byte));
          } else {
            contents->add_uint_contents(static_cast<uint8_t>(byte));
          }
        }
      }
    }
    request->clear_raw_input_contents();
  }

  grpc::Status Infer(const InferRequest& request, InferResponse* response) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() +
                         std::chrono::minutes(1));
    response->Clear();
    return oip_->ModelInfer(&context, request, response);
  }
  InferResponse InferOrFail(const InferRequest& request) {
    InferResponse response;
    const grpc::Status status = Infer(request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response;
  }
  void ExpectRefused(const InferRequest& request, grpc::StatusCode code,
                     const std::string& words) {
    InferResponse response;
    const grpc::Status status = Infer(request, &response);
    EXPECT_EQ(status.error_code(), code) << status.error_message();
    EXPECT_THAT(status.error_message(), HasSubstr(words));
  }

  // Row `row` of an answer, out of raw or typed contents.
  static StepNumbers Row(const InferResponse& response, int64_t row) {
    StepNumbers numbers;
    for (int i = 0; i < response.outputs_size(); ++i) {
      const auto& output = response.outputs(i);
      const int64_t width = output.shape_size() > 1 ? output.shape(1) : 1;
      for (int64_t k = 0; k < width; ++k) {
        const int64_t at = row * width + k;
        float real = 0;
        int64_t whole = 0;
        if (response.raw_output_contents_size() > 0) {
          const std::string& raw = response.raw_output_contents(i);
          whole = static_cast<uint8_t>(raw[std::min<size_t>(at, raw.size())]);
          if (output.datatype() == "FP32") {
            std::memcpy(&real, raw.data() + at * sizeof(float), sizeof(float));
          }
        } else if (output.datatype() == "FP32") {
          real = output.contents().fp32_contents(at);
        } else {
          whole = output.contents().uint_contents(at);
        }
        if (output.name() == "actions") numbers.actions.push_back(whole);
        if (output.name() == "log_probs") numbers.log_probs.push_back(real);
        if (output.name() == "values") numbers.value = real;
      }
    }
    return numbers;
  }

  std::vector<StepNumbers> PlaySequence(int64_t sequence, uint64_t seed,
                                        int environment, int64_t steps) {
    std::vector<StepNumbers> played;
    for (int64_t step = 0; step < steps; ++step) {
      const InferResponse response =
          InferOrFail(step == 0 ? Begin(sequence, seed, {environment})
                                : Ask(sequence, step, {environment}));
      EXPECT_EQ(response.parameters().at("step").int64_param(), step);
      played.push_back(Row(response, 0));
    }
    return played;
  }

  int64_t OpenEpisodes() { return server_->inference().open_episodes(); }

  std::unique_ptr<inference::GRPCInferenceService::Stub> oip_;
};

TEST_F(OipServiceTest, DescribesServerAndModel) {
  inference::ServerLiveResponse live;
  grpc::ClientContext first, second, third, fourth, fifth;
  ASSERT_TRUE(oip_->ServerLive(&first, {}, &live).ok());
  EXPECT_TRUE(live.live());
  inference::ServerReadyResponse ready;
  ASSERT_TRUE(oip_->ServerReady(&second, {}, &ready).ok());
  EXPECT_TRUE(ready.ready());
  inference::ServerMetadataResponse server;
  ASSERT_TRUE(oip_->ServerMetadata(&third, {}, &server).ok());
  EXPECT_EQ(server.name(), "esper");
  EXPECT_THAT(server.extensions(), ElementsAre("sequence"));
  inference::ModelMetadataRequest request;
  request.set_name("network_growing");
  inference::ModelMetadataResponse model;
  ASSERT_TRUE(oip_->ModelMetadata(&fourth, request, &model).ok());
  EXPECT_THAT(model.versions(), ElementsAre("1"));
  ASSERT_EQ(model.inputs_size(), 3);
  EXPECT_EQ(model.inputs(0).name(), "observations");
  EXPECT_THAT(model.inputs(0).shape(),
              ElementsAre(-1, spec_.observation_width()));
  EXPECT_EQ(model.inputs(1).datatype(), "INT8");
  EXPECT_THAT(model.inputs(2).shape(),
              ElementsAre(-1, mask_codec_.row_bytes()));
  ASSERT_EQ(model.outputs_size(), 3);
  EXPECT_EQ(model.outputs(0).name(), "actions");
  EXPECT_EQ(model.outputs(0).datatype(), "UINT8");
  EXPECT_THAT(model.outputs(2).shape(), ElementsAre(-1));
  request.set_name("other");
  EXPECT_EQ(oip_->ModelMetadata(&fifth, request, &model).error_code(),
            grpc::StatusCode::NOT_FOUND);
}

TEST_F(OipServiceTest, OnlyTheActingVersionIsReady) {
  const struct {
    const char* name;
    const char* version;
    bool ready;
  } cases[] = {{"network_growing", "", true},
               {"network_growing", "1", true},
               {"network_growing", "2", false},
               {"esper", "", false}};
  for (const auto& each : cases) {
    grpc::ClientContext context;
    inference::ModelReadyRequest request;
    request.set_name(each.name);
    request.set_version(each.version);
    inference::ModelReadyResponse response;
    ASSERT_TRUE(oip_->ModelReady(&context, request, &response).ok());
    EXPECT_EQ(response.ready(), each.ready) << each.name << each.version;
  }
  InferRequest request = Begin(1, 0, {0});
  request.set_model_version("2");
  ExpectRefused(request, grpc::StatusCode::FAILED_PRECONDITION, "Version 2");
  request.set_model_version("");
  request.set_model_name("esper");
  ExpectRefused(request, grpc::StatusCode::NOT_FOUND, "no model \"esper\"");
}

TEST_F(OipServiceTest, ASequenceIsAnEpisode) {
  ExpectSameSteps(PlaySequence(7, 21, 3, 5), PlayLocally(21, 3, 5), 1e-5);
  EXPECT_EQ(OpenEpisodes(), 1);
}

TEST_F(OipServiceTest, NamesVersionAndRequest) {
  InferRequest request = Begin(7, 0, {0});
  request.set_id("mine");
  request.set_model_version("1");
  const InferResponse response = InferOrFail(request);
  EXPECT_EQ(response.id(), "mine");
  EXPECT_EQ(response.model_name(), "network_growing");
  EXPECT_EQ(response.model_version(), "1");
}

TEST_F(OipServiceTest, TypedContentsAreAnsweredWithTypedContents) {
  std::vector<StepNumbers> played;
  for (int64_t step = 0; step < 3; ++step) {
    InferRequest request = step == 0 ? Begin(7, 21, {3}) : Ask(7, step, {3});
    MakeTyped(&request);
    const InferResponse response = InferOrFail(request);
    EXPECT_EQ(response.raw_output_contents_size(), 0);
    EXPECT_EQ(response.outputs(0).contents().uint_contents_size(),
              spec_.num_heads());
    played.push_back(Row(response, 0));
  }
  ExpectSameSteps(played, PlayLocally(21, 3, 3), 1e-5);
}

TEST_F(OipServiceTest, RowsOfASequenceAreEpisodesWithSeedsInARow) {
  std::vector<std::vector<StepNumbers>> played(3);
  for (int64_t step = 0; step < 3; ++step) {
    const InferResponse response = InferOrFail(
        step == 0 ? Begin(7, 40, {4, 5, 6}) : Ask(7, step, {4, 5, 6}));
    for (int row = 0; row < 3; ++row) {
      played[row].push_back(Row(response, row));
    }
  }
  EXPECT_EQ(OpenEpisodes(), 3);
  for (int row = 0; row < 3; ++row) {
    ExpectSameSteps(played[row], PlayLocally(40 + row, 4 + row, 3), 1e-5);
  }
  ExpectRefused(Ask(7, 3, {4, 5}), grpc::StatusCode::INVALID_ARGUMENT,
                "observations");
}

TEST_F(OipServiceTest, NumbersAndStringsNameDifferentSequences) {
  InferOrFail(Begin(5, 1, {0}));
  InferRequest request = Ask(0, 1, {0});
  Parameter("sequence_id", &request).set_string_param("5");
  ExpectRefused(request, grpc::StatusCode::NOT_FOUND, "\"5\" is not open");
  Parameter("sequence_start", &request).set_bool_param(true);
  EXPECT_EQ(InferOrFail(request).parameters().at("step").int64_param(), 0);
  EXPECT_EQ(InferOrFail(Ask(5, 1, {0})).parameters().at("step").int64_param(),
            1);
  EXPECT_EQ(OpenEpisodes(), 2);
}

TEST_F(OipServiceTest, TheEndClosesTheEpisodes) {
  InferOrFail(Begin(5, 1, {0, 1}));
  InferRequest last = Ask(5, 1, {0, 1});
  Parameter("sequence_end", &last).set_bool_param(true);
  EXPECT_EQ(InferOrFail(last).parameters().at("step").int64_param(), 1);
  EXPECT_EQ(OpenEpisodes(), 0);
  ExpectRefused(Ask(5, 2, {0, 1}), grpc::StatusCode::NOT_FOUND, "not open");
  // A single step of fresh state.
  InferRequest single = Begin(5, 21, {3});
  Parameter("sequence_end", &single).set_bool_param(true);
  ExpectSameSteps({Row(InferOrFail(single), 0)}, PlayLocally(21, 3, 1), 1e-5);
  EXPECT_EQ(OpenEpisodes(), 0);
}

TEST_F(OipServiceTest, AStartBeginsAnOpenSequenceAnew) {
  PlaySequence(5, 1, 0, 3);
  ExpectSameSteps(PlaySequence(5, 21, 3, 3), PlayLocally(21, 3, 3), 1e-5);
  EXPECT_EQ(OpenEpisodes(), 1);
}

TEST_F(OipServiceTest, ARequestSentAgainAdvancesAgain) {
  InferOrFail(Begin(5, 1, {0}));
  const InferRequest request = Ask(5, 1, {0});
  EXPECT_EQ(InferOrFail(request).parameters().at("step").int64_param(), 1);
  EXPECT_EQ(InferOrFail(request).parameters().at("step").int64_param(), 2);
}

TEST_F(OipServiceTest, DeterministicSequencesDoNotDependOnTheSeed) {
  std::vector<StepNumbers> played;
  for (const uint64_t seed : {1, 2}) {
    InferRequest request = Begin(5, seed, {0});
    Parameter("deterministic", &request).set_bool_param(true);
    played.push_back(Row(InferOrFail(request), 0));
  }
  EXPECT_EQ(played[0].actions, played[1].actions);
}

TEST_F(OipServiceTest, GivesTheOutputsThatAreAskedFor) {
  InferRequest request = Begin(5, 1, {0});
  request.add_outputs()->set_name("values");
  request.add_outputs()->set_name("actions");
  const InferResponse response = InferOrFail(request);
  ASSERT_EQ(response.outputs_size(), 2);
  EXPECT_EQ(response.outputs(0).name(), "values");
  EXPECT_EQ(response.outputs(1).name(), "actions");
  EXPECT_EQ(response.raw_output_contents(0).size(), sizeof(float));
}

TEST_F(OipServiceTest, RefusesWhatItCannotReadAndNamesIt) {
  InferOrFail(Begin(5, 1, {0}));
  const auto changed = [&](auto&& change) {
    InferRequest request = Ask(5, 1, {0});
    change(&request);
    return request;
  };
  const float nan = std::nanf("");
  const struct {
    const char* words;
    InferRequest request;
  } cases[] = {
      {"sequence", Ask(0, 1, {0})},
      {"sequence_start is no bool", changed([](InferRequest* request) {
         Parameter("sequence_start", request).set_int64_param(1);
       })},
      {"seed", changed([](InferRequest* request) {
         Parameter("seed", request).set_int64_param(1);
       })},
      {"no parameter priority", changed([](InferRequest* request) {
         Parameter("priority", request).set_uint64_param(1);
       })},
      {"no input \"INPUT0\"", changed([](InferRequest* request) {
         request->mutable_inputs(1)->set_name("INPUT0");
       })},
      {"observations comes twice", changed([](InferRequest* request) {
         request->mutable_inputs(1)->set_name("observations");
       })},
      {"observations is missing", changed([](InferRequest* request) {
         request->clear_inputs();
         request->clear_raw_input_contents();
       })},
      {"observations", changed([](InferRequest* request) {
         request->mutable_inputs(0)->set_shape(1, 3);
       })},
      {"observations has the data type \"FP16\"",
       changed([](InferRequest* request) {
         request->mutable_inputs(0)->set_datatype("FP16");
       })},
      {"observations", changed([](InferRequest* request) {
         request->mutable_inputs(0)->set_datatype("INT32");
       })},
      {"observations", changed([&](InferRequest* request) {
         std::memcpy(request->mutable_raw_input_contents(0)->data(), &nan,
                     sizeof(nan));
       })},
      {"categorical", changed([](InferRequest* request) {
         (*request->mutable_raw_input_contents(1))[0] = 99;
       })},
      {"action_masks", changed([](InferRequest* request) {
         request->mutable_raw_input_contents(2)->pop_back();
       })},
      {"allow", changed([](InferRequest* request) {
         std::string* masks = request->mutable_raw_input_contents(2);
         std::fill(masks->begin(), masks->end(), '\0');
       })},
      {"raw_input_contents", changed([](InferRequest* request) {
         request->mutable_raw_input_contents()->RemoveLast();
       })},
      {"observations has contents beside", changed([](InferRequest* request) {
         request->mutable_inputs(0)->mutable_contents()->add_fp32_contents(0);
       })},
      {"categorical are not in the field", changed([](InferRequest* request) {
         MakeTyped(request);
         auto* contents = request->mutable_inputs(1)->mutable_contents();
         contents->clear_int_contents();
         contents->add_int64_contents(1);
       })},
      {"categorical holds a value that is no INT8",
       changed([](InferRequest* r) {
         MakeTyped(r);
         r->mutable_inputs(1)->mutable_contents()->set_int_contents(0, 300);
       })},
      {"shared_memory_region", changed([](InferRequest* request) {
         (*request->mutable_inputs(0)
               ->mutable_parameters())["shared_memory_region"]
             .set_string_param("x");
       })},
      {"output \"q\" does not exist", changed([](InferRequest* request) {
         request->add_outputs()->set_name("q");
       })},
  };
  for (const auto& each : cases) {
    ExpectRefused(each.request, grpc::StatusCode::INVALID_ARGUMENT, each.words);
  }
  // None of them advanced the sequence.
  EXPECT_EQ(InferOrFail(Ask(5, 1, {0})).parameters().at("step").int64_param(),
            1);
}

TEST_F(OipServiceTest, AStartThatFailsLeavesNothingOpen) {
  server::ServerOptions options = Options();
  options.inference.max_episodes = 2;
  StartOip(options);
  ExpectRefused(Begin(5, 1, {0, 1, 2}), grpc::StatusCode::RESOURCE_EXHAUSTED,
                "max_episodes");
  EXPECT_EQ(OpenEpisodes(), 0);
  ExpectRefused(Ask(5, 1, {0}), grpc::StatusCode::NOT_FOUND, "not open");
  InferOrFail(Begin(5, 1, {0, 1}));
}

TEST_F(OipServiceTest, AnIdleSequenceExpires) {
  InferOrFail(Begin(5, 1, {0}));
  clock_.Advance(Options().inference.episode_lease + absl::Seconds(1));
  InferResponse response;
  EXPECT_FALSE(Infer(Ask(5, 1, {0}), &response).ok());
  EXPECT_EQ(OpenEpisodes(), 0);
  ExpectSameSteps(PlaySequence(5, 21, 3, 2), PlayLocally(21, 3, 2), 1e-5);
}

TEST_F(OipServiceTest, SequencesOfManyThreadsDoNotDisturbEachOther) {
  std::map<int, std::vector<StepNumbers>> played;
  for (int i = 1; i <= 6; ++i) played[i] = {};
  std::vector<std::thread> threads;
  for (auto& [sequence, steps] : played) {
    threads.emplace_back([this, id = sequence, &into = steps] {
      into = PlaySequence(id, 100 + id, id, 6);
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const auto& [sequence, steps] : played) {
    ExpectSameSteps(steps, PlayLocally(100 + sequence, sequence, 6), 1e-5);
  }
}

TEST_F(OipServiceTest, AStreamAnswersEachSequenceInOrder) {
  grpc::ClientContext context;
  auto stream = oip_->ModelStreamInfer(&context);
  constexpr int kSteps = 8;
  // All at once, two sequences in turns and one request that is refused.
  for (int64_t step = 0; step < kSteps; ++step) {
    for (const int64_t sequence : {1, 2}) {
      const int environment = static_cast<int>(sequence);
      InferRequest request = step == 0
                                 ? Begin(sequence, 20 + sequence, {environment})
                                 : Ask(sequence, step, {environment});
      request.set_id(absl::StrCat(sequence));
      ASSERT_TRUE(stream->Write(request));
    }
    if (step == 3) {
      InferRequest request = Ask(3, step, {0});
      request.set_id("3");
      ASSERT_TRUE(stream->Write(request));
    }
  }
  stream->WritesDone();
  std::map<std::string, std::vector<StepNumbers>> played;
  int refused = 0;
  inference::ModelStreamInferResponse answer;
  while (stream->Read(&answer)) {
    if (!answer.error_message().empty()) {
      ++refused;
      EXPECT_EQ(answer.infer_response().id(), "3");
      EXPECT_THAT(answer.error_message(), HasSubstr("not open"));
      continue;
    }
    auto& steps = played[answer.infer_response().id()];
    EXPECT_EQ(answer.infer_response().parameters().at("step").int64_param(),
              static_cast<int64_t>(steps.size()));
    steps.push_back(Row(answer.infer_response(), 0));
  }
  EXPECT_TRUE(stream->Finish().ok());
  EXPECT_EQ(refused, 1);
  ExpectSameSteps(played["1"], PlayLocally(21, 1, kSteps), 1e-5);
  ExpectSameSteps(played["2"], PlayLocally(22, 2, kSteps), 1e-5);
}

TEST_F(OipServiceTest, AClientThatLeavesItsStreamLeavesTheServerWell) {
  for (int i = 0; i < 8; ++i) {
    grpc::ClientContext context;
    auto stream = oip_->ModelStreamInfer(&context);
    stream->Write(Begin(1, 0, {0}));
    for (int step = 1; step < 20; ++step) stream->Write(Ask(1, step, {0}));
    context.TryCancel();
    stream->Finish();
  }
  ExpectSameSteps(PlaySequence(1, 21, 3, 3), PlayLocally(21, 3, 3), 1e-5);
}

TEST_F(OipServiceTest, IsNotReadyOnceItDrains) {
  InferOrFail(Begin(5, 1, {0}));
  server_->inference().Drain();
  grpc::ClientContext context;
  inference::ServerReadyResponse ready;
  ASSERT_TRUE(oip_->ServerReady(&context, {}, &ready).ok());
  EXPECT_FALSE(ready.ready());
  ExpectRefused(Ask(5, 1, {0}), grpc::StatusCode::UNAVAILABLE, "shutting down");
}

}  // namespace
}  // namespace esper::testing
