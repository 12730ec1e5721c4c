#ifndef ESPER_TESTS_GOLDEN_TRAINING_PARITY_TENSOR_CHECKS_H_
#define ESPER_TESTS_GOLDEN_TRAINING_PARITY_TENSOR_CHECKS_H_

#include <string>

#include "ATen/core/Tensor.h"
#include "core/tensor/safetensors.h"
#include "tests/testing/golden_report.h"

// Reading and comparing the tensors of a reference file.
namespace esper::testing {

// Throws std::runtime_error if the file cannot be read.
tensor::Safetensors ReadTensors(const std::string& path);

// Throws std::runtime_error, naming the tensor, if it is not there.
at::Tensor Get(const tensor::Safetensors& file, const std::string& name);

// Largest magnitude; 0 for an empty tensor.
double LargestOf(const at::Tensor& x);

// |actual - expected| <= absolute + relative |expected| everywhere, and all of
// `actual` finite. `actual` may have a gradient.
void CheckTensor(const std::string& what, const at::Tensor& actual,
                 const at::Tensor& expected, double relative, double absolute,
                 GoldenReport::Case* check);

}  // namespace esper::testing
#endif  // ESPER_TESTS_GOLDEN_TRAINING_PARITY_TENSOR_CHECKS_H_
