#include "proto/codec/tensor_codec.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <optional>

#include "ATen/ops/empty.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "c10/util/Exception.h"
#include "core/error.h"

namespace esper::codec {
namespace {

constexpr int kMaxAxes = 8;

struct ElementType {
  v1::DataType wire;
  at::ScalarType scalar;
  int64_t size_bytes;
  const char* name;
};

constexpr ElementType kElementTypes[] = {
    {v1::DATA_TYPE_FLOAT32, at::kFloat, 4, "float32"},
    {v1::DATA_TYPE_BFLOAT16, at::kBFloat16, 2, "bfloat16"},
    {v1::DATA_TYPE_FLOAT64, at::kDouble, 8, "float64"},
    {v1::DATA_TYPE_INT64, at::kLong, 8, "int64"},
    {v1::DATA_TYPE_INT32, at::kInt, 4, "int32"},
    {v1::DATA_TYPE_INT8, at::kChar, 1, "int8"},
    {v1::DATA_TYPE_UINT8, at::kByte, 1, "uint8"},
    {v1::DATA_TYPE_BOOL, at::kBool, 1, "bool"},
};

const ElementType* FindType(v1::DataType wire) {
  for (const ElementType& type : kElementTypes) {
    if (type.wire == wire) return &type;
  }
  return nullptr;
}

std::string TypeName(v1::DataType wire) {
  const ElementType* type = FindType(wire);
  return type == nullptr ? "no dtype" : type->name;
}

std::string ShapeText(const std::vector<int64_t>& shape) {
  return absl::StrCat(
      "[",
      absl::StrJoin(shape, ", ",
                    [](std::string* out, int64_t size) {
                      absl::StrAppend(out,
                                      size < 0 ? "any" : absl::StrCat(size));
                    }),
      "]");
}

absl::Status BadShape(const TensorSpec& spec, const std::string& sentence) {
  ErrorDetail detail;
  detail.reason = "BAD_SHAPE";
  detail.field = spec.field;
  detail.tensor = spec.field;
  detail.row = spec.row;
  detail.hint =
      "Send the shape and dtype that the policy's specification "
      "gives.";
  return MakeStatus(absl::StatusCode::kInvalidArgument, detail,
                    absl::StrCat(spec.field, " ", sentence, "."));
}

bool ShapeFits(const v1::Tensor& message, const TensorSpec& spec) {
  if (message.shape_size() != spec.shape.size()) return false;
  for (int axis = 0; axis < message.shape_size(); ++axis) {
    if (message.shape(axis) < 0) return false;
    if (spec.shape[axis] >= 0 && spec.shape[axis] != message.shape(axis)) {
      return false;
    }
  }
  return true;
}

// Number of elements, or nothing if any product of sizes overflows.
std::optional<int64_t> CheckedProduct(const v1::Tensor& message) {
  int64_t product = 1;
  bool empty = false;
  for (const int64_t size : message.shape()) {
    empty |= size == 0;
    if (__builtin_mul_overflow(product, std::max<int64_t>(size, 1), &product)) {
      return std::nullopt;
    }
  }
  return empty ? 0 : product;
}

template <typename T>
void EncodeRaw(v1::DataType dtype, const std::vector<T>& values,
               const std::vector<int64_t>& shape, v1::Tensor* message) {
  int64_t elements = 1;
  for (const int64_t size : shape) elements *= size;
  TORCH_CHECK(elements == static_cast<int64_t>(values.size()), "shape of ",
              elements, " elements for ", values.size(), " values");
  message->set_dtype(dtype);
  message->mutable_shape()->Assign(shape.begin(), shape.end());
  message->set_data(reinterpret_cast<const char*>(values.data()),
                    values.size() * sizeof(T));
}

}  // namespace

bool IsAbsent(const v1::Tensor& message) {
  return message.dtype() == v1::DATA_TYPE_UNSPECIFIED &&
         message.shape_size() == 0 && message.data().empty();
}

std::string Describe(const v1::Tensor& message) {
  if (IsAbsent(message)) return "nothing";
  const int axes = std::min(message.shape_size(), kMaxAxes);
  const std::vector<int64_t> shape(message.shape().begin(),
                                   message.shape().begin() + axes);
  return absl::StrCat(TypeName(message.dtype()), " [",
                      absl::StrJoin(shape, ", "),
                      message.shape_size() > axes ? ", ...]" : "]");
}

absl::StatusOr<at::Tensor> DecodeTensor(const v1::Tensor& message,
                                        const TensorSpec& spec) {
  const bool accepted = std::find(spec.dtypes.begin(), spec.dtypes.end(),
                                  message.dtype()) != spec.dtypes.end();
  const ElementType* type = FindType(message.dtype());
  if (!accepted || type == nullptr || !ShapeFits(message, spec) ||
      message.shape_size() > kMaxAxes) {
    return BadShape(
        spec, absl::StrCat("must be ", TypeName(spec.dtypes.front()), " ",
                           ShapeText(spec.shape), ", got ", Describe(message)));
  }
  const std::optional<int64_t> elements = CheckedProduct(message);
  int64_t size_bytes = 0;
  if (!elements.has_value() ||
      __builtin_mul_overflow(*elements, type->size_bytes, &size_bytes) ||
      size_bytes != static_cast<int64_t>(message.data().size())) {
    return BadShape(
        spec, absl::StrCat("is declared as ", Describe(message), " but holds ",
                           message.data().size(), " bytes of data"));
  }
  if (message.dtype() == v1::DATA_TYPE_BOOL) {
    for (const char byte : message.data()) {
      if (byte != 0 && byte != 1) {
        return BadShape(spec,
                        "is bool and holds a byte that is neither 0 nor "
                        "1");
      }
    }
  }
  const std::vector<int64_t> shape(message.shape().begin(),
                                   message.shape().end());
  at::Tensor tensor = at::empty(shape, type->scalar);
  if (size_bytes > 0) {
    std::memcpy(tensor.mutable_data_ptr(), message.data().data(), size_bytes);
  }
  return type->scalar == at::kBFloat16 ? tensor.to(at::kFloat) : tensor;
}

void EncodeTensor(const at::Tensor& tensor, v1::Tensor* message) {
  TORCH_CHECK(!tensor.requires_grad(),
              "a tensor that requires grad must not be sent: detach it where "
              "the gradient ends");
  const at::Tensor host = tensor.to(at::kCPU).contiguous();
  message->Clear();
  for (const ElementType& type : kElementTypes) {
    if (type.scalar == host.scalar_type()) message->set_dtype(type.wire);
  }
  TORCH_CHECK(message->dtype() != v1::DATA_TYPE_UNSPECIFIED,
              "no wire dtype for ", host.scalar_type());
  for (const int64_t size : host.sizes()) message->add_shape(size);
  message->set_data(static_cast<const char*>(host.const_data_ptr()),
                    host.nbytes());
}

void EncodeValues(const std::vector<float>& values,
                  const std::vector<int64_t>& shape, v1::Tensor* message) {
  EncodeRaw(v1::DATA_TYPE_FLOAT32, values, shape, message);
}

void EncodeValues(const std::vector<double>& values,
                  const std::vector<int64_t>& shape, v1::Tensor* message) {
  EncodeRaw(v1::DATA_TYPE_FLOAT64, values, shape, message);
}

void EncodeValues(const std::vector<int64_t>& values,
                  const std::vector<int64_t>& shape, v1::Tensor* message) {
  EncodeRaw(v1::DATA_TYPE_INT64, values, shape, message);
}

void EncodeValues(const std::vector<uint8_t>& values,
                  const std::vector<int64_t>& shape, v1::Tensor* message) {
  EncodeRaw(v1::DATA_TYPE_UINT8, values, shape, message);
}

namespace {

// Where the first number is that is not finite, or -1. Plain loops: a tensor
// operation costs more than a small call's whole decoding.
template <typename T>
int64_t FirstNonFinite(const T* values, int64_t count) {
  // NaN and infinities times zero are NaN.
  T sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += values[i] * 0;
  if (sum == 0) return -1;
  return std::find_if_not(values, values + count,
                          [](T value) { return std::isfinite(value); }) -
         values;
}

// `tensor` is contiguous.
int64_t FirstNonFinite(const at::Tensor& tensor) {
  if (tensor.scalar_type() == at::kDouble) {
    return FirstNonFinite(tensor.const_data_ptr<double>(), tensor.numel());
  }
  const at::Tensor values = tensor.to(at::kFloat);
  return FirstNonFinite(values.const_data_ptr<float>(), values.numel());
}

}  // namespace

absl::Status CheckFinite(const at::Tensor& tensor, const std::string& field,
                         int64_t row) {
  if (!tensor.defined() || !tensor.is_floating_point()) {
    return absl::OkStatus();
  }
  const int64_t bad = FirstNonFinite(tensor.contiguous());
  if (bad < 0) return absl::OkStatus();
  const int64_t stride =
      tensor.dim() == 0 ? 1 : tensor.numel() / tensor.size(0);
  const int64_t first = bad / stride;
  return ToStatus(row >= 0 ? NonFiniteError::Input(field, row, first)
                           : NonFiniteError::Input(field, first));
}

}  // namespace esper::codec
