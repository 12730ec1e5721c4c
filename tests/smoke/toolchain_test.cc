#include <grpcpp/grpcpp.h>

#include "ATen/core/Tensor.h"
#include "ATen/ops/ones.h"
#include "absl/status/statusor.h"
#include "gtest/gtest.h"

// The one test that tells a broken set-up from broken code.
TEST(ToolchainTest, LibTorchGrpcAndAbseilLinkTogether) {
  at::Tensor x = at::ones({2, 3});
  EXPECT_EQ(x.sum().item<float>(), 6.0f);
  EXPECT_FALSE(grpc::Version().empty());
  absl::StatusOr<int> value = absl::InvalidArgumentError("no");
  EXPECT_EQ(value.status().code(), absl::StatusCode::kInvalidArgument);
}
