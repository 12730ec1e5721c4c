#include "core/policy/packed_kernels.h"

#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "ATen/ops/empty.h"
#include "ATen/ops/empty_like.h"
#include "ATen/ops/layer_norm.h"
#include "ATen/ops/linear.h"
#include "ATen/ops/ones.h"
#include "ATen/ops/zeros.h"
#include "core/policy/inference_precision.h"
#include "core/policy/onednn_linear.h"
#include "core/policy/packed_linear.h"
#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"
#include "torch/csrc/autograd/autograd.h"

namespace esper::policy {
namespace {

std::vector<const PackedKernels*> Kernels() {
  int count = 0;
  const PackedKernels* const* kernels = AllKernels(&count);
  return {kernels, kernels + count};
}

class Random {
 public:
  at::Tensor Tensor(at::IntArrayRef sizes) {
    at::Tensor x = at::empty(sizes, at::kFloat);
    for (int64_t i = 0; i < x.numel(); ++i) {
      x.mutable_data_ptr<float>()[i] = normal_(engine_);
    }
    return x;
  }

 private:
  std::mt19937 engine_{20240701};
  std::normal_distribution<float> normal_;
};

at::Tensor Apply(const PackedLinear& layer, const at::Tensor& x, bool relu) {
  const int64_t rows = x.size(0);
  at::Tensor y = at::empty({rows, layer.padded_outputs()}, at::kFloat);
  std::vector<float> scratch(layer.ScratchSize(rows));
  layer.Apply(x.const_data_ptr<float>(), x.stride(0), rows,
              y.mutable_data_ptr<float>(), y.stride(0), relu, scratch.data());
  return y.narrow(1, 0, layer.outputs());
}

struct Size {
  int64_t rows, inputs, outputs;
};

class PackedKernelsTest : public ::testing::Test {
 protected:
  const std::vector<Size> sizes_ = {{1, 1, 1},    {2, 3, 17},   {5, 7, 16},
                                    {6, 64, 33},  {7, 33, 100}, {13, 116, 80},
                                    {64, 31, 48}, {3, 512, 512}};
  Random random_;
};

TEST_F(PackedKernelsTest, ProductsAreThoseOfLinear) {
  for (const PackedKernels* kernels : Kernels()) {
    for (const Size& size : sizes_) {
      SCOPED_TRACE(std::string(kernels->name) + " " +
                   std::to_string(size.outputs));
      const at::Tensor x = random_.Tensor({size.rows, size.inputs});
      const at::Tensor w = random_.Tensor({size.outputs, size.inputs});
      const at::Tensor b = random_.Tensor({size.outputs});
      const PackedLinear layer(w, b, InferencePrecision::kFp32, *kernels);
      const at::Tensor expected =
          at::linear(x.to(at::kDouble), w.to(at::kDouble), b.to(at::kDouble));
      const double tolerance = 1e-6 * std::sqrt(size.inputs) + 1e-6;
      EXPECT_TRUE(Apply(layer, x, false)
                      .to(at::kDouble)
                      .allclose(expected, 1e-5, 10 * tolerance));
      EXPECT_TRUE(Apply(layer, x, true)
                      .to(at::kDouble)
                      .allclose(expected.relu(), 1e-5, 10 * tolerance));
    }
  }
}

TEST_F(PackedKernelsTest, Bf16ProductsAreThoseOfRoundedNumbers) {
  for (const PackedKernels* kernels : Kernels()) {
    for (const Size& size : sizes_) {
      SCOPED_TRACE(std::string(kernels->name) + " " +
                   std::to_string(size.outputs));
      const at::Tensor x = random_.Tensor({size.rows, size.inputs});
      const at::Tensor w = random_.Tensor({size.outputs, size.inputs});
      const at::Tensor b = random_.Tensor({size.outputs});
      const PackedLinear layer(w, b, InferencePrecision::kBf16, *kernels);
      const auto rounded = [](const at::Tensor& t) {
        return t.to(at::kBFloat16).to(at::kDouble);
      };
      const at::Tensor expected =
          at::linear(rounded(x), rounded(w), b.to(at::kDouble));
      // Where the processor multiplies bfloat16 itself, bias and result are
      // rounded, too.
      const double tolerance = HasBf16Products() ? 2e-2 : 1e-5;
      EXPECT_TRUE(Apply(layer, x, false)
                      .to(at::kDouble)
                      .allclose(expected, tolerance,
                                tolerance * std::sqrt(size.inputs)));
    }
  }
}

// The same bits for a row alone and for any number of rows before it.
TEST_F(PackedKernelsTest, ARowDoesNotDependOnTheRowsBesideIt) {
  const at::Tensor x = random_.Tensor({64, 129});
  const at::Tensor w = random_.Tensor({113, 129});
  const at::Tensor b = random_.Tensor({113});
  for (const PackedKernels* kernels : Kernels()) {
    for (const InferencePrecision precision :
         {InferencePrecision::kFp32, InferencePrecision::kBf16}) {
      if (precision == InferencePrecision::kBf16 && HasBf16Products()) continue;
      const PackedLinear layer(w, b, precision, *kernels);
      std::vector<at::Tensor> alone;
      for (int64_t row = 0; row < 64; ++row) {
        alone.push_back(Apply(layer, x.narrow(0, row, 1), true).clone());
      }
      for (int64_t rows = 1; rows <= 64; ++rows) {
        const at::Tensor y = Apply(layer, x.narrow(0, 64 - rows, rows), true);
        for (int64_t row = 0; row < rows; ++row) {
          ASSERT_TRUE(y.narrow(0, row, 1).equal(alone[64 - rows + row]))
              << kernels->name << ", row " << row << " of " << rows;
        }
      }
    }
  }
}

TEST_F(PackedKernelsTest, LayerNormIsThatOfLibTorch) {
  for (const PackedKernels* kernels : Kernels()) {
    for (const int64_t width : {8, 16, 24, 63, 512}) {
      const at::Tensor x = random_.Tensor({3, width}).mul(3).add(1);
      const at::Tensor weight = random_.Tensor({width});
      const at::Tensor bias = random_.Tensor({width});
      const at::Tensor residual = random_.Tensor({3, width});
      const at::Tensor expected =
          at::layer_norm(x, {width}, weight, bias, 1e-5);
      at::Tensor y = at::empty_like(x);
      LayerNormCall call;
      call.x = x.const_data_ptr<float>();
      call.rows = 3;
      call.ldx = call.ldy = call.ldr = call.width = width;
      call.weight = weight.const_data_ptr<float>();
      call.bias = bias.const_data_ptr<float>();
      call.epsilon = 1e-5f;
      call.y = y.mutable_data_ptr<float>();
      kernels->layer_norm(call);
      EXPECT_TRUE(y.allclose(expected, 1e-5, 1e-5)) << kernels->name << width;
      call.relu = true;
      kernels->layer_norm(call);
      EXPECT_TRUE(y.allclose(expected.relu(), 1e-5, 1e-5));
      call.relu = false;
      call.residual = residual.const_data_ptr<float>();
      kernels->layer_norm(call);
      EXPECT_TRUE(y.allclose(expected.add(residual), 1e-5, 1e-5));
    }
  }
}

TEST_F(PackedKernelsTest, LstmCellIsThatOfLibTorch) {
  for (const PackedKernels* kernels : Kernels()) {
    for (const int64_t width : {8, 16, 19, 512}) {
      at::Tensor gates = random_.Tensor({4 * width}).mul(4);
      gates.mutable_data_ptr<float>()[0] = 200;  // Saturates.
      gates.mutable_data_ptr<float>()[width] = -200;
      gates.mutable_data_ptr<float>()[2 * width] = 1e-6f;
      const at::Tensor c = random_.Tensor({width});
      const auto gate = [&](int64_t i) {
        return gates.narrow(0, i * width, width).to(at::kDouble);
      };
      const at::Tensor expected_c =
          gate(1).sigmoid().mul(c).add(gate(0).sigmoid().mul(gate(2).tanh()));
      const at::Tensor expected_h = gate(3).sigmoid().mul(expected_c.tanh());
      at::Tensor h = at::empty_like(c);
      at::Tensor next_c = at::empty_like(c);
      LstmCellCall call;
      call.gates = gates.const_data_ptr<float>();
      call.c = c.const_data_ptr<float>();
      call.width = width;
      call.next_h = h.mutable_data_ptr<float>();
      call.next_c = next_c.mutable_data_ptr<float>();
      kernels->lstm_cell(call);
      EXPECT_TRUE(next_c.to(at::kDouble).allclose(expected_c, 1e-6, 1e-6))
          << kernels->name << width;
      EXPECT_TRUE(h.to(at::kDouble).allclose(expected_h, 1e-6, 1e-6));
    }
  }
}

// The training cell is the acting one, and its gradient that of autograd.
TEST_F(PackedKernelsTest, TrainingCellHasTheGradientOfItsForward) {
  for (const PackedKernels* kernels : Kernels()) {
    for (const int64_t width : {1, 7, 16, 37}) {
      const at::Tensor input = random_.Tensor({4 * width});
      const at::Tensor product = random_.Tensor({4 * width});
      const at::Tensor c = random_.Tensor({width});
      const at::Tensor dh = random_.Tensor({width});
      const at::Tensor next_dc = random_.Tensor({width});
      at::Tensor gates = at::empty_like(input), h = at::empty_like(c);
      at::Tensor next_c = at::empty_like(c), dgates = at::empty_like(input);
      at::Tensor dc = next_dc.clone();
      LstmForwardCall forward;
      forward.input = input.const_data_ptr<float>();
      forward.product = product.const_data_ptr<float>();
      forward.c = c.const_data_ptr<float>();
      forward.width = width;
      forward.gates = gates.mutable_data_ptr<float>();
      forward.next_h = h.mutable_data_ptr<float>();
      forward.next_c = next_c.mutable_data_ptr<float>();
      kernels->lstm_forward(forward);
      LstmBackwardCall backward;
      backward.gates = forward.gates;
      backward.c = forward.c;
      backward.next_c = forward.next_c;
      backward.dh = dh.const_data_ptr<float>();
      backward.width = width;
      backward.dc = dc.mutable_data_ptr<float>();
      backward.dgates = dgates.mutable_data_ptr<float>();
      kernels->lstm_backward(backward);

      const at::Tensor sum =
          input.add(product).to(at::kDouble).requires_grad_();
      const at::Tensor before = c.to(at::kDouble).requires_grad_();
      const auto gate = [&](int64_t i) {
        return sum.narrow(0, i * width, width);
      };
      const at::Tensor after = gate(1).sigmoid().mul(before).add(
          gate(0).sigmoid().mul(gate(2).tanh()));
      const at::Tensor y = gate(3).sigmoid().mul(after.tanh());
      const auto expected = torch::autograd::grad(
          {y.mul(dh).sum().add(after.mul(next_dc).sum())}, {sum, before});
      const auto near = [&](const at::Tensor& x, const at::Tensor& exact) {
        EXPECT_TRUE(x.to(at::kDouble).allclose(exact, 2e-6, 2e-6))
            << kernels->name << " " << width;
      };
      near(h, y.detach());
      near(next_c, after.detach());
      near(dgates, expected[0]);
      near(dc, expected[1]);
    }
  }
}

TEST_F(PackedKernelsTest, WhatIsNotFiniteIsFoundAndStaysSo) {
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  for (const PackedKernels* kernels : Kernels()) {
    for (const float bad : {kNan, kInfinity, -kInfinity}) {
      std::vector<float> x(37, 1.0f);
      EXPECT_TRUE(kernels->all_finite(x.data(), 37));
      for (const int at : {0, 15, 36}) {
        std::vector<float> y = x;
        y[at] = bad;
        EXPECT_FALSE(kernels->all_finite(y.data(), 37));
        EXPECT_TRUE(kernels->all_finite(y.data(), at));
      }
    }
    const PackedLinear layer(at::ones({16, 4}), at::zeros({16}),
                             InferencePrecision::kFp32, *kernels);
    at::Tensor x = at::ones({1, 4});
    x.mutable_data_ptr<float>()[2] = kNan;
    EXPECT_TRUE(Apply(layer, x, /*relu=*/true).isnan().all().item<bool>());
    std::vector<float> gates(4 * 16, kNan), c(16, 0), h(16), next_c(16);
    LstmCellCall call;
    call.gates = gates.data();
    call.c = c.data();
    call.width = 16;
    call.next_h = h.data();
    call.next_c = next_c.data();
    kernels->lstm_cell(call);
    EXPECT_TRUE(std::isnan(h[0]));
    EXPECT_TRUE(std::isnan(next_c[15]));
  }
}

TEST_F(PackedKernelsTest, RoundsToNearestEven) {
  const at::Tensor x = random_.Tensor({1000}).mul(100);
  const at::Tensor expected = x.to(at::kBFloat16).to(at::kFloat);
  for (const PackedKernels* kernels : Kernels()) {
    at::Tensor y = at::empty_like(x);
    kernels->round_bf16(x.const_data_ptr<float>(), x.numel(),
                        y.mutable_data_ptr<float>());
    EXPECT_TRUE(y.equal(expected)) << kernels->name;
  }
}

// The way to oneDNN, in the precision that every processor has.
TEST_F(PackedKernelsTest, OneDnnIsReachedThroughTheDispatcher) {
  const at::Tensor x = random_.Tensor({5, 40});
  const at::Tensor w = random_.Tensor({24, 40});
  const at::Tensor b = random_.Tensor({24});
  const at::Tensor reordered = ReorderLinearWeight(w, /*rows=*/64);
  const at::Tensor expected = at::linear(x, w, b);
  EXPECT_TRUE(OneDnnLinear(x, reordered, b, /*relu=*/false)
                  .allclose(expected, 1e-5, 1e-5));
  EXPECT_TRUE(OneDnnLinear(x, reordered, b, /*relu=*/true)
                  .allclose(expected.relu(), 1e-5, 1e-5));
}

TEST(InferencePrecisionTest, AutoIsWhatTheProcessorIsFastAt) {
  EXPECT_EQ(ParsePrecision("fp32").value(), InferencePrecision::kFp32);
  EXPECT_EQ(ParsePrecision("bf16").value(), InferencePrecision::kBf16);
  EXPECT_EQ(ParsePrecision("auto").value() == InferencePrecision::kBf16,
            HasBf16Products());
  EXPECT_THAT(ParsePrecision("int8").status(),
              esper::testing::StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_STREQ(PrecisionName(InferencePrecision::kBf16), "bf16");
}

}  // namespace
}  // namespace esper::policy
