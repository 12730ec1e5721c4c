// What an episode is answered does not depend on who shares its batches.

#include <iostream>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "core/policy/inference_precision.h"
#include "gtest/gtest.h"
#include "tests/server/service_fixture.h"
#include "tests/testing/status_matchers.h"

namespace esper::testing {
namespace {

constexpr int kClients = 30;
constexpr int64_t kSteps = 25;

class BatchInvarianceTest : public ServiceTest {
 protected:
  void Serve(policy::InferencePrecision precision) {
    server::ServerOptions options = Options();
    options.inference.workers = 2;
    options.inference.max_episodes = 4 * kClients;
    options.inference.precision = precision;
    Start(options);
  }

  // One client at a time, one row a call.
  std::vector<std::vector<StepNumbers>> PlayAlone() {
    std::vector<std::vector<StepNumbers>> played;
    for (int i = 0; i < kClients; ++i) {
      played.push_back(
          Play(Open(absl::StrCat("alone", i), 300 + i), i, kSteps));
    }
    return played;
  }

  // All at once, each at moments of its own; some bring several rows.
  std::vector<std::vector<StepNumbers>> PlayTogether() {
    std::vector<std::vector<StepNumbers>> played(kClients);
    std::vector<std::thread> clients;
    for (int i = 0; i < kClients; ++i) {
      clients.emplace_back([this, i, &played] {
        std::mt19937 random(i);
        const std::string id = Open(absl::StrCat("jittered", i), 300 + i);
        std::string other;  // Rows that only fill the call.
        if (i % 3 == 0) other = Open(absl::StrCat("filler", i), i);
        for (int64_t step = 0; step < kSteps; ++step) {
          absl::SleepFor(absl::Microseconds(random() % 3000));
          v1::GetActionRequest request;
          if (!other.empty()) AddRow(100 + i, other, step, &request);
          AddRow(i, id, step, &request);
          const auto response = Act(request);
          ASSERT_OK(response);
          played[i].push_back(NumbersOf(*response, request.rows_size() - 1));
        }
      });
    }
    for (std::thread& client : clients) client.join();
    return played;
  }
};

TEST_F(BatchInvarianceTest, JitteredClientsGetTheActionsThatEachGetsAlone) {
  Serve(policy::InferencePrecision::kFp32);
  const auto alone = PlayAlone();
  const int64_t batches_alone = server_->counters().batches_run;
  const auto together = PlayTogether();
  const int64_t batches = server_->counters().batches_run - batches_alone;
  // They did share batches.
  EXPECT_LT(batches, kClients * kSteps * 9 / 10);
  for (int i = 0; i < kClients; ++i) {
    ExpectSameSteps(together[i], alone[i], /*tolerance=*/0);
  }
}

TEST_F(BatchInvarianceTest, InBf16OnlyTheProcessorsOwnProductsMayDiffer) {
  Serve(policy::InferencePrecision::kBf16);
  const auto alone = PlayAlone();
  const auto together = PlayTogether();
  // An episode whose action differs once goes its own way from there on.
  int differing = 0;
  for (int i = 0; i < kClients; ++i) {
    ASSERT_EQ(together[i].size(), alone[i].size());
    for (int64_t step = 0; step < kSteps; ++step) {
      if (together[i][step].actions == alone[i][step].actions) continue;
      ++differing;
      break;
    }
  }
  std::cout << differing << " of " << kClients
            << " episodes took another action in " << kSteps << " steps\n";
  if (policy::HasBf16Products()) {
    EXPECT_LE(differing, kClients / 3);
  } else {
    EXPECT_EQ(differing, 0);
  }
}

}  // namespace
}  // namespace esper::testing
