#ifndef ESPER_CORE_TENSOR_CHECKS_H_
#define ESPER_CORE_TENSOR_CHECKS_H_

#include <cstdint>
#include <initializer_list>
#include <string>

#include "ATen/core/Tensor.h"

// Checks of tensors at the edge of a public function, before any arithmetic.
// Each throws a typed error that names the tensor; none changes or copies it.
// Pure functions, safe from any thread.
namespace esper::tensor {

// In an expected shape: any size.
inline constexpr int64_t kAnySize = -1;

// "float32[2, 116]", or "undefined".
std::string Describe(const at::Tensor& x);

// Throws ShapeError (BAD_SHAPE) unless `x` is defined, dense, of dtype `dtype`
// and of the expected sizes.
void CheckTensor(const at::Tensor& x, const std::string& name,
                 at::ScalarType dtype, std::initializer_list<int64_t> sizes);

// Throws ShapeError unless `x` lies where `reference` does.
void CheckSameDevice(const at::Tensor& x, const std::string& name,
                     const at::Tensor& reference,
                     const std::string& reference_name);

// Position, row-major, of the first NaN or infinity; -1 if there is none. One
// read-back on a device tensor. `x`: float32 or float64.
int64_t FirstNonFinite(const at::Tensor& x);

// Position, row-major, of the first integer outside [low, high]; -1 if none.
// `x`: int64.
int64_t FirstOutside(const at::Tensor& x, int64_t low, int64_t high);

// Throws NonFiniteError::Input (NONFINITE_INPUT) with the row, which is the
// index along `row_dim`, and, if `step_dim` >= 0, the step along that.
void CheckFinite(const at::Tensor& x, const std::string& name,
                 int64_t row_dim = 0, int64_t step_dim = -1);

// Index along `dim` of the row-major position `position` in a tensor of these
// sizes.
int64_t IndexAlong(at::IntArrayRef sizes, int64_t position, int64_t dim);

}  // namespace esper::tensor
#endif  // ESPER_CORE_TENSOR_CHECKS_H_
