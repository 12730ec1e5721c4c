#ifndef ESPER_CLIENT_TENSOR_H_
#define ESPER_CLIENT_TENSOR_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "esper/v1/tensor.pb.h"

// esper.v1.Tensor to and from plain vectors, without a tensor library.
namespace esper::client {

// Element types of the wire by C++ type: float, double, int64_t, int32_t,
// int8_t, uint8_t.
template <typename T>
v1::DataType DataTypeOf();

// Row-major; `values` must have product(shape) elements (checked by assert).
template <typename T>
v1::Tensor PackTensor(const std::vector<T>& values,
                      const std::vector<int64_t>& shape);

// One byte per element, 0 or 1.
v1::Tensor PackBools(const std::vector<uint8_t>& values,
                     const std::vector<int64_t>& shape);

// The elements of a tensor that must have this dtype and shape; a size of -1
// takes any. INVALID_ARGUMENT naming `name` otherwise.
template <typename T>
absl::StatusOr<std::vector<T>> UnpackTensor(const v1::Tensor& tensor,
                                            const std::vector<int64_t>& shape,
                                            const std::string& name);

// The same for any integer dtype, widened: action indices are uint8 or int64.
absl::StatusOr<std::vector<int64_t>> UnpackIntegers(
    const v1::Tensor& tensor, const std::vector<int64_t>& shape,
    const std::string& name);

// "float32 [3, 116]".
std::string DescribeTensor(const v1::Tensor& tensor);

}  // namespace esper::client
#endif  // ESPER_CLIENT_TENSOR_H_
