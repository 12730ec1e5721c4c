#include "client/tensor.h"

#include <cassert>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace esper::client {
namespace {

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
              "the wire is little-endian");

const char* TypeName(v1::DataType type) {
  switch (type) {
    case v1::DATA_TYPE_FLOAT32:
      return "float32";
    case v1::DATA_TYPE_BFLOAT16:
      return "bfloat16";
    case v1::DATA_TYPE_FLOAT64:
      return "float64";
    case v1::DATA_TYPE_INT64:
      return "int64";
    case v1::DATA_TYPE_INT32:
      return "int32";
    case v1::DATA_TYPE_INT8:
      return "int8";
    case v1::DATA_TYPE_UINT8:
      return "uint8";
    case v1::DATA_TYPE_BOOL:
      return "bool";
    default:
      return "unspecified";
  }
}

std::string DescribeShape(const std::vector<int64_t>& shape) {
  return absl::StrCat("[", absl::StrJoin(shape, ", "), "]");
}

int64_t Elements(const std::vector<int64_t>& shape) {
  int64_t count = 1;
  for (const int64_t size : shape) count *= size;
  return count;
}

bool ShapeMatches(const v1::Tensor& tensor, const std::vector<int64_t>& shape) {
  if (tensor.shape_size() != static_cast<int>(shape.size())) return false;
  for (int i = 0; i < tensor.shape_size(); ++i) {
    if (shape[i] != -1 && tensor.shape(i) != shape[i]) return false;
  }
  return true;
}

template <typename T>
absl::Status Check(const v1::Tensor& tensor, v1::DataType type,
                   const std::vector<int64_t>& shape, const std::string& name) {
  const std::vector<int64_t> sizes(tensor.shape().begin(),
                                   tensor.shape().end());
  if (tensor.dtype() != type || !ShapeMatches(tensor, shape) ||
      static_cast<int64_t>(tensor.data().size()) !=
          Elements(sizes) * static_cast<int64_t>(sizeof(T))) {
    return absl::InvalidArgumentError(absl::StrCat(
        name, " must be ", TypeName(type), " ", DescribeShape(shape), ", got ",
        DescribeTensor(tensor), " in ", tensor.data().size(), " bytes."));
  }
  return absl::OkStatus();
}

template <typename T>
absl::StatusOr<std::vector<int64_t>> Widen(const v1::Tensor& tensor,
                                           const std::vector<int64_t>& shape,
                                           const std::string& name) {
  auto values = UnpackTensor<T>(tensor, shape, name);
  if (!values.ok()) return values.status();
  return std::vector<int64_t>(values->begin(), values->end());
}

v1::Tensor Describe(v1::DataType type, const std::vector<int64_t>& shape) {
  v1::Tensor tensor;
  tensor.set_dtype(type);
  for (const int64_t size : shape) tensor.add_shape(size);
  return tensor;
}

}  // namespace

template <>
v1::DataType DataTypeOf<float>() {
  return v1::DATA_TYPE_FLOAT32;
}
template <>
v1::DataType DataTypeOf<double>() {
  return v1::DATA_TYPE_FLOAT64;
}
template <>
v1::DataType DataTypeOf<int64_t>() {
  return v1::DATA_TYPE_INT64;
}
template <>
v1::DataType DataTypeOf<int32_t>() {
  return v1::DATA_TYPE_INT32;
}
template <>
v1::DataType DataTypeOf<int8_t>() {
  return v1::DATA_TYPE_INT8;
}
template <>
v1::DataType DataTypeOf<uint8_t>() {
  return v1::DATA_TYPE_UINT8;
}

template <typename T>
v1::Tensor PackTensor(const std::vector<T>& values,
                      const std::vector<int64_t>& shape) {
  assert(static_cast<int64_t>(values.size()) == Elements(shape));
  v1::Tensor tensor = Describe(DataTypeOf<T>(), shape);
  tensor.set_data(values.data(), values.size() * sizeof(T));
  return tensor;
}

v1::Tensor PackBools(const std::vector<uint8_t>& values,
                     const std::vector<int64_t>& shape) {
  v1::Tensor tensor = PackTensor<uint8_t>(values, shape);
  tensor.set_dtype(v1::DATA_TYPE_BOOL);
  return tensor;
}

template <typename T>
absl::StatusOr<std::vector<T>> UnpackTensor(const v1::Tensor& tensor,
                                            const std::vector<int64_t>& shape,
                                            const std::string& name) {
  absl::Status status = Check<T>(tensor, DataTypeOf<T>(), shape, name);
  if (!status.ok()) return status;
  std::vector<T> values(tensor.data().size() / sizeof(T));
  if (!values.empty()) {
    std::memcpy(values.data(), tensor.data().data(), tensor.data().size());
  }
  return values;
}

#define ESPER_INSTANTIATE(T)                                      \
  template v1::Tensor PackTensor<T>(const std::vector<T>&,        \
                                    const std::vector<int64_t>&); \
  template absl::StatusOr<std::vector<T>> UnpackTensor<T>(        \
      const v1::Tensor&, const std::vector<int64_t>&, const std::string&);
ESPER_INSTANTIATE(float)
ESPER_INSTANTIATE(double)
ESPER_INSTANTIATE(int64_t)
ESPER_INSTANTIATE(int32_t)
ESPER_INSTANTIATE(int8_t)
ESPER_INSTANTIATE(uint8_t)
#undef ESPER_INSTANTIATE

absl::StatusOr<std::vector<int64_t>> UnpackIntegers(
    const v1::Tensor& tensor, const std::vector<int64_t>& shape,
    const std::string& name) {
  switch (tensor.dtype()) {
    case v1::DATA_TYPE_UINT8:
      return Widen<uint8_t>(tensor, shape, name);
    case v1::DATA_TYPE_INT8:
      return Widen<int8_t>(tensor, shape, name);
    case v1::DATA_TYPE_INT32:
      return Widen<int32_t>(tensor, shape, name);
    default:
      return UnpackTensor<int64_t>(tensor, shape, name);
  }
}

std::string DescribeTensor(const v1::Tensor& tensor) {
  return absl::StrCat(
      TypeName(tensor.dtype()), " ",
      DescribeShape({tensor.shape().begin(), tensor.shape().end()}));
}

}  // namespace esper::client
