#include "proto/recording/recording_file.h"

#include <zlib.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/message.h"
#include "google/protobuf/util/json_util.h"
#include "nlohmann/json.hpp"

namespace esper::recording {
namespace {

using Json = nlohmann::ordered_json;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

constexpr char kFormat[] = "esper.recording.v1";
constexpr char kMetadata[] = "__metadata__";
constexpr int64_t kLengthBytes = 8;
constexpr int64_t kMaxHeaderBytes = 1 << 20;
constexpr int kMaxAxes = 8;

struct Dtype {
  v1::DataType type;
  const char* name;
  int64_t bytes;
};
constexpr Dtype kDtypes[] = {
    {v1::DATA_TYPE_FLOAT32, "F32", 4}, {v1::DATA_TYPE_BFLOAT16, "BF16", 2},
    {v1::DATA_TYPE_FLOAT64, "F64", 8}, {v1::DATA_TYPE_INT64, "I64", 8},
    {v1::DATA_TYPE_INT32, "I32", 4},   {v1::DATA_TYPE_INT8, "I8", 1},
    {v1::DATA_TYPE_UINT8, "U8", 1},    {v1::DATA_TYPE_BOOL, "BOOL", 1},
};

absl::Status Damaged(const std::string& source, const std::string& what) {
  return absl::DataLossError(
      absl::StrCat("The recording ", source, " is damaged: ", what, "."));
}

bool IsTensor(const FieldDescriptor& field) {
  return field.message_type() == v1::Tensor::descriptor();
}
bool IsBehaviour(const FieldDescriptor& field) {
  return field.message_type() == v1::BehaviourNumbers::descriptor();
}

// Calls visit(name, tensor) for every tensor that `message` has, in the order
// of the fields.
template <typename Visit>
void VisitTensors(const Message& message, const std::string& prefix,
                  const Visit& visit) {
  const auto& reflection = *message.GetReflection();
  for (int i = 0; i < message.GetDescriptor()->field_count(); ++i) {
    const FieldDescriptor& field = *message.GetDescriptor()->field(i);
    if (field.message_type() == nullptr ||
        !reflection.HasField(message, &field)) {
      continue;
    }
    const Message& part = reflection.GetMessage(message, &field);
    const std::string name = absl::StrCat(prefix, field.name());
    if (IsTensor(field)) {
      visit(name, static_cast<const v1::Tensor&>(part));
    } else if (IsBehaviour(field)) {
      VisitTensors(part, absl::StrCat(name, "."), visit);
    }
  }
}

// The tensor field of that name, made if it is not there; null if there is no
// such field.
v1::Tensor* MutableTensor(const std::string& name, v1::Trajectory* trajectory) {
  Message* message = trajectory;
  std::vector<std::string> path = absl::StrSplit(name, '.');
  for (size_t i = 0; i < path.size(); ++i) {
    const FieldDescriptor* field =
        message->GetDescriptor()->FindFieldByName(path[i]);
    if (field == nullptr || field->message_type() == nullptr) return nullptr;
    const bool last = i + 1 == path.size();
    if (last ? !IsTensor(*field) : !IsBehaviour(*field)) return nullptr;
    message = message->GetReflection()->MutableMessage(message, field);
  }
  return static_cast<v1::Tensor*>(message);
}

void ClearTensors(v1::Trajectory* trajectory) {
  const auto& reflection = *trajectory->GetReflection();
  for (int i = 0; i < v1::Trajectory::descriptor()->field_count(); ++i) {
    const FieldDescriptor* field = v1::Trajectory::descriptor()->field(i);
    if (IsTensor(*field)) reflection.ClearField(trajectory, field);
  }
  const auto kind = trajectory->behaviour().kind();
  trajectory->clear_behaviour();
  trajectory->mutable_behaviour()->set_kind(kind);
}

std::string ToJson(const Message& message) {
  std::string json;
  // Cannot fail: the messages hold no Any.
  (void)google::protobuf::util::MessageToJsonString(message, &json);
  return json;
}

const Dtype* FindDtype(v1::DataType type) {
  for (const Dtype& dtype : kDtypes) {
    if (dtype.type == type) return &dtype;
  }
  return nullptr;
}
const Dtype* FindDtype(const std::string& name) {
  for (const Dtype& dtype : kDtypes) {
    if (dtype.name == name) return &dtype;
  }
  return nullptr;
}

std::string Checksum(const char* data, size_t size) {
  // In parts: the length that zlib takes has 32 bits.
  uLong crc = crc32(0, nullptr, 0);
  while (size > 0) {
    const uInt part = static_cast<uInt>(std::min<size_t>(size, 1 << 30));
    crc = crc32(crc, reinterpret_cast<const Bytef*>(data), part);
    data += part;
    size -= part;
  }
  return absl::StrCat(absl::Hex(crc, absl::kZeroPad8));
}

// Bytes [begin, end) of the data of one tensor.
struct Entry {
  std::string name;
  v1::DataType dtype = v1::DATA_TYPE_UNSPECIFIED;
  std::vector<int64_t> shape;
  int64_t begin = 0;
  int64_t end = 0;
};

struct Header {
  v1::RecordingInfo info;
  v1::Trajectory trajectory;  // Without tensors.
  std::vector<Entry> entries;
  std::string checksum;
  int64_t data_bytes = 0;
};

// Length of the JSON, in the first bytes of a file.
int64_t HeaderLength(const char* bytes) {
  uint64_t length = 0;
  for (int i = kLengthBytes - 1; i >= 0; --i) {
    length = length << 8 | static_cast<unsigned char>(bytes[i]);
  }
  return length > kMaxHeaderBytes ? -1 : static_cast<int64_t>(length);
}

// What is wrong with one entry; empty if nothing is.
std::string ParseEntry(const Json& json, Entry* entry) {
  if (!json.is_object() || !json.contains("dtype") || !json.contains("shape") ||
      !json.contains("data_offsets")) {
    return "it lacks dtype, shape or data_offsets";
  }
  const Json& shape = json["shape"];
  const Json& offsets = json["data_offsets"];
  const Dtype* dtype = json["dtype"].is_string()
                           ? FindDtype(json["dtype"].get<std::string>())
                           : nullptr;
  if (dtype == nullptr) return "its dtype is unknown";
  entry->dtype = dtype->type;
  if (!shape.is_array() || shape.size() > kMaxAxes) return "its shape is wrong";
  int64_t bytes = dtype->bytes;
  for (const Json& size : shape) {
    if (!size.is_number_unsigned() || size.get<uint64_t>() > INT32_MAX ||
        __builtin_mul_overflow(bytes, size.get<int64_t>(), &bytes)) {
      return "its shape is wrong";
    }
    entry->shape.push_back(size.get<int64_t>());
  }
  if (!offsets.is_array() || offsets.size() != 2 ||
      !offsets[0].is_number_unsigned() || !offsets[1].is_number_unsigned() ||
      offsets[0].get<uint64_t>() > INT64_MAX ||
      offsets[1].get<uint64_t>() > INT64_MAX) {
    return "its data_offsets are wrong";
  }
  entry->begin = offsets[0].get<int64_t>();
  entry->end = offsets[1].get<int64_t>();
  if (entry->end < entry->begin || entry->end - entry->begin != bytes) {
    return "its data_offsets do not fit its shape";
  }
  return "";
}

absl::Status ParseMetadata(const Json& json, const std::string& source,
                           Header* header) {
  const auto text = [&](const char* key) {
    const auto it = json.find(key);
    return it != json.end() && it->is_string() ? it->get<std::string>()
                                               : std::string();
  };
  if (text("format") != kFormat) {
    return Damaged(source, absl::StrCat("its format is not ", kFormat));
  }
  header->checksum = text("crc32");
  using google::protobuf::util::JsonStringToMessage;
  if (!JsonStringToMessage(text("info"), &header->info).ok() ||
      !JsonStringToMessage(text("trajectory"), &header->trajectory).ok()) {
    return Damaged(source, "its metadata does not parse");
  }
  return absl::OkStatus();
}

absl::StatusOr<Header> ParseHeader(const std::string& text,
                                   const std::string& source) {
  const Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object() || !json.contains(kMetadata) ||
      !json[kMetadata].is_object()) {
    return Damaged(source, "its header does not parse");
  }
  Header header;
  absl::Status metadata = ParseMetadata(json[kMetadata], source, &header);
  if (!metadata.ok()) return metadata;
  for (const auto& [name, value] : json.items()) {
    if (name == kMetadata) continue;
    Entry entry;
    entry.name = name;
    const std::string wrong = ParseEntry(value, &entry);
    if (!wrong.empty()) return Damaged(source, absl::StrCat(name, ": ", wrong));
    if (entry.begin != header.data_bytes) {
      return Damaged(source, absl::StrCat(name,
                                          " does not follow the tensor "
                                          "before it"));
    }
    header.data_bytes = entry.end;
    header.entries.push_back(std::move(entry));
  }
  return header;
}

absl::Status CannotRead(const std::string& path) {
  return absl::NotFoundError(absl::StrCat("Cannot read ", path, "."));
}

}  // namespace

std::string SerializeRecording(const v1::Recording& recording) {
  Json tensors = Json::object();
  std::string data;
  VisitTensors(recording.trajectory(), "",
               [&](const std::string& name, const v1::Tensor& tensor) {
                 const Dtype* dtype = FindDtype(tensor.dtype());
                 if (dtype == nullptr) return;
                 const size_t begin = data.size();
                 data += tensor.data();
                 tensors[name] = {
                     {"dtype", dtype->name},
                     {"shape", std::vector<int64_t>(tensor.shape().begin(),
                                                    tensor.shape().end())},
                     {"data_offsets", {begin, data.size()}}};
               });
  v1::Trajectory bare = recording.trajectory();
  ClearTensors(&bare);
  Json header = Json::object();
  header[kMetadata] = {{"format", kFormat},
                       {"info", ToJson(recording.info())},
                       {"trajectory", ToJson(bare)},
                       {"crc32", Checksum(data.data(), data.size())}};
  header.update(tensors);
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  std::string file;
  for (int i = 0; i < kLengthBytes; ++i) {
    file.push_back(static_cast<char>(uint64_t{text.size()} >> (8 * i)));
  }
  return file + text + data;
}

absl::StatusOr<v1::Recording> ParseRecording(const std::string& bytes,
                                             const std::string& source) {
  const int64_t size = static_cast<int64_t>(bytes.size());
  const int64_t length = size < kLengthBytes ? -1 : HeaderLength(bytes.data());
  if (length < 0 || size - kLengthBytes < length) {
    return Damaged(source, "it is cut off, or no recording");
  }
  auto header = ParseHeader(bytes.substr(kLengthBytes, length), source);
  if (!header.ok()) return header.status();
  const int64_t data = kLengthBytes + length;
  if (size - data != header->data_bytes) {
    return Damaged(source,
                   absl::StrCat("it has ", size - data, " bytes of data, not ",
                                header->data_bytes));
  }
  if (Checksum(bytes.data() + data, header->data_bytes) != header->checksum) {
    return Damaged(source, "its checksum is wrong");
  }
  v1::Recording recording;
  *recording.mutable_info() = std::move(header->info);
  *recording.mutable_trajectory() = std::move(header->trajectory);
  for (const Entry& entry : header->entries) {
    v1::Tensor* tensor =
        MutableTensor(entry.name, recording.mutable_trajectory());
    if (tensor == nullptr) {
      return Damaged(source, absl::StrCat("there is no tensor ", entry.name));
    }
    tensor->set_dtype(entry.dtype);
    tensor->mutable_shape()->Assign(entry.shape.begin(), entry.shape.end());
    tensor->set_data(bytes.data() + data + entry.begin,
                     entry.end - entry.begin);
  }
  return recording;
}

absl::StatusOr<v1::Recording> ReadRecording(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::error_code error;
  const auto size = std::filesystem::file_size(path, error);
  if (!file || error) return CannotRead(path);
  std::string bytes(size, '\0');
  file.read(bytes.data(), static_cast<std::streamsize>(size));
  if (!file) return CannotRead(path);
  return ParseRecording(bytes, path);
}

absl::StatusOr<v1::RecordingInfo> ReadRecordingInfo(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::error_code error;
  const auto size = std::filesystem::file_size(path, error);
  if (!file || error) return CannotRead(path);
  char begin[kLengthBytes] = {};
  file.read(begin, kLengthBytes);
  const int64_t length = file ? HeaderLength(begin) : -1;
  if (length < 0) return Damaged(path, "it is cut off, or no recording");
  std::string text(length, '\0');
  file.read(text.data(), length);
  if (!file) return Damaged(path, "it is cut off");
  auto header = ParseHeader(text, path);
  if (!header.ok()) return header.status();
  if (static_cast<int64_t>(size) !=
      kLengthBytes + length + header->data_bytes) {
    return Damaged(path, "it is not as long as its header says");
  }
  return std::move(header->info);
}

}  // namespace esper::recording
