#ifndef ESPER_TESTS_SERVER_SERVICE_FIXTURE_H_
#define ESPER_TESTS_SERVER_SERVICE_FIXTURE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "esper/v1/policy_inference.grpc.pb.h"
#include "grpcpp/channel.h"
#include "gtest/gtest.h"
#include "proto/codec/mask_codec.h"
#include "server/server.h"
#include "tests/server/fake_clock.h"

namespace esper::testing {

// What one step of one episode looks like to its environment: a function of
// (environment, step) alone, so that every test can ask for it again.
struct StepInputs {
  at::Tensor observations;   // float32 [1, D].
  at::Tensor categorical;    // int64 [1, S].
  codec::ActionMasks masks;  // 1 row; some actions are disallowed.
};

// One row of a GetAction answer.
struct StepNumbers {
  std::vector<int64_t> actions;
  std::vector<float> log_probs;
  float value = 0;

  bool operator==(const StepNumbers& other) const {
    return actions == other.actions && log_probs == other.log_probs &&
           value == other.value;
  }
};

// A small network-growing policy: three slots, 32 wide.
policy::PolicySpec SmallSpec();

// Serves a small policy in process, under a fake clock, and speaks to it over a
// real channel.
class ServiceTest : public ::testing::Test {
 protected:
  // Options that tests start from.
  server::ServerOptions Options();
  // Starts, or replaces, the server.
  void Start(const server::ServerOptions& options);
  void Start() { Start(Options()); }

  StepInputs InputsOf(int environment, int64_t step) const;

  v1::OpenEpisodesRequest OpenRequest(const std::string& key, uint64_t seed,
                                      uint64_t incarnation = 1) const;
  // Opens one episode that must be accepted; its id.
  std::string Open(const std::string& key, uint64_t seed = 0,
                   uint64_t incarnation = 1);

  // Adds the row of an environment's step to a request.
  void AddRow(int environment, const std::string& id, int64_t step,
              v1::GetActionRequest* request) const;
  v1::GetActionRequest Request(const std::string& id, int64_t step,
                               int environment = 0) const;

  absl::StatusOr<v1::GetActionResponse> Act(
      const v1::GetActionRequest& request,
      absl::Duration timeout = absl::Minutes(1));
  absl::StatusOr<v1::OpenEpisodesResponse> Open(
      const v1::OpenEpisodesRequest& request);
  absl::StatusOr<v1::CloseEpisodesResponse> Close(
      const v1::CloseEpisodesRequest& request);

  // Takes steps [0, steps) of an episode one by one.
  std::vector<StepNumbers> Play(const std::string& id, int environment,
                                int64_t steps);
  // The same from the policy in this process, without server.
  std::vector<StepNumbers> PlayLocally(uint64_t seed, int environment,
                                       int64_t steps) const;

  const policy::PolicySpec spec_ = SmallSpec();
  const codec::MaskCodec mask_codec_{spec_};
  FakeClock clock_;
  std::unique_ptr<server::Server> server_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::PolicyInference::Stub> stub_;
};

// Row `row` of an answer.
StepNumbers NumbersOf(const v1::GetActionResponse& response, int64_t row);

// Equal actions, and log-probabilities and values within `tolerance`.
void ExpectSameSteps(const std::vector<StepNumbers>& got,
                     const std::vector<StepNumbers>& expected, float tolerance);

}  // namespace esper::testing
#endif  // ESPER_TESTS_SERVER_SERVICE_FIXTURE_H_
