#include "core/tensor/checks.h"

#include <cmath>
#include <cstring>

#include "ATen/ops/isfinite.h"
#include "ATen/ops/nonzero.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/error.h"

namespace esper::tensor {
namespace {

std::string Name(at::ScalarType dtype, const std::string& sizes) {
  switch (dtype) {
    case at::kFloat:
      return absl::StrCat("float32[", sizes, "]");
    case at::kDouble:
      return absl::StrCat("float64[", sizes, "]");
    case at::kLong:
      return absl::StrCat("int64[", sizes, "]");
    case at::kBool:
      return absl::StrCat("bool[", sizes, "]");
    default:
      return absl::StrCat(c10::toString(dtype), "[", sizes, "]");
  }
}

// Position of the first true element of a bool tensor; -1 if none.
int64_t FirstTrue(const at::Tensor& flags) {
  const at::Tensor found = at::nonzero(flags.reshape({-1}));
  return found.size(0) == 0 ? -1 : found[0].item<int64_t>();
}

// Position of the first element of contiguous host data that `bad` holds for.
template <typename T, typename Predicate>
int64_t FirstWhere(const at::Tensor& x, Predicate bad) {
  const T* data = x.const_data_ptr<T>();
  const int64_t n = x.numel();
  for (int64_t i = 0; i < n; ++i) {
    if (bad(data[i])) return i;
  }
  return -1;
}

bool IsPlainHost(const at::Tensor& x) {
  return x.device().is_cpu() && x.is_contiguous();
}

}  // namespace

std::string Describe(const at::Tensor& x) {
  if (!x.defined()) return "undefined";
  return Name(x.scalar_type(), absl::StrJoin(x.sizes(), ", "));
}

void CheckTensor(const at::Tensor& x, const std::string& name,
                 at::ScalarType dtype, std::initializer_list<int64_t> sizes) {
  bool good = x.defined() && x.layout() == at::kStrided &&
              x.scalar_type() == dtype &&
              x.dim() == static_cast<int64_t>(sizes.size());
  int64_t dim = 0;
  for (const int64_t size : sizes) {
    if (!good) break;
    good = size == kAnySize || x.size(dim) == size;
    ++dim;
  }
  if (good) return;
  const std::string expected =
      absl::StrJoin(sizes, ", ", [](std::string* out, int64_t size) {
        absl::StrAppend(out, size == kAnySize ? "any" : std::to_string(size));
      });
  throw ShapeError(name, Name(dtype, expected), Describe(x));
}

void CheckSameDevice(const at::Tensor& x, const std::string& name,
                     const at::Tensor& reference,
                     const std::string& reference_name) {
  if (x.device() == reference.device()) return;
  throw ShapeError(name,
                   absl::StrCat("on the device of ", reference_name, ", ",
                                reference.device().str()),
                   x.device().str());
}

int64_t FirstNonFinite(const at::Tensor& x) {
  if (IsPlainHost(x) && x.scalar_type() == at::kFloat) {
    // All exponent bits set means NaN or infinity. The whole array is read as
    // integers, which vectorises; a search that may stop early does not.
    const float* data = x.const_data_ptr<float>();
    const int64_t n = x.numel();
    uint32_t found = 0;
    for (int64_t i = 0; i < n; ++i) {
      uint32_t bits;
      std::memcpy(&bits, data + i, sizeof(bits));
      found |= (bits & 0x7f800000u) == 0x7f800000u;
    }
    if (found == 0) return -1;
    return FirstWhere<float>(x, [](float v) { return !std::isfinite(v); });
  }
  return FirstTrue(at::isfinite(x).logical_not());
}

int64_t FirstOutside(const at::Tensor& x, int64_t low, int64_t high) {
  if (IsPlainHost(x)) {
    return FirstWhere<int64_t>(
        x, [low, high](int64_t v) { return v < low || v > high; });
  }
  return FirstTrue(x.lt(low).logical_or(x.gt(high)));
}

void CheckFinite(const at::Tensor& x, const std::string& name, int64_t row_dim,
                 int64_t step_dim) {
  const int64_t position = FirstNonFinite(x);
  if (position < 0) return;
  const auto index = [&](int64_t dim) {
    return dim < 0 || dim >= x.dim() ? -1
                                     : IndexAlong(x.sizes(), position, dim);
  };
  throw NonFiniteError::Input(name, index(row_dim), index(step_dim));
}

int64_t IndexAlong(at::IntArrayRef sizes, int64_t position, int64_t dim) {
  int64_t stride = 1;
  for (int64_t d = dim + 1; d < static_cast<int64_t>(sizes.size()); ++d) {
    stride *= sizes[d];
  }
  return position / stride % sizes[dim];
}

}  // namespace esper::tensor
