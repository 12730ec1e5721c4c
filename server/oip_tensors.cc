#include "server/oip_tensors.h"

#include <limits>

#include "absl/strings/str_cat.h"
#include "server/refusal.h"

namespace esper::server {
namespace {

using Contents = inference::InferTensorContents;

struct NamedType {
  const char* name;
  v1::DataType dtype;
};
constexpr NamedType kTypes[] = {
    {"FP32", v1::DATA_TYPE_FLOAT32}, {"BF16", v1::DATA_TYPE_BFLOAT16},
    {"FP64", v1::DATA_TYPE_FLOAT64}, {"INT64", v1::DATA_TYPE_INT64},
    {"INT32", v1::DATA_TYPE_INT32},  {"INT8", v1::DATA_TYPE_INT8},
    {"UINT8", v1::DATA_TYPE_UINT8},  {"BOOL", v1::DATA_TYPE_BOOL},
};

absl::Status Malformed(const std::string& input, const std::string& message,
                       const std::string& hint) {
  return Refuse("MALFORMED_REQUEST", input, message, hint);
}

// The bytes of `values` as elements of type T; false if one does not fit.
template <typename T, typename Values>
bool Pack(const Values& values, std::string* data) {
  data->reserve(values.size() * sizeof(T));
  for (const auto value : values) {
    const T narrow = static_cast<T>(value);
    if (std::numeric_limits<T>::is_integer &&
        static_cast<int64_t>(narrow) != static_cast<int64_t>(value)) {
      return false;
    }
    data->append(reinterpret_cast<const char*>(&narrow), sizeof(T));
  }
  return true;
}

// Elements of one field of `contents`, and how many there are in all fields.
bool PackContents(const Contents& contents, v1::DataType dtype,
                  std::string* data, int* elements) {
  switch (dtype) {
    case v1::DATA_TYPE_FLOAT32:
      *elements = contents.fp32_contents_size();
      return Pack<float>(contents.fp32_contents(), data);
    case v1::DATA_TYPE_FLOAT64:
      *elements = contents.fp64_contents_size();
      return Pack<double>(contents.fp64_contents(), data);
    case v1::DATA_TYPE_INT64:
      *elements = contents.int64_contents_size();
      return Pack<int64_t>(contents.int64_contents(), data);
    case v1::DATA_TYPE_INT32:
      *elements = contents.int_contents_size();
      return Pack<int32_t>(contents.int_contents(), data);
    case v1::DATA_TYPE_INT8:
      *elements = contents.int_contents_size();
      return Pack<int8_t>(contents.int_contents(), data);
    case v1::DATA_TYPE_UINT8:
      *elements = contents.uint_contents_size();
      return Pack<uint8_t>(contents.uint_contents(), data);
    case v1::DATA_TYPE_BOOL:
      *elements = contents.bool_contents_size();
      return Pack<uint8_t>(contents.bool_contents(), data);
    default:  // BF16 has no contents of its own.
      *elements = 0;
      return true;
  }
}

int CountAll(const Contents& contents) {
  return contents.bool_contents_size() + contents.int_contents_size() +
         contents.int64_contents_size() + contents.uint_contents_size() +
         contents.uint64_contents_size() + contents.fp32_contents_size() +
         contents.fp64_contents_size() + contents.bytes_contents_size();
}

inference::ModelInferResponse::InferOutputTensor* AddOutput(
    const std::string& name, v1::DataType dtype,
    const std::vector<int64_t>& shape,
    inference::ModelInferResponse* response) {
  auto* output = response->add_outputs();
  output->set_name(name);
  output->set_datatype(OipDataType(dtype));
  output->mutable_shape()->Assign(shape.begin(), shape.end());
  return output;
}

}  // namespace

std::string OipDataType(v1::DataType dtype) {
  for (const NamedType& type : kTypes) {
    if (type.dtype == dtype) return type.name;
  }
  return "";
}

absl::StatusOr<v1::Tensor> DecodeOipInput(
    const inference::ModelInferRequest& request, int index) {
  const auto& input = request.inputs(index);
  const std::string& name = input.name();
  if (!input.parameters().empty()) {
    return Malformed(
        name,
        absl::StrCat("The input ", name, " has the parameter ",
                     input.parameters().begin()->first, "."),
        "Send inputs without parameters; there is no shared memory.");
  }
  v1::Tensor tensor;
  for (const NamedType& type : kTypes) {
    if (input.datatype() == type.name) tensor.set_dtype(type.dtype);
  }
  if (tensor.dtype() == v1::DATA_TYPE_UNSPECIFIED) {
    return Refuse("BAD_SHAPE", name,
                  absl::StrCat("The input ", name, " has the data type \"",
                               input.datatype(), "\"."),
                  "Send the data type that ModelMetadata gives.");
  }
  *tensor.mutable_shape() = input.shape();
  const int elements = CountAll(input.contents());
  if (request.raw_input_contents_size() > 0) {
    if (elements > 0) {
      return Malformed(name,
                       absl::StrCat("The input ", name,
                                    " has contents beside "
                                    "raw_input_contents."),
                       "Send one of the two.");
    }
    tensor.set_data(request.raw_input_contents(index));
    return tensor;
  }
  int read = 0;
  if (!PackContents(input.contents(), tensor.dtype(), tensor.mutable_data(),
                    &read)) {
    return Malformed(
        name,
        absl::StrCat("The input ", name, " holds a value that is no ",
                     input.datatype(), "."),
        "Send values within the data type.");
  }
  if (read != elements) {
    return Malformed(name,
                     absl::StrCat("The contents of the input ", name,
                                  " are not in the field of its data type, ",
                                  input.datatype(), "."),
                     "Use that field, or raw_input_contents.");
  }
  return tensor;
}

void AddOipOutput(const std::string& name, const std::vector<int64_t>& shape,
                  const std::vector<float>& values, bool typed,
                  inference::ModelInferResponse* response) {
  auto* output = AddOutput(name, v1::DATA_TYPE_FLOAT32, shape, response);
  if (typed) {
    output->mutable_contents()->mutable_fp32_contents()->Assign(values.begin(),
                                                                values.end());
  } else {
    response->add_raw_output_contents(
        reinterpret_cast<const char*>(values.data()),
        values.size() * sizeof(float));
  }
}

void AddOipOutput(const std::string& name, const std::vector<int64_t>& shape,
                  const std::vector<int64_t>& values, bool wide, bool typed,
                  inference::ModelInferResponse* response) {
  auto* output = AddOutput(
      name, wide ? v1::DATA_TYPE_INT64 : v1::DATA_TYPE_UINT8, shape, response);
  if (typed && wide) {
    output->mutable_contents()->mutable_int64_contents()->Assign(values.begin(),
                                                                 values.end());
  } else if (typed) {
    output->mutable_contents()->mutable_uint_contents()->Assign(values.begin(),
                                                                values.end());
  } else if (wide) {
    response->add_raw_output_contents(
        reinterpret_cast<const char*>(values.data()),
        values.size() * sizeof(int64_t));
  } else {
    response->add_raw_output_contents(
        std::string(values.begin(), values.end()));
  }
}

}  // namespace esper::server
