#include "core/host/embedding_host.h"

#include <ATen/Parallel.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/tensor.h>

#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "core/error.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"

namespace esper::host {
namespace {

using ::esper::testing::Refused;
using ::testing::ElementsAre;

const bool kOneThread = (at::set_num_threads(1), true);

std::shared_ptr<EmbeddingHost> MakeHost(uint64_t seed = 1) {
  EmbeddingHostOptions options;
  options.vocab_size = 5;
  options.width = 8;
  return EmbeddingHost::Create(options, seed).value();
}

// int64 [rows, T].
at::Tensor Tokens(const std::vector<int64_t>& tokens, int64_t rows = 1) {
  return at::tensor(tokens).view({rows, -1});
}

TEST(EmbeddingHostTest, HasItsPointsInARowAndASharedHead) {
  const auto host = MakeHost();
  EXPECT_THAT(host->execution_order(), ElementsAre("r0c0", "r0c1", "r0c2"));
  EXPECT_EQ(host->segment_channels().at("r0c2"), 8);
  int64_t parameters = 0;
  for (const at::Tensor& parameter : host->parameters()) {
    parameters += parameter.numel();
  }
  EXPECT_EQ(parameters, 5 * 8 + 2 * 8);
  const at::Tensor tokens = Tokens({0, 1, 4, 2, 2, 3}, 2);
  EXPECT_EQ(host->Forward(tokens).sizes(), at::IntArrayRef({2, 3, 5}));
}

TEST(EmbeddingHostTest, GuessesByTheLastTokenAlone) {
  const auto host = MakeHost();
  const at::Tensor a = host->Forward(Tokens({0, 1, 4}));
  const at::Tensor b = host->Forward(Tokens({3, 2, 4}));
  EXPECT_TRUE(at::equal(a.select(1, 2), b.select(1, 2)));
  EXPECT_FALSE(at::equal(a.select(1, 0), b.select(1, 0)));
}

TEST(EmbeddingHostTest, RoutesFeaturesUnchangedBetweenPoints) {
  const auto host = MakeHost();
  const at::Tensor tokens = Tokens({0, 1, 4});
  const at::Tensor first = host->Run(EmbeddingHost::kInput, 0, tokens);
  const at::Tensor last = host->Run(0, 2, first);
  EXPECT_TRUE(at::equal(first, last));
  EXPECT_FALSE(last.is_alias_of(first));
  EXPECT_TRUE(
      at::equal(host->Run(2, host->output(), last), host->Forward(tokens)));
}

TEST(EmbeddingHostTest, StartsFromTheSeedAlone) {
  const at::Tensor tokens = Tokens({0, 1, 4});
  EXPECT_TRUE(
      at::equal(MakeHost(1)->Forward(tokens), MakeHost(1)->Forward(tokens)));
  EXPECT_FALSE(
      at::equal(MakeHost(1)->Forward(tokens), MakeHost(2)->Forward(tokens)));
}

TEST(EmbeddingHostTest, RefusesInputsOfAnotherShape) {
  const auto host = MakeHost();
  EXPECT_THROW(host->Forward(Tokens({1, 2}).view({2})), ShapeError);
  EXPECT_THROW(host->Forward(Tokens({1, 2}).to(at::kFloat)), ShapeError);
  EXPECT_THROW(host->Run(0, 1, Tokens({1, 2})), ShapeError);
}

TEST(EmbeddingHostTest, RefusesOptionsOutsideTheirRange) {
  using Change = void (*)(EmbeddingHostOptions&);
  const std::vector<std::pair<std::string, Change>> changes = {
      {"vocab_size", [](auto& o) { o.vocab_size = 0; }},
      {"width", [](auto& o) { o.width = -1; }},
      {"segments", [](auto& o) { o.segments = 0; }},
      {"deviation", [](auto& o) { o.deviation = 0; }},
      {"deviation",
       [](auto& o) { o.deviation = std::numeric_limits<double>::infinity(); }},
  };
  for (const auto& [field, change] : changes) {
    EmbeddingHostOptions options;
    change(options);
    const auto host = EmbeddingHost::Create(options, 1);
    EXPECT_THAT(host, Refused(absl::StatusCode::kInvalidArgument,
                              std::string("BAD_HOST_OPTION")));
    EXPECT_EQ(DetailOf(host.status())->field, field);
  }
}

}  // namespace
}  // namespace esper::host
