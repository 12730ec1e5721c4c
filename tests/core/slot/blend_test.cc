#include "core/slot/blend.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/full.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/sin.h>
#include <ATen/ops/tanh.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>

#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <type_traits>
#include <vector>

#include "core/error.h"
#include "gtest/gtest.h"

namespace esper::slot {
namespace {

using at::Tensor;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInf = std::numeric_limits<double>::infinity();

// The fourth argument is part of the type: nobody can forget it.
static_assert(std::is_invocable_v<decltype(BlendMultiply), const Tensor&,
                                  const Tensor&, const Tensor&, const Tensor&>);
static_assert(!std::is_invocable_v<decltype(BlendMultiply), const Tensor&,
                                   const Tensor&, const Tensor&>);
// Nor can alpha be a plain number, which could not live on a device.
static_assert(!std::is_invocable_v<decltype(BlendWithIsolation), const Tensor&,
                                   const Tensor&, double>);

const std::vector<int64_t> kCnnShape = {2, 3, 4, 5};

Tensor Features(double phase, at::ScalarType dtype = at::kDouble,
                const std::vector<int64_t>& shape = kCnnShape) {
  int64_t count = 1;
  for (const int64_t size : shape) count *= size;
  return at::sin(at::arange(count, at::kDouble).mul(0.7).add(phase))
      .mul(2)
      .reshape(shape)
      .to(dtype);
}

Tensor Leaf(const Tensor& tensor) {
  return tensor.detach()
      .clone(at::MemoryFormat::Preserve)
      .set_requires_grad(true);
}

Tensor Alpha(double value, at::ScalarType dtype = at::kDouble) {
  return at::full({}, value, dtype);
}

Tensor PerSample(const std::vector<double>& values, const Tensor& host) {
  std::vector<int64_t> shape(host.dim(), 1);
  shape[0] = host.size(0);
  return at::tensor(values, at::kDouble).to(host.scalar_type()).reshape(shape);
}

void ExpectEqual(const Tensor& actual, const Tensor& expected) {
  ASSERT_EQ(actual.sizes(), expected.sizes());
  EXPECT_EQ(actual.scalar_type(), expected.scalar_type());
  EXPECT_TRUE(actual.eq(expected)
                  .logical_or(actual.isnan().logical_and(expected.isnan()))
                  .all()
                  .item<bool>());
}

void ExpectNear(const Tensor& actual, const Tensor& expected,
                double tolerance = 1e-12) {
  ASSERT_EQ(actual.sizes(), expected.sizes());
  EXPECT_LE(actual.sub(expected).abs().max().item<double>(), tolerance);
}

// Every operator as a function of (host, seed, alpha), gate at 0.5, seed input
// as given.
using Operator =
    std::function<Tensor(const Tensor&, const Tensor&, const Tensor&)>;
std::vector<std::pair<std::string, Operator>> Operators() {
  return {{"add", BlendAdd},
          {"isolation", BlendWithIsolation},
          {"multiply",
           [](const Tensor& h, const Tensor& s, const Tensor& a) {
             return BlendMultiply(h, s, a, h.detach());
           }},
          {"gate", [](const Tensor& h, const Tensor& s, const Tensor& a) {
             return BlendGate(h, s, a, at::full({}, 0.5, h.options()));
           }}};
}

TEST(BlendTest, AgreesWithWorkedExamples) {
  const Tensor h = at::full({1, 1, 1, 1}, 2.0, at::kDouble);
  const Tensor s = at::full({1, 1, 1, 1}, 3.0, at::kDouble);
  EXPECT_DOUBLE_EQ(BlendAdd(h, s, Alpha(.5)).item<double>(), 2.5);
  EXPECT_NEAR(BlendMultiply(h, s, Alpha(.5), h).item<double>(), 2.7615942,
              1e-7);
  EXPECT_DOUBLE_EQ(BlendGate(h, s, Alpha(.8), Alpha(.5)).item<double>(), 2.4);
}

TEST(BlendTest, KeepsHostsDtypeShapeAndLayout) {
  for (const auto dtype : {at::kDouble, at::kFloat, at::kHalf, at::kBFloat16}) {
    for (const auto seed_dtype : {at::kDouble, at::kFloat, at::kBFloat16}) {
      const Tensor host =
          Features(0, dtype).contiguous(at::MemoryFormat::ChannelsLast);
      const Tensor seed = Features(1, seed_dtype);
      for (const auto& [name, blend] : Operators()) {
        const Tensor out = blend(host, seed, Alpha(0.3));
        EXPECT_EQ(out.scalar_type(), dtype) << name;
        EXPECT_EQ(out.sizes(), host.sizes()) << name;
        EXPECT_TRUE(out.is_contiguous(at::MemoryFormat::ChannelsLast)) << name;
        EXPECT_FALSE(out.is_alias_of(host)) << name;
      }
      const Tensor out = SteForward(host, seed);
      EXPECT_EQ(out.scalar_type(), dtype);
      EXPECT_TRUE(out.is_contiguous(at::MemoryFormat::ChannelsLast));
    }
  }
}

TEST(BlendTest, ZeroAlphaGivesTheHostWhateverTheSeedHolds) {
  for (const auto dtype : {at::kDouble, at::kFloat, at::kBFloat16}) {
    for (const double bad : {kNan, kInf, -kInf, 1e6}) {
      for (const bool alpha_learns : {false, true}) {
        for (const auto& [name, blend] : Operators()) {
          const Tensor host = Leaf(Features(0, dtype));
          const Tensor seed = Leaf(at::full_like(host, bad));
          const Tensor alpha = Alpha(0, dtype).set_requires_grad(alpha_learns);
          const Tensor out = blend(host, seed, alpha);
          ExpectEqual(out, host);
          const Tensor cotangent = Features(2, dtype);
          out.backward(cotangent);
          ExpectEqual(host.grad(), cotangent);
          ExpectEqual(seed.grad(), at::zeros_like(seed));
        }
      }
    }
  }
}

TEST(BlendTest, ZeroAlphaGivesTheHostWhateverTheHostHolds) {
  for (const double bad : {kNan, kInf}) {
    for (const auto& [name, blend] : Operators()) {
      const Tensor host = Leaf(at::full(kCnnShape, bad, at::kDouble));
      const Tensor out = blend(host, Features(1), Alpha(0));
      ExpectEqual(out, host);
      out.sum().backward();
      ExpectEqual(host.grad(), at::ones_like(host));
    }
  }
}

TEST(BlendTest, ASpoiltSampleLeavesTheOthersAlone) {
  const Tensor host = Features(0);
  Tensor seed = Features(1);
  seed[0].fill_(kNan);
  const Tensor alpha = PerSample({0, 0.5}, host);
  const Tensor out = BlendAdd(host, seed, alpha);
  ExpectEqual(out[0], host[0]);
  ExpectNear(out[1], host[1].add(seed[1]).mul(0.5));
}

TEST(BlendTest, ClampsAlphaAndGate) {
  const Tensor h = Features(0), s = Features(1);
  ExpectEqual(BlendAdd(h, s, Alpha(7.5)), BlendAdd(h, s, Alpha(1)));
  ExpectEqual(BlendAdd(h, s, Alpha(-3)), h);
  ExpectEqual(BlendGate(h, s, Alpha(1), Alpha(9)), BlendAdd(h, s, Alpha(1)));
  ExpectEqual(BlendGate(h, s, Alpha(1), Alpha(-1)), h);
  EXPECT_EQ(GateEffectiveAlpha(Alpha(2), Alpha(0.25)).item<double>(), 0.25);
}

TEST(BlendTest, AddAndGateStayBetweenHostAndSeed) {
  const Tensor h = Features(0), s = Features(1);
  for (const double a : {0.0, 0.3, 1.0}) {
    for (const Tensor& out :
         {BlendAdd(h, s, Alpha(a)), BlendGate(h, s, Alpha(1), Alpha(a))}) {
      EXPECT_TRUE(out.ge(h.minimum(s).sub(1e-12)).all().item<bool>());
      EXPECT_TRUE(out.le(h.maximum(s).add(1e-12)).all().item<bool>());
    }
  }
}

TEST(BlendTest, AddGradientsHaveTheirClosedForm) {
  for (const double a : {0.0, 0.3, 0.8, 1.0}) {
    const Tensor h = Leaf(Features(0)), s = Leaf(Features(1));
    const Tensor alpha = Alpha(a).set_requires_grad(true);
    const Tensor g = Features(2);
    BlendWithIsolation(h, s, alpha).backward(g);
    ExpectNear(h.grad(), g.mul(1 - a));
    ExpectNear(s.grad(), g.mul(a));
    ExpectNear(alpha.grad(), g.mul(s.detach().sub(h.detach())).sum());
  }
}

TEST(BlendTest, GateGradientsHaveTheirClosedForm) {
  const Tensor h = Leaf(Features(0)), s = Leaf(Features(1));
  const Tensor gate = Leaf(PerSample({0.25, 0.75}, h));
  const Tensor g = Features(2);
  BlendGate(h, s, Alpha(0.8), gate).backward(g);
  const Tensor weight = gate.detach().mul(0.8);
  ExpectNear(h.grad(), g.mul(weight.mul(-1).add(1)));
  ExpectNear(s.grad(), g.mul(weight));
  ExpectNear(gate.grad(), g.mul(s.detach().sub(h.detach()))
                              .sum({1, 2, 3}, /*keepdim=*/true)
                              .mul(0.8));
}

TEST(BlendTest, MultiplyGradientsHaveTheirClosedForm) {
  for (const bool coupled : {false, true}) {
    const Tensor h = Leaf(Features(0)), s = Leaf(Features(1));
    const Tensor alpha = Alpha(0.6).set_requires_grad(true);
    const Tensor g = Features(2);
    BlendMultiply(h, s, alpha, coupled ? h : h.detach()).backward(g);
    const Tensor hd = h.detach();
    const Tensor t = at::tanh(s.detach().sub(hd));
    const Tensor sech2 = t.mul(t).mul(-1).add(1);
    const Tensor through = g.mul(hd).mul(sech2).mul(0.6);
    const Tensor direct = g.mul(t.mul(0.6).add(1));
    ExpectNear(h.grad(), coupled ? direct.sub(through) : direct);
    ExpectNear(s.grad(), through);
    ExpectNear(alpha.grad(), g.mul(hd).mul(t).sum());
  }
}

TEST(BlendTest, IsolatedMultiplyGivesTheHostExactlyTheMultiplier) {
  const Tensor h = Leaf(Features(0)), s = Features(1);
  BlendMultiply(h, s, Alpha(0.6), h.detach()).sum().backward();
  const Tensor expected =
      MultiplyValveMultiplier(Alpha(0.6), s.sub(h.detach()));
  ExpectNear(h.grad(), expected, 2.3e-16);
  ExpectEqual(BlendMultiply(h.detach(), s, Alpha(0.6), h.detach()),
              BlendMultiply(h, s, Alpha(0.6), h).detach());
}

TEST(BlendTest, MultiplierStaysInItsBounds) {
  for (const double a : {0.0, 0.4, 1.0}) {
    const Tensor m = MultiplyValveMultiplier(Alpha(a), Features(0).mul(1e3));
    EXPECT_TRUE(m.ge(1 - a - 1e-12).all().item<bool>());
    EXPECT_TRUE(m.le(1 + a + 1e-12).all().item<bool>());
  }
  ExpectEqual(
      MultiplyValveMultiplier(Alpha(0), at::full({3}, kNan, at::kDouble)),
      at::full({3}, 1.0, at::kDouble));
}

TEST(BlendTest, ASeedEqualToItsInputMultipliesByOne) {
  const Tensor h = Features(0);
  ExpectEqual(BlendMultiply(h, h, Alpha(0.7), h), h);
}

// Layouts that the same values may come in.
std::vector<Tensor> Layouts(const Tensor& cnn) {
  Tensor wide = at::zeros_like(cnn).repeat({1, 1, 1, 2});
  Tensor sliced = wide.slice(3, 0, wide.size(3), 2);
  sliced.copy_(cnn);
  return {cnn.contiguous(), cnn.contiguous(at::MemoryFormat::ChannelsLast),
          sliced};
}

TEST(SteForwardTest, EqualsTheHostForEverySeedDtypeAndLayout) {
  for (const auto dtype : {at::kDouble, at::kFloat, at::kHalf, at::kBFloat16}) {
    for (const Tensor& host_layout : Layouts(Features(0, dtype))) {
      for (const Tensor& seed_layout : Layouts(Features(1, at::kFloat))) {
        for (const double scale : {1.0, 1e-6, 1e30}) {
          const Tensor host = Leaf(host_layout);
          const Tensor seed = Leaf(seed_layout.mul(scale));
          const Tensor out = SteForward(host, seed);
          ExpectEqual(out, host);
          EXPECT_EQ(out.strides(), host.strides());
          const Tensor g = Features(2, dtype);
          out.backward(g);
          ExpectEqual(host.grad(), g);
          EXPECT_EQ(seed.grad().scalar_type(), at::kFloat);
          if (scale <= 1) ExpectEqual(seed.grad(), g.to(at::kFloat));
        }
      }
    }
  }
  const Tensor sequence = Features(0, at::kFloat, {2, 5, 6});
  ExpectEqual(SteForward(sequence, Features(1, at::kFloat, {2, 5, 6})),
              sequence);
}

TEST(SteForwardTest, KeepsNonFiniteSeedsOutAndGivesThemNoGradient) {
  const Tensor host = Leaf(Features(0));
  Tensor values = Features(1);
  values[0][0].fill_(kNan);
  values[0][1].fill_(kInf);
  values[1][2].fill_(-kInf);
  const Tensor seed = Leaf(values);
  const Tensor out = SteForward(host, seed);
  ExpectEqual(out, host);
  const Tensor g = Features(2);
  out.backward(g);
  ExpectEqual(host.grad(), g);
  ExpectEqual(seed.grad(),
              at::where(at::isfinite(values), g, at::zeros_like(g)));
}

TEST(SteForwardTest, SurvivesExtremeMagnitudes) {
  const Tensor big = Features(0, at::kFloat).mul(1e6);
  const Tensor small = Features(1, at::kFloat).mul(1e-6);
  ExpectEqual(SteForward(big, small), big);
  ExpectEqual(SteForward(small, big), small);
}

TEST(SteForwardTest, WritesToNoInput) {
  const Tensor host = Features(0), seed = Features(1);
  const auto host_version = host._version(), seed_version = seed._version();
  SteForward(host, seed);
  BlendAdd(host, seed, Alpha(0.5));
  BlendMultiply(host, seed, Alpha(0.5), host);
  EXPECT_EQ(host._version(), host_version);
  EXPECT_EQ(seed._version(), seed_version);
}

TEST(BlendTest, RefusesWhatDoesNotFit) {
  const Tensor h = Features(0), s = Features(1), a = Alpha(0.5);
  const Tensor broadcastable = Features(1, at::kDouble, {2, 3, 1, 1});
  const Tensor integers = h.to(at::kLong);
  const auto meta = [](const Tensor& t) { return t.to(at::kMeta); };
  EXPECT_THROW(SteForward(h, broadcastable), ShapeError);
  EXPECT_THROW(SteForward(h, Tensor()), ShapeError);
  EXPECT_THROW(SteForward(h, meta(s)), ShapeError);
  EXPECT_THROW(SteForward(integers, integers), ShapeError);
  EXPECT_THROW(BlendAdd(h, broadcastable, a), ShapeError);
  EXPECT_THROW(BlendAdd(Tensor(), s, a), ShapeError);
  EXPECT_THROW(BlendAdd(h, s, Tensor()), ShapeError);
  EXPECT_THROW(BlendAdd(h, s, at::full({}, 1, at::kLong)), ShapeError);
  EXPECT_THROW(BlendAdd(h, s, at::full({2}, .5, at::kDouble)), ShapeError);
  EXPECT_THROW(BlendAdd(h, s, at::full({3, 1, 1, 1}, .5, at::kDouble)),
               ShapeError);
  EXPECT_THROW(BlendAdd(h, s, at::full({1, 3, 1, 1}, .5, at::kDouble)),
               ShapeError);
  EXPECT_THROW(BlendAdd(h, s, meta(a)), ShapeError);
  EXPECT_THROW(BlendMultiply(h, s, a, Tensor()), ShapeError);
  EXPECT_THROW(BlendMultiply(h, s, a, broadcastable), ShapeError);
  EXPECT_THROW(BlendMultiply(h, s, a, meta(h)), ShapeError);
  EXPECT_THROW(BlendGate(h, s, a, broadcastable), ShapeError);
  EXPECT_THROW(BlendGate(h, s, a, Tensor()), ShapeError);
  try {
    SteForward(h, broadcastable);
    FAIL();
  } catch (const ShapeError& error) {
    EXPECT_EQ(error.reason(), "BAD_SHAPE");
    EXPECT_NE(std::string(error.what()).find("[2, 3, 1, 1]"),
              std::string::npos);
  }
}

}  // namespace
}  // namespace esper::slot
