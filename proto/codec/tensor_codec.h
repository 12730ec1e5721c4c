#ifndef ESPER_PROTO_CODEC_TENSOR_CODEC_H_
#define ESPER_PROTO_CODEC_TENSOR_CODEC_H_

#include <cstdint>
#include <string>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "esper/v1/tensor.pb.h"

// Messages to tensors and back. Nothing of a message reaches LibTorch before
// its dtype, its shape and the number of its bytes have been checked.
namespace esper::codec {

// What a field must hold.
struct TensorSpec {
  std::string field;           // Named in errors, e.g. "observations".
  std::vector<int64_t> shape;  // -1: any size.
  // Accepted on the wire; the first is the one that errors ask for.
  std::vector<v1::DataType> dtypes;
  // Row of a batch that the tensor belongs to as a whole, for the error's
  // detail; -1 if the tensor is the batch.
  int64_t row = -1;
};

// Whether a field was sent at all (an unset message field, or the default).
bool IsAbsent(const v1::Tensor& message);

// A host tensor that owns its memory, of the message's dtype and shape, except
// that bfloat16 arrives as float32. Bytes of a bool tensor must be 0 or 1.
// BAD_SHAPE (INVALID_ARGUMENT) that names the field: an absent tensor, a dtype
// or shape that `spec` does not accept, more than 8 axes, a negative size, or
// data that is not exactly product(shape) elements.
absl::StatusOr<at::Tensor> DecodeTensor(const v1::Tensor& message,
                                        const TensorSpec& spec);

// Any device, any strides, dtypes of esper.v1.DataType. Inference tensors are
// fine; a tensor that requires grad is a programming error (TORCH_CHECK).
void EncodeTensor(const at::Tensor& tensor, v1::Tensor* message);

// The same from values in memory, whose number must be that of the shape.
void EncodeValues(const std::vector<float>& values,
                  const std::vector<int64_t>& shape, v1::Tensor* message);
void EncodeValues(const std::vector<double>& values,
                  const std::vector<int64_t>& shape, v1::Tensor* message);
void EncodeValues(const std::vector<int64_t>& values,
                  const std::vector<int64_t>& shape, v1::Tensor* message);
void EncodeValues(const std::vector<uint8_t>& values,
                  const std::vector<int64_t>& shape, v1::Tensor* message);

// NONFINITE_INPUT if a float tensor on the host holds NaN or infinity, naming
// the field and the index of axis 0 where the first one is: as the row, or, if
// `row` >= 0 is given, as the step inside that row. Other dtypes and undefined
// tensors pass.
absl::Status CheckFinite(const at::Tensor& tensor, const std::string& field,
                         int64_t row = -1);

// "float32 [2, 116]", for error messages.
std::string Describe(const v1::Tensor& message);

}  // namespace esper::codec
#endif  // ESPER_PROTO_CODEC_TENSOR_CODEC_H_
