#include "tests/server/service_fixture.h"

#include <chrono>
#include <cstring>
#include <random>

#include "ATen/ops/empty.h"
#include "ATen/ops/tensor.h"
#include "absl/strings/str_cat.h"
#include "core/policy/inference_policy.h"
#include "proto/codec/error_detail.h"
#include "proto/codec/tensor_codec.h"
#include "tests/testing/status_matchers.h"

namespace esper::testing {
namespace {

// Appends the rows of `more` to a tensor message of the same row shape.
void Append(const v1::Tensor& more, v1::Tensor* message) {
  if (codec::IsAbsent(*message)) {
    *message = more;
    return;
  }
  message->set_shape(0, message->shape(0) + more.shape(0));
  message->mutable_data()->append(more.data());
}

template <typename Response, typename Call>
absl::StatusOr<Response> Unary(absl::Duration timeout, const Call& call) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() +
                       absl::ToChronoNanoseconds(timeout));
  Response response;
  const grpc::Status status = call(&context, &response);
  if (!status.ok()) return codec::DecodeStatus(status, context);
  return response;
}

}  // namespace

policy::PolicySpec SmallSpec() {
  policy::NetworkGrowingOptions options;
  options.feature_dim = 32;
  options.hidden_dim = 32;
  return policy::PolicySpec::NetworkGrowing(options);
}

server::ServerOptions ServiceTest::Options() {
  server::ServerOptions options;
  options.address = "";
  options.spec = spec_;
  options.init_seed = 11;
  options.clock = clock_.AsClock();
  options.inference.max_episodes = 64;
  return options;
}

void ServiceTest::Start(const server::ServerOptions& options) {
  stub_ = nullptr;
  channel_ = nullptr;
  server_ = nullptr;
  auto server = server::Server::Create(options);
  ASSERT_OK(server);
  server_ = *std::move(server);
  channel_ = server_->InProcessChannel();
  stub_ = v1::PolicyInference::NewStub(channel_);
}

StepInputs ServiceTest::InputsOf(int environment, int64_t step) const {
  std::mt19937 random(environment * 1000 + step);
  std::normal_distribution<float> normal;
  StepInputs inputs;
  std::vector<float> features(spec_.observation_width());
  for (float& feature : features) feature = normal(random);
  inputs.observations =
      at::tensor(features).reshape({1, spec_.observation_width()});
  std::vector<int64_t> categorical(spec_.categorical_count());
  for (int64_t& value : categorical) {
    value = static_cast<int64_t>(random() % 14) - 1;
  }
  inputs.categorical = at::tensor(categorical, at::kLong)
                           .reshape({1, spec_.categorical_count()});
  inputs.masks = mask_codec_.AllowAll(1);
  // Some, but never all, entries of two masks.
  const int64_t slots = spec_.heads[0].size;
  inputs.masks.heads[0][slots + random() % 13] = false;
  inputs.masks.conditional[0][random() % 6][random() % slots] = false;
  return inputs;
}

v1::OpenEpisodesRequest ServiceTest::OpenRequest(const std::string& key,
                                                 uint64_t seed,
                                                 uint64_t incarnation) const {
  v1::OpenEpisodesRequest request;
  v1::EpisodeStart* start = request.add_episodes();
  start->set_environment_key(key);
  start->set_incarnation(incarnation);
  start->set_seed(seed);
  return request;
}

std::string ServiceTest::Open(const std::string& key, uint64_t seed,
                              uint64_t incarnation) {
  const auto opened = Open(OpenRequest(key, seed, incarnation));
  EXPECT_OK(opened);
  return opened.ok() ? opened->episode_ids(0) : "";
}

void ServiceTest::AddRow(int environment, const std::string& id, int64_t step,
                         v1::GetActionRequest* request) const {
  v1::StepRow* row = request->add_rows();
  row->set_episode_id(id);
  row->set_incarnation(1);
  row->set_step(step);
  const StepInputs inputs = InputsOf(environment, step);
  v1::Tensor message;
  codec::EncodeTensor(inputs.observations, &message);
  Append(message, request->mutable_observations());
  codec::EncodeTensor(inputs.categorical.to(at::kChar), &message);
  Append(message, request->mutable_categorical());
  mask_codec_.Encode(inputs.masks, &message);
  Append(message, request->mutable_action_masks());
}

v1::GetActionRequest ServiceTest::Request(const std::string& id, int64_t step,
                                          int environment) const {
  v1::GetActionRequest request;
  AddRow(environment, id, step, &request);
  return request;
}

absl::StatusOr<v1::GetActionResponse> ServiceTest::Act(
    const v1::GetActionRequest& request, absl::Duration timeout) {
  return Unary<v1::GetActionResponse>(timeout, [&](auto* context, auto* reply) {
    return stub_->GetAction(context, request, reply);
  });
}

absl::StatusOr<v1::OpenEpisodesResponse> ServiceTest::Open(
    const v1::OpenEpisodesRequest& request) {
  return Unary<v1::OpenEpisodesResponse>(
      absl::Minutes(1), [&](auto* context, auto* reply) {
        return stub_->OpenEpisodes(context, request, reply);
      });
}

absl::StatusOr<v1::CloseEpisodesResponse> ServiceTest::Close(
    const v1::CloseEpisodesRequest& request) {
  return Unary<v1::CloseEpisodesResponse>(
      absl::Minutes(1), [&](auto* context, auto* reply) {
        return stub_->CloseEpisodes(context, request, reply);
      });
}

std::vector<StepNumbers> ServiceTest::Play(const std::string& id,
                                           int environment, int64_t steps) {
  std::vector<StepNumbers> played;
  for (int64_t step = 0; step < steps; ++step) {
    const auto response = Act(Request(id, step, environment));
    EXPECT_OK(response);
    if (!response.ok()) break;
    played.push_back(NumbersOf(*response, 0));
  }
  return played;
}

std::vector<StepNumbers> ServiceTest::PlayLocally(uint64_t seed,
                                                  int environment,
                                                  int64_t steps) const {
  const auto published = server_->policies().Current();
  policy::RecurrentState state;
  std::vector<StepNumbers> played;
  for (int64_t step = 0; step < steps; ++step) {
    const StepInputs own = InputsOf(environment, step);
    policy::PolicyInputs inputs;
    inputs.observations = published->scaler.Apply(own.observations);
    inputs.categorical = own.categorical;
    inputs.action_masks = own.masks.heads;
    inputs.conditional_mask = own.masks.conditional;
    inputs.state = state;
    policy::CounterKeys noise;
    noise.keys.push_back({seed, static_cast<uint64_t>(step), false});
    const auto sample = published->policy->GetAction(inputs, noise);
    state = sample.next_state;
    StepNumbers numbers;
    const int64_t* actions = sample.actions.const_data_ptr<int64_t>();
    numbers.actions.assign(actions, actions + sample.actions.numel());
    numbers.log_probs = sample.log_probs.ToVector();
    numbers.value = sample.values.ToVector().front();
    played.push_back(numbers);
  }
  return played;
}

StepNumbers NumbersOf(const v1::GetActionResponse& response, int64_t row) {
  const int64_t heads = response.actions().shape(1);
  StepNumbers numbers;
  for (int64_t k = 0; k < heads; ++k) {
    numbers.actions.push_back(
        static_cast<uint8_t>(response.actions().data()[row * heads + k]));
  }
  numbers.log_probs.resize(heads);
  std::memcpy(numbers.log_probs.data(),
              response.behaviour().log_probs().data().data() +
                  row * heads * sizeof(float),
              heads * sizeof(float));
  std::memcpy(&numbers.value,
              response.behaviour().values().data().data() + row * sizeof(float),
              sizeof(float));
  return numbers;
}

void ExpectSameSteps(const std::vector<StepNumbers>& got,
                     const std::vector<StepNumbers>& expected,
                     float tolerance) {
  ASSERT_EQ(got.size(), expected.size());
  for (size_t step = 0; step < got.size(); ++step) {
    EXPECT_EQ(got[step].actions, expected[step].actions) << "step " << step;
    EXPECT_NEAR(got[step].value, expected[step].value, tolerance);
    for (size_t k = 0; k < got[step].log_probs.size(); ++k) {
      EXPECT_NEAR(got[step].log_probs[k], expected[step].log_probs[k],
                  tolerance)
          << "step " << step << ", head " << k;
    }
  }
}

}  // namespace esper::testing
