// The estimate of a graph's memory against what LibTorch's allocator says.
#include "core/policy/graph_bytes.h"

#include <memory>
#include <string>

#include "c10/core/Allocator.h"
#include "c10/util/ThreadLocalDebugInfo.h"
#include "core/policy/policy_spec.h"
#include "core/ppo/learner.h"
#include "gtest/gtest.h"
#include "tests/core/ppo/rollout.h"
#include "tests/testing/status_matchers.h"

namespace esper::policy {
namespace {

// Bytes allocated and not freed on this thread while it is in force.
class Ledger : public c10::MemoryReportingInfoBase {
 public:
  void reportMemoryUsage(void*, int64_t bytes, size_t, size_t,
                         c10::Device) override {
    bytes_ += bytes;
  }
  bool memoryProfilingEnabled() const override { return true; }
  int64_t bytes() const { return bytes_; }

 private:
  int64_t bytes_ = 0;
};

struct Case {
  const char* name;
  PolicySpec spec;
  int64_t rows, steps;
  TrainingPrecision precision = TrainingPrecision::kFp32;
};

TEST(GraphBytesTest, EstimateIsWithinAFifthOfWhatIsAllocated) {
  NetworkGrowingOptions small;
  small.feature_dim = 96;
  small.hidden_dim = 64;
  small.lstm_layers = 2;
  const auto growing = PolicySpec::NetworkGrowing();
  for (const Case& c :
       {Case{"4x25", growing, 4, 25}, Case{"8x150", growing, 8, 150},
        Case{"8x150 bf16", growing, 8, 150, TrainingPrecision::kBf16},
        Case{"two layers", PolicySpec::NetworkGrowing(small), 16, 100}}) {
    ppo::LearnerConfig config;
    config.precision = c.precision;
    auto learner = ppo::Learner::Create(c.spec, config, 1);
    ASSERT_OK(learner);
    ppo::RolloutOptions rollout;
    rollout.lengths.assign(c.rows, c.steps);
    const auto episodes =
        ppo::Rollout(c.spec, *(*learner)->published(), rollout);
    const auto ledger = std::make_shared<Ledger>();
    {
      const c10::DebugInfoGuard guard(c10::DebugInfoKind::PROFILER_STATE,
                                      ledger);
      auto evaluation = (*learner)->Evaluate(episodes, /*keep_graph=*/true);
      ASSERT_OK(evaluation);
      const double measured = static_cast<double>(ledger->bytes());
      const double estimate = static_cast<double>(
          EvaluationGraphBytes(c.spec, c.precision, c.rows, c.steps));
      RecordProperty(c.name, std::to_string(estimate / measured));
      EXPECT_GT(estimate, 0.8 * measured) << c.name << ": " << measured;
      EXPECT_LT(estimate, 1.2 * measured) << c.name << ": " << measured;
    }
  }
}

}  // namespace
}  // namespace esper::policy
