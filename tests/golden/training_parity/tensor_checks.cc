#include "tests/golden/training_parity/tensor_checks.h"

#include <stdexcept>

#include "ATen/ops/isfinite.h"

namespace esper::testing {

tensor::Safetensors ReadTensors(const std::string& path) {
  auto file = tensor::ReadSafetensors(path);
  if (!file.ok()) throw std::runtime_error(file.status().ToString());
  return *std::move(file);
}

at::Tensor Get(const tensor::Safetensors& file, const std::string& name) {
  const at::Tensor* found = file.Find(name);
  if (found == nullptr) throw std::runtime_error("no tensor " + name);
  return *found;
}

double LargestOf(const at::Tensor& x) {
  return x.numel() == 0 ? 0.0 : x.abs().max().item<double>();
}

void CheckTensor(const std::string& what, const at::Tensor& actual,
                 const at::Tensor& expected, double relative, double absolute,
                 GoldenReport::Case* check) {
  if (!actual.defined() || actual.sizes() != expected.sizes()) {
    check->Fail(what + " is missing or has another shape");
    return;
  }
  if (expected.numel() == 0) return;
  const at::Tensor a = actual.detach().to(at::kDouble);
  const at::Tensor e = expected.to(at::kDouble);
  if (!at::isfinite(a).all().item<bool>()) {
    check->Fail(what + " is not finite");
    return;
  }
  const at::Tensor gap = a.sub(e).abs();
  const at::Tensor excess = gap.sub(e.abs().mul(relative)).sub(absolute);
  if (excess.max().item<double>() > 0) {
    check->Fail(absl::StrCat(what, " differs by up to ",
                             gap.max().item<double>(), ", allowed are ",
                             absolute, " + ", relative, " of the value"));
  }
}

}  // namespace esper::testing
