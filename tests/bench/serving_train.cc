#include "tests/bench/serving_train.h"

#include <memory>

#include "client/training_client.h"
#include "core/policy/policy_spec.h"
#include "grpcpp/create_channel.h"
#include "tests/testing/rollout.h"

namespace esper::bench {
namespace {

constexpr int kEpisodes = 8;
constexpr int kSteps = 50;

}  // namespace

absl::Status Train(const std::string& address, int passes) {
  const auto channel =
      grpc::CreateChannel(address, grpc::InsecureChannelCredentials());
  client::TrainingClient client(channel);
  const auto lease = client.AcquireLearner("bench");
  if (!lease.ok()) return lease.status();
  v1::ForwardBackwardRequest request;
  *request.mutable_batch() =
      testing::ActEpisodes(channel, policy::PolicySpec::NetworkGrowing(),
                           kEpisodes, kSteps, /*seed=*/5);
  request.mutable_ppo();
  request.set_first_pass(true);
  for (int pass = 0; passes == 0 || pass < passes; ++pass) {
    const auto response = client.ForwardBackward(request);
    if (!response.ok()) return response.status();
  }
  return client.ReleaseLearner();
}

}  // namespace esper::bench
