// A small coordinator for tests: acts, updates, publishes and saves without
// pause, and says on standard output what it was told, one line each:
//
//   lease TOKEN dropped STEPS version VERSION
//   stepped OPTIMIZER_STEPS
//   published VERSION OPTIMIZER_STEPS WEIGHTS_DIGEST
//   saved NAME VERSION OPTIMIZER_STEPS
//   refused REASON
//
// Exit code 3 after a refusal, 4 if the server is gone.

#include <cstdint>
#include <iostream>
#include <string>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "client/admin_client.h"
#include "client/policy_client.h"
#include "client/status.h"
#include "client/training_client.h"
#include "core/policy/policy_spec.h"
#include "tests/testing/rollout.h"

ABSL_FLAG(std::string, address, "", "Of the server.");
ABSL_FLAG(std::string, holder, "writer", "Name that takes the lease.");
ABSL_FLAG(int64_t, publishes, 0, "Updates that are published; 0: all.");
ABSL_FLAG(bool, linger, false,
          "Goes on after them with steps that are not published.");
ABSL_FLAG(bool, save, false, "Saves a checkpoint after every step.");
ABSL_FLAG(uint64_t, seed, 1, "Of the observations.");

namespace esper::client {
namespace {

constexpr int kEpisodes = 2;
constexpr int kSteps = 4;

class Writer {
 public:
  Writer(std::shared_ptr<grpc::Channel> channel, policy::PolicySpec spec)
      : channel_(std::move(channel)),
        spec_(std::move(spec)),
        training_(channel_, Once()),
        admin_(channel_, Once()) {}

  // One attempt per call: whoever is cut off says so at once.
  static RetryPolicy Once() {
    RetryPolicy retry;
    retry.attempt_timeout = absl::Minutes(10);  // It may be stopped.
    retry.give_up_after = absl::ZeroDuration();
    return retry;
  }

  // Waits for a lease that another holder has.
  absl::Status TakeLease() {
    for (;;) {
      auto lease = training_.AcquireLearner(absl::GetFlag(FLAGS_holder));
      if (lease.ok()) {
        std::cout << "lease " << lease->lease_token() << " dropped "
                  << lease->dropped_steps() << " version "
                  << lease->header().policy_version() << std::endl;
        return absl::OkStatus();
      }
      if (ReasonOf(lease.status()) != "STALE_LEASE") return lease.status();
      absl::SleepFor(absl::Milliseconds(100));
    }
  }

  absl::Status Step(bool publish) {
    v1::ForwardBackwardRequest pass;
    *pass.mutable_batch() = esper::testing::ActEpisodes(
        channel_, spec_, kEpisodes, kSteps, ++seed_);
    pass.mutable_ppo();
    pass.set_first_pass(true);
    auto accumulated = training_.ForwardBackward(pass);
    if (!accumulated.ok()) return accumulated.status();
    v1::OptimStepRequest step;
    step.set_publish(publish);
    auto stepped = training_.OptimStep(step);
    if (!stepped.ok()) return stepped.status();
    if (!publish) {
      std::cout << "stepped " << stepped->optimizer_steps() << std::endl;
      return absl::OkStatus();
    }
    const int64_t version = stepped->header().policy_version();
    auto versions = admin_.ListVersions();
    if (!versions.ok()) return versions.status();
    for (const auto& summary : versions->versions()) {
      if (summary.policy_version() != version) continue;
      std::cout << "published " << version << " " << stepped->optimizer_steps()
                << " " << summary.weights_digest() << std::endl;
    }
    return absl::OkStatus();
  }

  absl::Status Save() {
    auto saved = admin_.SaveCheckpoint("");
    if (!saved.ok()) return saved.status();
    std::cout << "saved " << saved->name() << " "
              << saved->header().policy_version() << " "
              << saved->name().substr(saved->name().find("-s") + 2)
              << std::endl;
    return absl::OkStatus();
  }

  absl::Status Run() {
    absl::Status status = TakeLease();
    const int64_t publishes = absl::GetFlag(FLAGS_publishes);
    for (int64_t i = 1; status.ok(); ++i) {
      const bool publish = publishes == 0 || i <= publishes;
      if (!publish && !absl::GetFlag(FLAGS_linger)) break;
      status = Step(publish);
      if (status.ok() && absl::GetFlag(FLAGS_save)) status = Save();
    }
    return status;
  }

 private:
  const std::shared_ptr<grpc::Channel> channel_;
  const policy::PolicySpec spec_;
  TrainingClient training_;
  AdminClient admin_;
  uint64_t seed_ = absl::GetFlag(FLAGS_seed);
};

absl::Status Run() {
  ConnectOptions connect;
  connect.address = absl::GetFlag(FLAGS_address);
  connect.timeout = absl::Seconds(60);
  connect.keepalive_time = absl::InfiniteDuration();
  auto channel = Connect(connect);
  if (!channel.ok()) return channel.status();
  auto policy = PolicyClient(*channel, Writer::Once()).GetPolicy();
  if (!policy.ok()) return policy.status();
  auto spec = policy::PolicySpec::FromJson(policy->spec_json());
  if (!spec.ok()) return spec.status();
  return Writer(*channel, *std::move(spec)).Run();
}

}  // namespace
}  // namespace esper::client

int main(int argc, char** argv) {
  absl::ParseCommandLine(argc, argv);
  const absl::Status status = esper::client::Run();
  if (status.ok()) return 0;
  const std::string reason = esper::client::ReasonOf(status);
  std::cerr << esper::client::Describe(status) << std::endl;
  if (reason.empty()) return 4;
  std::cout << "refused " << reason << std::endl;
  return 3;
}
