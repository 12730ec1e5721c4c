#ifndef ESPER_SERVER_OIP_TENSORS_H_
#define ESPER_SERVER_OIP_TENSORS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "esper/v1/tensor.pb.h"
#include "inference/grpc_service.pb.h"

// Tensors of the Open Inference Protocol to our own and back.
namespace esper::server {

// "FP32" of DATA_TYPE_FLOAT32 and so on; DATA_TYPE_UNSPECIFIED is none.
std::string OipDataType(v1::DataType dtype);

// Input `index` of a request, with its elements out of `raw_input_contents` if
// the request has any, otherwise out of its `contents`. Data type and shape are
// taken over as they are: whoever reads the tensor checks them.
// Errors, naming the input: BAD_SHAPE (a data type that no input has),
// MALFORMED_REQUEST (parameters, both kinds of contents, contents of another
// data type, values that do not fit the data type).
absl::StatusOr<v1::Tensor> DecodeOipInput(
    const inference::ModelInferRequest& request, int index);

// Appends an output. `values` are [N, width] in row-major order, `shape` says
// so. `typed`: as contents; otherwise as raw bytes.
void AddOipOutput(const std::string& name, const std::vector<int64_t>& shape,
                  const std::vector<float>& values, bool typed,
                  inference::ModelInferResponse* response);
// `wide`: INT64; otherwise UINT8.
void AddOipOutput(const std::string& name, const std::vector<int64_t>& shape,
                  const std::vector<int64_t>& values, bool wide, bool typed,
                  inference::ModelInferResponse* response);

}  // namespace esper::server
#endif  // ESPER_SERVER_OIP_TENSORS_H_
