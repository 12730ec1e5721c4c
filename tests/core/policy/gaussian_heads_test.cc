// Gaussian heads from the distribution up: density, noise, acting, evaluation.
#include <cmath>
#include <limits>
#include <ostream>

#include "ATen/CPUGeneratorImpl.h"
#include "ATen/ops/cat.h"
#include "ATen/ops/full.h"
#include "ATen/ops/ones.h"
#include "ATen/ops/where.h"
#include "ATen/ops/zeros.h"
#include "c10/core/GradMode.h"
#include "core/error.h"
#include "core/policy/diagonal_gaussian.h"
#include "core/policy/parameter_list.h"
#include "core/policy/policy_io.h"
#include "core/policy/sampler.h"
#include "gtest/gtest.h"
#include "tests/core/policy/test_policy.h"
#include "tests/core/policy/test_specs.h"
#include "tests/testing/status_matchers.h"

namespace esper::policy {

// How GoogleTest shows a parameter.
void PrintTo(const PolicySpec& spec, std::ostream* out) { *out << spec.name; }

namespace {

constexpr double kHalfLogTwoPi = 0.91893853320467274178;

// Sum of log densities of one head's dimensions, in double.
double NaiveLogProb(const std::vector<double>& x, const std::vector<double>& mu,
                    const std::vector<double>& log_std) {
  double sum = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    const double z = (x[i] - mu[i]) / std::exp(log_std[i]);
    sum += -0.5 * z * z - log_std[i] - kHalfLogTwoPi;
  }
  return sum;
}

std::vector<double> ToDoubles(const at::Tensor& x) {
  const at::Tensor host = x.detach().to(at::kDouble).contiguous();
  const double* data = host.const_data_ptr<double>();
  return std::vector<double>(data, data + host.numel());
}

// One point for the heads of Hybrid(), N = 6 rows of C = 8 dimensions.
class DiagonalGaussianTest : public ::testing::Test {
 protected:
  DiagonalGaussianTest()
      : generator_(at::make_generator<at::CPUGeneratorImpl>(5)),
        means_(Normal({6, 8}).requires_grad_(true)),
        log_std_(Normal({8}).mul(0.5).requires_grad_(true)),
        values_(Normal({6, 8}).mul(2)),
        relevant_(at::ones({6, 5}, at::kBool)) {}

  at::Tensor Normal(at::IntArrayRef sizes) {
    return at::zeros(sizes, at::kFloat).normal_(0, 1, generator_);
  }
  DiagonalGaussian Make() const {
    return DiagonalGaussian(layout_, means_, log_std_, relevant_);
  }
  // What head `g` of row `n` should say, of means and deviations moved.
  double Naive(int64_t n, size_t g, const std::vector<double>& means,
               const std::vector<double>& log_std) const {
    const int64_t k = layout_.gaussian_heads()[g];
    const int64_t begin = layout_.continuous_offset(k);
    const int64_t end = begin + layout_.dimensions(k);
    const std::vector<double> x = ToDoubles(values_[n]);
    return NaiveLogProb({x.begin() + begin, x.begin() + end},
                        {means.begin() + begin, means.begin() + end},
                        {log_std.begin() + begin, log_std.begin() + end});
  }

  const HeadLayout layout_{Hybrid()};
  at::Generator generator_;
  at::Tensor means_, log_std_, values_, relevant_;
};

TEST_F(DiagonalGaussianTest, DensityAndEntropyAreTheClosedForm) {
  const at::Tensor log_probs = Make().LogProb(values_);
  const at::Tensor entropies = Make().Entropy();
  ASSERT_EQ(log_probs.sizes().vec(), (std::vector<int64_t>{6, 3}));
  const std::vector<double> log_std = ToDoubles(log_std_);
  for (int64_t n = 0; n < 6; ++n) {
    for (size_t g = 0; g < 3; ++g) {
      const double expected = Naive(n, g, ToDoubles(means_[n]), log_std);
      EXPECT_NEAR(log_probs[n][g].item<double>(), expected,
                  2e-6 * (1 + std::fabs(expected)));
      const int64_t k = layout_.gaussian_heads()[g];
      double entropy = 0;
      for (int64_t j = 0; j < layout_.dimensions(k); ++j) {
        entropy +=
            log_std[layout_.continuous_offset(k) + j] + 0.5 + kHalfLogTwoPi;
      }
      EXPECT_NEAR(entropies[n][g].item<double>(), entropy, 2e-6);
    }
  }
}

TEST_F(DiagonalGaussianTest, GradientsEqualFiniteDifferences) {
  constexpr double kStep = 1e-5;
  // Different weights, so that no head's gradient stands for another's.
  const at::Tensor weights = Normal({6, 3});
  Make().LogProb(values_).mul(weights).sum().backward();
  const auto loss = [&](const at::Tensor& moved_means,
                        const at::Tensor& moved_log_std) {
    double sum = 0;
    for (int64_t n = 0; n < 6; ++n) {
      for (size_t g = 0; g < 3; ++g) {
        sum += weights[n][g].item<double>() *
               Naive(n, g, ToDoubles(moved_means[n]), ToDoubles(moved_log_std));
      }
    }
    return sum;
  };
  const at::Tensor means = means_.detach().to(at::kDouble);
  const at::Tensor log_std = log_std_.detach().to(at::kDouble);
  const auto expect = [](double gradient, double difference) {
    EXPECT_NEAR(gradient, difference, 1e-4 * (1 + std::fabs(difference)));
  };
  for (int64_t n = 0; n < 6; ++n) {
    for (int64_t j = 0; j < 8; ++j) {
      at::Tensor up = means.clone(), down = means.clone();
      up[n][j] += kStep;
      down[n][j] -= kStep;
      expect(means_.grad()[n][j].item<double>(),
             (loss(up, log_std) - loss(down, log_std)) / (2 * kStep));
    }
  }
  for (int64_t j = 0; j < 8; ++j) {
    at::Tensor up = log_std.clone(), down = log_std.clone();
    up[j] += kStep;
    down[j] -= kStep;
    expect(log_std_.grad()[j].item<double>(),
           (loss(means, up) - loss(means, down)) / (2 * kStep));
  }
  log_std_.mutable_grad() = at::Tensor();
  Make().Entropy().sum().backward();
  EXPECT_TRUE(log_std_.grad().allclose(at::full({8}, 6.0)));
}

TEST_F(DiagonalGaussianTest, AHeadThatDoesNotMatterIsZeroWithoutGradient) {
  relevant_[2][layout_.gaussian_heads()[0]] = false;  // aim: dimensions 0, 1.
  const DiagonalGaussian values = Make();
  EXPECT_EQ(values.LogProb(values_)[2][0].item<float>(), 0);
  EXPECT_EQ(values.Entropy()[2][0].item<float>(), 0);
  for (const at::Tensor& x : {values.Mode(), values.Sample(Normal({6, 8}))}) {
    EXPECT_EQ(x[2].narrow(0, 0, 2).abs().max().item<float>(), 0);
    EXPECT_NE(x[2][2].item<float>(), 0);
    EXPECT_NE(x[1][0].item<float>(), 0);
  }
  values.LogProb(values_).sum().backward();
  EXPECT_EQ(means_.grad()[2].narrow(0, 0, 2).abs().max().item<float>(), 0);
  EXPECT_NE(means_.grad()[1][0].item<float>(), 0);
}

TEST_F(DiagonalGaussianTest, ExtremeDeviationsStayFinite) {
  for (const double log_std : {-1e4, 1e4}) {
    c10::NoGradGuard no_grad;
    log_std_.fill_(log_std);
    const DiagonalGaussian values = Make();
    const at::Tensor sampled = values.Sample(Normal({6, 8}));
    EXPECT_TRUE(sampled.isfinite().all().item<bool>());
    EXPECT_TRUE(values.LogProb(sampled).isfinite().all().item<bool>());
  }
}

TEST(CounterNormalTest, FollowsItsFormula) {
  // Entries 8 and 9: words 0 and 1 of block 2 of head 3 at step 2^32 + 5.
  const std::array<uint32_t, 4> words =
      Philox4x32({5, 1, 3, 2}, {0x89abcdef, 0x01234567});
  const double u = ((words[0] >> 8) + 0.5) / 16777216.0;
  const double v = ((words[1] >> 8) + 0.5) / 16777216.0;
  const double radius = std::sqrt(-2 * std::log(u));
  const uint64_t step = (1ull << 32) + 5;
  EXPECT_FLOAT_EQ(CounterNormal(0x0123456789abcdef, step, 3, 8),
                  static_cast<float>(radius * std::cos(2 * M_PI * v)));
  EXPECT_FLOAT_EQ(CounterNormal(0x0123456789abcdef, step, 3, 9),
                  static_cast<float>(radius * std::sin(2 * M_PI * v)));
}

TEST(CounterNormalTest, DependsOnTheRowsKeyAlone) {
  const HeadLayout layout(Hybrid());
  const std::vector<NoiseKey> keys = {
      {1, 0}, {1, 1}, {2, 0}, {9, 7}, {9, 7, /*deterministic=*/true}};
  const at::Tensor all = CounterNormals(keys, layout);
  ASSERT_EQ(all.sizes().vec(), (std::vector<int64_t>{5, 8}));
  for (size_t i = 0; i < keys.size(); ++i) {
    EXPECT_TRUE(CounterNormals({keys[i]}, layout)[0].equal(all[i]));
    for (size_t j = 0; j < i; ++j) EXPECT_FALSE(all[i].equal(all[j]));
  }
  for (const int64_t k : layout.gaussian_heads()) {
    for (int64_t j = 0; j < layout.dimensions(k); ++j) {
      EXPECT_EQ(all[3][layout.continuous_offset(k) + j].item<float>(),
                CounterNormal(9, 7, k, j));
    }
  }
  EXPECT_EQ(all[4].abs().max().item<float>(), 0);
}

TEST(CounterNormalTest, IsStandardNormalAndIndependent) {
  const HeadLayout layout(Hybrid());
  constexpr int64_t kKeys = 20000;
  std::vector<NoiseKey> keys;
  for (uint64_t step = 0; step < kKeys; ++step) keys.push_back({42, step});
  const at::Tensor x = CounterNormals(keys, layout).to(at::kDouble);
  const double error = 1 / std::sqrt(static_cast<double>(kKeys));
  // Deviations of the sample moments of a normal: 1, sqrt(2), sqrt(15), ...
  for (int64_t j = 0; j < 8; ++j) {
    const at::Tensor column = x.select(1, j);
    EXPECT_NEAR(column.mean().item<double>(), 0, 4.5 * error);
    EXPECT_NEAR(column.square().mean().item<double>(), 1, 4.5 * 1.42 * error);
    EXPECT_NEAR(column.pow(3).mean().item<double>(), 0, 4.5 * 3.88 * error);
    EXPECT_NEAR(column.pow(4).mean().item<double>(), 3, 4.5 * 9.8 * error);
    EXPECT_LE(column.abs().max().item<double>(), 5.9);
    for (int64_t i = 0; i < j; ++i) {
      EXPECT_NEAR(column.mul(x.select(1, i)).mean().item<double>(), 0,
                  4.5 * error);
    }
  }
}

TEST(GaussianHeadTest, LogDeviationsAreParametersOfTheHead) {
  const PolicySpec spec = Hybrid();
  RecurrentPolicy network(spec, 3);
  EXPECT_TRUE(network.Parameter("aim_head.log_std")
                  .detach()
                  .equal(at::full({2}, -0.5)));
  EXPECT_TRUE(
      network.Parameter("grip_head.log_std").detach().equal(at::zeros({5})));
  EXPECT_EQ(network.HeadParameters("aim").size(), 5);
  const std::string path = ::testing::TempDir() + "/gaussian.safetensors";
  ASSERT_OK(WritePolicy(path, spec, network.StateDict()));
  const auto file = ReadPolicy(path);
  ASSERT_OK(file);
  EXPECT_TRUE(file->spec == spec);
  ASSERT_OK(network.LoadStateDict(file->weights));
}

class GaussianPolicyTest : public ::testing::TestWithParam<PolicySpec> {
 protected:
  const HeadLayout& layout() { return policy_.module().layout(); }

  TestPolicy policy_{GetParam()};
};

INSTANTIATE_TEST_SUITE_P(Specs, GaussianPolicyTest,
                         ::testing::ValuesIn(GaussianTestSpecs()),
                         [](const auto& info) { return info.param.name; });

TEST_P(GaussianPolicyTest, ActingAndEvaluationAgree) {
  const auto [acted, inputs] = policy_.Rollout(40, 6);
  const Evaluation evaluated = EvaluateActions(policy_.module(), inputs);
  EXPECT_TRUE(evaluated.log_probs.tensor().allclose(acted, 1e-5, 2e-5));
  const ReferenceEvaluation reference =
      EvaluateReference(policy_.module(), inputs);
  EXPECT_TRUE(reference.log_probs.unsafe_tensor().clone().allclose(
      evaluated.log_probs.tensor(), 1e-6, 1e-6));
  // Recorded numbers are the denominator of the ratio, as for other heads.
  const auto [sample, one] = policy_.SampleAndRecord(40);
  const Evaluation now = EvaluateActions(policy_.module(), one);
  EXPECT_TRUE(ImportanceRatio(now.log_probs, policy_.Recorded(sample))
                  .ratios.tensor()
                  .allclose(at::ones({}), 0, 1e-4));
  EXPECT_TRUE(now.entropies.tensor().squeeze(1).allclose(
      sample.entropies.unsafe_tensor().clone(), 1e-5, 1e-5));
}

TEST_P(GaussianPolicyTest, HoldsZerosWhereAHeadDoesNotMatter) {
  const auto [sample, inputs] = policy_.SampleAndRecord(400);
  const at::Tensor relevance = layout().Relevance(sample.actions);
  for (const int64_t k : layout().gaussian_heads()) {
    EXPECT_EQ(sample.actions.select(1, k).abs().max().item<int64_t>(), 0);
    const at::Tensor values = sample.continuous_actions.narrow(
        1, layout().continuous_offset(k), layout().dimensions(k));
    const at::Tensor used = relevance.select(1, k);
    EXPECT_TRUE(values.ne(0).any(1).equal(used));
    EXPECT_TRUE(
        sample.log_probs.unsafe_tensor().select(1, k).ne(0).equal(used));
    if (layout().driver(k) >= 0) {
      EXPECT_TRUE(used.any().item<bool>() && !used.all().item<bool>())
          << "the test should see both";
    }
  }
}

TEST_P(GaussianPolicyTest, ARowDoesNotDependOnItsBatch) {
  const PolicyInputs all = policy_.RandomStep(33);
  const std::vector<NoiseKey> keys = policy_.Keys(33);
  const ActionSample together =
      policy_.inference().GetAction(all, CounterKeys{keys});
  for (int64_t row = 0; row < 33; ++row) {
    PolicyInputs one;
    one.observations = all.observations.narrow(0, row, 1);
    one.state = {all.state.h.narrow(1, row, 1), all.state.c.narrow(1, row, 1)};
    one.action_masks = all.action_masks.narrow(0, row, 1);
    const ActionSample alone =
        policy_.inference().GetAction(one, CounterKeys{{keys[row]}});
    EXPECT_TRUE(alone.actions[0].equal(together.actions[row])) << row;
    EXPECT_TRUE(alone.continuous_actions[0].allclose(
        together.continuous_actions[row], 1e-5, 1e-5))
        << row;
  }
}

TEST_P(GaussianPolicyTest, DeterministicRowsTakeTheMean) {
  const PolicyInputs step = policy_.RandomStep(7);
  const ActionSample likely = policy_.inference().GetAction(step, NoNoise{});
  std::vector<NoiseKey> keys = policy_.Keys(7);
  for (size_t i = 0; i < 7; i += 2) keys[i].deterministic = true;
  const ActionSample mixed =
      policy_.inference().GetAction(step, CounterKeys{keys});
  // No noise is zero noise.
  GivenNoise zero{at::ones({7, layout().width()}),
                  at::zeros({7, layout().continuous_width()})};
  for (int64_t i = 0; i < 7; ++i) {
    const bool same =
        mixed.continuous_actions[i].equal(likely.continuous_actions[i]) &&
        mixed.actions[i].equal(likely.actions[i]);
    EXPECT_EQ(same, keys[i].deterministic) << i;
  }
  const ActionSample given = policy_.inference().GetAction(step, zero);
  if (layout().width() == 0) {
    EXPECT_TRUE(given.continuous_actions.equal(likely.continuous_actions));
  }
}

// Means and deviations of many draws in one state are those of the density.
TEST_P(GaussianPolicyTest, DrawsHaveTheMomentsOfTheDensity) {
  constexpr int64_t kDraws = 20000;
  const PolicyInputs one = policy_.RandomStep(1);
  PolicyInputs many;
  many.observations = one.observations.expand({kDraws, -1}).contiguous();
  many.state = {one.state.h.expand({-1, kDraws, -1}).contiguous(),
                one.state.c.expand({-1, kDraws, -1}).contiguous()};
  std::vector<NoiseKey> keys;
  for (uint64_t i = 0; i < kDraws; ++i) keys.push_back({1000 + i, 0});
  const ActionSample sample =
      policy_.inference().GetAction(many, CounterKeys{keys});
  const at::Tensor relevance = layout().Relevance(sample.actions);
  PolicyInputs unmasked = one;
  unmasked.action_masks = at::Tensor();
  const at::Tensor means =
      policy_.inference().GetAction(unmasked, NoNoise{}).continuous_actions;
  for (const int64_t k : layout().gaussian_heads()) {
    const at::Tensor rows = relevance.select(1, k).nonzero().squeeze(1);
    const double n = static_cast<double>(rows.size(0));
    ASSERT_GT(n, 100);
    const at::Tensor values =
        sample.continuous_actions.index_select(0, rows)
            .narrow(1, layout().continuous_offset(k), layout().dimensions(k))
            .to(at::kDouble);
    const at::Tensor log_std =
        policy_.module()
            .Parameter(policy_.spec().heads[k].name + "_head.log_std")
            .detach();
    const at::Tensor log_probs =
        sample.log_probs.unsafe_tensor().select(1, k).index_select(0, rows).to(
            at::kDouble);
    double entropy = 0;
    for (int64_t j = 0; j < layout().dimensions(k); ++j) {
      const int64_t column = layout().continuous_offset(k) + j;
      const double std = std::exp(log_std[j].item<double>());
      entropy += std::log(std) + 0.5 + kHalfLogTwoPi;
      if (layout().driver(k) < 0) {
        EXPECT_NEAR(values.select(1, j).mean().item<double>(),
                    means[0][column].item<double>(), 4.5 * std / std::sqrt(n));
      }
      EXPECT_NEAR(values.select(1, j).std().item<double>() / std, 1,
                  4.5 / std::sqrt(2 * n));
    }
    // E[-log p] is the entropy; each dimension adds variance 1/2.
    EXPECT_NEAR(-log_probs.mean().item<double>(), entropy,
                4.5 * std::sqrt(0.5 * layout().dimensions(k) / n));
    EXPECT_NEAR(sample.entropies.unsafe_tensor()[rows[0].item<int64_t>()][k]
                    .item<double>(),
                entropy, 1e-5);
  }
}

TEST_P(GaussianPolicyTest, ForwardGivesTheMeans) {
  const PolicyInputs step = policy_.RandomStep(5);
  const ActionSample likely = policy_.inference().GetAction(step, NoNoise{});
  ForwardInputs inputs;
  inputs.observations = step.observations;
  inputs.state = step.state;
  inputs.action_masks = step.action_masks;
  const at::Tensor means =
      policy_.inference().Forward(inputs).means.unsafe_tensor();
  ASSERT_EQ(means.sizes().vec(),
            (std::vector<int64_t>{5, 1, layout().continuous_width()}));
  // Acting takes them where the head matters.
  const at::Tensor used = likely.continuous_actions.ne(0);
  EXPECT_TRUE(at::where(used, means.squeeze(1), 0.0f)
                  .allclose(likely.continuous_actions, 1e-5, 1e-6));
}

TEST_P(GaussianPolicyTest, GeneratorNoiseIsAFunctionOfTheGenerator) {
  const PolicyInputs step = policy_.RandomStep(5);
  const auto draw = [&](uint64_t seed) {
    return policy_.inference().GetAction(
        step, GeneratorNoise{at::make_generator<at::CPUGeneratorImpl>(seed)});
  };
  EXPECT_TRUE(draw(1).continuous_actions.equal(draw(1).continuous_actions));
  EXPECT_FALSE(draw(1).continuous_actions.equal(draw(2).continuous_actions));
}

template <typename E, typename Body>
ErrorDetail Thrown(Body body) {
  try {
    body();
  } catch (const E& error) {
    return error.detail();
  } catch (const std::exception& error) {
    ADD_FAILURE() << "another error: " << error.what();
    return {};
  }
  ADD_FAILURE() << "nothing was thrown";
  return {};
}

TEST_P(GaussianPolicyTest, EvaluationRefusesWhatWasNotActed) {
  const EvaluationInputs good = policy_.Rollout(3, 4).second;
  EvaluationInputs inputs = good;
  const auto evaluate = [&] { EvaluateActions(policy_.module(), inputs); };
  inputs.continuous_actions = at::Tensor();
  EXPECT_EQ(Thrown<ShapeError>(evaluate).tensor, "continuous_actions");
  inputs.continuous_actions =
      at::zeros({3, 4, layout().continuous_width() + 1});
  EXPECT_EQ(Thrown<ShapeError>(evaluate).tensor, "continuous_actions");
  inputs.continuous_actions = good.continuous_actions.to(at::kDouble);
  Thrown<ShapeError>(evaluate);
  inputs.continuous_actions = good.continuous_actions.clone();
  inputs.continuous_actions[2][1][0] = std::nanf("");
  const ErrorDetail nan = Thrown<NonFiniteError>(evaluate);
  EXPECT_EQ(nan.tensor, "continuous_actions");
  EXPECT_EQ(nan.row, 2);
  EXPECT_EQ(nan.step, 1);
  inputs = good;
  inputs.actions = good.actions.clone();
  inputs.actions[1][3][layout().gaussian_heads()[0]] = 1;
  const ErrorDetail choice = Thrown<InvalidActionError>(evaluate);
  EXPECT_EQ(choice.row, 1);
  EXPECT_EQ(choice.step, 3);
}

TEST_P(GaussianPolicyTest, GivenNoiseIsChecked) {
  const PolicyInputs step = policy_.RandomStep(2);
  const at::Tensor ones = at::ones({2, layout().width()});
  const auto act = [&](const at::Tensor& normal) {
    return [this, step, ones, normal] {
      policy_.inference().GetAction(step, GivenNoise{ones, normal});
    };
  };
  Thrown<ShapeError>(act(at::Tensor()));
  Thrown<ShapeError>(act(at::zeros({2, 1})));
  Thrown<NonFiniteError>(
      act(at::full({2, layout().continuous_width()},
                   std::numeric_limits<double>::infinity(), at::kFloat)));
}

TEST(GaussianHeadTest, ValuesOfAHeadThatDoesNotMatterMustBeZeros) {
  TestPolicy policy(Hybrid());
  EvaluationInputs inputs = policy.Rollout(8, 5).second;
  const HeadLayout& layout = policy.module().layout();
  const int64_t aim = policy.spec().HeadIndex("aim");
  const at::Tensor used =
      layout.Relevance(inputs.actions.flatten(0, 1)).select(1, aim);
  const int64_t at = used.logical_not().nonzero()[0].item<int64_t>();
  inputs.continuous_actions[at / 5][at % 5][1] = 0.25;
  const auto evaluate = [&] { EvaluateActions(policy.module(), inputs); };
  const ErrorDetail detail = Thrown<InvalidActionError>(evaluate);
  EXPECT_EQ(detail.field, "aim");
  EXPECT_EQ(detail.row, at / 5);
  EXPECT_EQ(detail.step, at % 5);
  inputs.valid = at::ones({8, 5}, at::kBool);
  inputs.valid[at / 5][at % 5] = false;
  EXPECT_NO_THROW(evaluate());
}

TEST(GaussianHeadTest, NonFiniteDeviationsAreTheNetworksFault) {
  TestPolicy policy(PlainBox());
  const EvaluationInputs inputs = policy.Rollout(2, 2).second;
  {
    const c10::NoGradGuard no_grad;
    policy.module().Parameter("force_head.log_std")[1].fill_(std::nanf(""));
  }
  EXPECT_EQ(Thrown<NonFiniteError>([&] {
              EvaluateActions(policy.module(), inputs);
            }).field,
            "force");
}

TEST(GaussianHeadTest, APolicyWithoutOneTakesNoContinuousActions) {
  TestPolicy policy(PlainDiscrete());
  EvaluationInputs inputs = policy.Rollout(2, 2).second;
  EXPECT_FALSE(policy.SampleAndRecord(2).first.continuous_actions.defined());
  inputs.continuous_actions = at::zeros({2, 2, 1});
  EXPECT_EQ(Thrown<ShapeError>([&] {
              EvaluateActions(policy.module(), inputs);
            }).tensor,
            "continuous_actions");
}

}  // namespace
}  // namespace esper::policy
