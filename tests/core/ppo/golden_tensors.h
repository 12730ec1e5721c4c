#ifndef ESPER_TESTS_CORE_PPO_GOLDEN_TENSORS_H_
#define ESPER_TESTS_CORE_PPO_GOLDEN_TENSORS_H_

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>

#include "ATen/core/Tensor.h"
#include "ATen/ops/isfinite.h"
#include "core/tensor/safetensors.h"
#include "gtest/gtest.h"
#include "tests/core/ppo/golden.h"

namespace esper::ppo {

inline tensor::Safetensors LoadGoldenTensors(const std::string& file) {
  auto tensors = tensor::ReadSafetensors(GoldenPath(file));
  if (!tensors.ok()) throw std::runtime_error(tensors.status().ToString());
  return *std::move(tensors);
}

inline at::Tensor Get(const tensor::Safetensors& file,
                      const std::string& name) {
  const at::Tensor* found = file.Find(name);
  if (found == nullptr) throw std::runtime_error("no tensor " + name);
  return *found;
}

// |actual - expected| <= absolute + relative |expected| everywhere.
inline void ExpectTensorNear(const at::Tensor& actual,
                             const at::Tensor& expected, double relative,
                             double absolute, const std::string& what) {
  ASSERT_TRUE(actual.defined()) << what;
  ASSERT_EQ(actual.sizes(), expected.sizes()) << what;
  if (expected.numel() == 0) return;
  const at::Tensor a = actual.detach().to(at::kDouble);
  const at::Tensor e = expected.to(at::kDouble);
  const at::Tensor excess =
      a.sub(e).abs().sub(e.abs().mul(relative)).sub(absolute);
  EXPECT_TRUE(at::isfinite(a).all().item<bool>()) << what;
  EXPECT_LE(excess.max().item<double>(), 0)
      << what << ": largest difference " << a.sub(e).abs().max().item<double>();
}

inline double LargestOf(const at::Tensor& x) {
  return x.numel() == 0 ? 0.0 : x.abs().max().item<double>();
}

}  // namespace esper::ppo
#endif  // ESPER_TESTS_CORE_PPO_GOLDEN_TENSORS_H_
