// Rows of the policy's error catalogue that need a server of a special kind:
// weights that overflow, a specification that cannot be, calls that do not
// exist.
#include <string>

#include "ATen/ops/full_like.h"
#include "absl/synchronization/notification.h"
#include "core/ppo/learner.h"
#include "grpcpp/generic/generic_stub.h"
#include "gtest/gtest.h"
#include "server/learner_thread.h"
#include "server/policy_store.h"
#include "tests/server/service_fixture.h"
#include "tests/testing/status_matchers.h"

namespace esper::testing {
namespace {

class PolicyErrorsTest : public ServiceTest {
 protected:
  // The version that the server's learner published last.
  ppo::PolicySnapshot Published() {
    ppo::PolicySnapshot snapshot;
    absl::Notification copied;
    server_->learner().Run(
        [&](ppo::Learner& learner) {
          snapshot = *learner.published();
          return absl::OkStatus();
        },
        [&](const absl::Status& status) {
          EXPECT_OK(status);
          copied.Notify();
        });
    copied.WaitForNotification();
    return snapshot;
  }

  // Calls a method by its path with an empty message.
  grpc::Status CallByName(const std::string& path) {
    grpc::GenericStub stub(channel_);
    grpc::ClientContext context;
    grpc::Slice empty("");
    grpc::ByteBuffer request(&empty, 1), response;
    absl::Notification done;
    grpc::Status result;
    stub.UnaryCall(&context, path, {}, &request, &response,
                   [&](grpc::Status status) {
                     result = std::move(status);
                     done.Notify();
                   });
    done.WaitForNotification();
    return result;
  }
};

TEST_F(PolicyErrorsTest, LogitsThatOverflowAreTheServersFault) {
  Start();
  const ppo::PolicySnapshot good = Published();
  ppo::PolicySnapshot huge = good;
  ++huge.version;
  for (auto& [name, weight] : huge.weights) {
    // Finite, so it can be published; its products are not.
    if (name == "op_head.2.weight") weight = at::full_like(weight, 3e38);
  }
  ASSERT_OK(server_->policies().Publish(huge));
  const std::string id = Open("a");
  const absl::Status refused = Act(Request(id, 0)).status();
  EXPECT_THAT(refused,
              Refused(absl::StatusCode::kInternal, "NONFINITE_LOGITS"));
  EXPECT_EQ(DetailOf(refused)->field, "op");
  EXPECT_EQ(server_->counters().Refusals()["NONFINITE_LOGITS"], 1);
  // The step was not taken: it can be repeated on a sound version.
  ppo::PolicySnapshot again = good;
  again.version = huge.version + 1;
  ASSERT_OK(server_->policies().Publish(again));
  EXPECT_OK(Act(Request(id, 0)));
}

TEST_F(PolicyErrorsTest, AFloorOutOfRangeIsRefusedAtStart) {
  for (const double floor : {-0.1, 1.0}) {
    server::ServerOptions options = Options();
    options.spec->heads[2].floor = floor;
    const auto server = server::Server::Create(options);
    EXPECT_THAT(server.status(),
                Refused(absl::StatusCode::kInvalidArgument, "BAD_SPEC"));
    EXPECT_EQ(DetailOf(server.status())->field, "heads.style");
  }
}

TEST_F(PolicyErrorsTest, OffPolicyCallsAreUnimplemented) {
  Start();
  for (const char* path : {"/esper.v1.PolicyInference/GetQValues",
                           "/esper.v1.PolicyTraining/SyncFrom"}) {
    EXPECT_EQ(CallByName(path).error_code(), grpc::StatusCode::UNIMPLEMENTED)
        << path;
  }
}

}  // namespace
}  // namespace esper::testing
