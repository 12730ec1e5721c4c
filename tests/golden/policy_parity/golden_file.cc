#include "tests/golden/policy_parity/golden_file.h"

#include <stdexcept>

#include "absl/strings/str_cat.h"
#include "core/tensor/checks.h"

namespace esper::testing {
namespace {

void CompareWithin(GoldenReport::Case& test, const std::string& what,
                   const at::Tensor& actual, const at::Tensor& expected,
                   double absolute, double relative) {
  if (!actual.defined() || actual.sizes() != expected.sizes() ||
      actual.scalar_type() != expected.scalar_type()) {
    test.Fail(absl::StrCat(what, " is ", tensor::Describe(actual),
                           ", expected ", tensor::Describe(expected)));
    return;
  }
  const at::Tensor a = actual.detach().reshape({-1}).to(at::kDouble);
  const at::Tensor b = expected.reshape({-1}).to(at::kDouble);
  // Not "greater": NaN must count as wrong.
  const at::Tensor good = a.sub(b)
                              .abs()
                              .le(b.abs().mul(relative).add(absolute))
                              .logical_or(a.eq(b));
  if (good.all().item<bool>()) return;
  const int64_t wrong = good.logical_not().sum().item<int64_t>();
  const int64_t first =
      good.logical_not().to(at::kLong).argmax().item<int64_t>();
  test.Fail(absl::StrCat(what, ": ", wrong, " of ", b.numel(),
                         " wrong, the first, element ", first, ", is ",
                         a[first].item<double>(), ", expected ",
                         b[first].item<double>()));
}

}  // namespace

GoldenFile::GoldenFile(const std::string& path) {
  auto file = tensor::ReadSafetensors(path);
  if (!file.ok()) {
    throw std::runtime_error(std::string(file.status().message()));
  }
  contents_ = *std::move(file);
}

at::Tensor GoldenFile::Take(const std::string& name) {
  const at::Tensor* tensor = contents_.Find(name);
  if (tensor == nullptr) {
    throw std::out_of_range(absl::StrCat("tensor ", name, " is missing"));
  }
  taken_.insert(name);
  return *tensor;
}

bool GoldenFile::Has(const std::string& name) const {
  return contents_.Find(name) != nullptr;
}

std::vector<std::string> GoldenFile::Names() const {
  std::vector<std::string> names;
  for (const auto& [name, tensor] : contents_.tensors) names.push_back(name);
  return names;
}

const std::string& GoldenFile::Text(const std::string& key) const {
  const std::string* value = contents_.FindMetadata(key);
  if (value == nullptr) {
    throw std::out_of_range(absl::StrCat("metadata ", key, " is missing"));
  }
  return *value;
}

int64_t GoldenFile::Number(const std::string& key) const {
  return std::stoll(Text(key));
}

bool GoldenFile::HasMetadata(const std::string& key) const {
  return contents_.FindMetadata(key) != nullptr;
}

void GoldenFile::CheckAllRead(const std::string& name,
                              GoldenReport* report) const {
  GoldenReport::Case test(report, name);
  for (const auto& [key, tensor] : contents_.tensors) {
    if (taken_.count(key) == 0) test.Fail(absl::StrCat(key, " was not read"));
  }
}

void CompareOutput(GoldenReport::Case& test, const std::string& what,
                   const at::Tensor& actual, const at::Tensor& expected) {
  const bool exact = !expected.is_floating_point();
  CompareWithin(test, what, actual, expected, exact ? 0 : 2e-5,
                exact ? 0 : 1e-4);
}

void CompareGradient(GoldenReport::Case& test, const std::string& what,
                     const at::Tensor& actual, const at::Tensor& expected,
                     double scale) {
  if (scale < 0) {
    scale = expected.numel() == 0 ? 0 : expected.abs().max().item<double>();
  }
  CompareWithin(test, what, actual, expected, 1e-6 + 1e-3 * scale, 0);
}

}  // namespace esper::testing
