#include "tests/core/slot/plain_values.h"

#include <ATen/core/Tensor.h>

#include <memory>

#include "core/slot/slot_checkpoint.h"
#include "gtest/gtest.h"

namespace esper::testing {

struct WithTensor {
  int64_t number = 0;
  std::optional<at::Tensor> tensor;
};
inline auto Members(const WithTensor& w) {
  const auto& [number, tensor] = w;
  return std::tie(number, tensor);
}

namespace {

// The check itself can fail.
static_assert(!kIsPlain<at::Tensor>);
static_assert(!kIsPlain<std::optional<std::vector<at::Tensor>>>);
static_assert(!kIsPlain<std::map<std::string, at::Tensor>>);
static_assert(!kIsPlain<std::shared_ptr<int>>);
static_assert(!kIsPlain<WithTensor>);
static_assert(!kIsPlain<std::vector<WithTensor>>);
static_assert(!kIsPlain<slot::SlotCheckpoint>);

// Every field of the table, and so of a record and of what a slot measures.
static_assert(kIsPlain<slot::StageRecord>);
static_assert(kIsPlain<slot::AlphaState>);
static_assert(kIsPlain<slot::SeedMetrics>);
static_assert(kIsPlain<slot::GradientReading>);
static_assert(kIsPlain<slot::SeedRecord>);
static_assert(kIsPlain<slot::GateRecord>);
static_assert(kIsPlain<slot::SlotRecord>);

// What a slot hands out.
static_assert(kIsPlain<slot::SeedTelemetry>);
static_assert(kIsPlain<decltype(slot::SeedTelemetry().Features())>);
static_assert(kIsPlain<slot::SlotReport>);

TEST(PlainValuesTest, TheFieldTableAndReportsHoldNoTensor) {
  EXPECT_TRUE(kIsPlain<slot::SlotRecord> && kIsPlain<slot::SlotReport>);
  EXPECT_FALSE(kIsPlain<WithTensor>);
}

}  // namespace
}  // namespace esper::testing
