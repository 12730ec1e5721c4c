#include "core/tensor/safetensors.h"

#include <algorithm>
#include <cstring>
#include <fstream>
#include <optional>
#include <set>

#include "ATen/ops/empty.h"
#include "absl/strings/str_cat.h"
#include "core/durable_file.h"
#include "core/error.h"
#include "nlohmann/json.hpp"

namespace esper::tensor {
namespace {

using Json = nlohmann::ordered_json;

constexpr int64_t kLengthBytes = 8;
constexpr char kMetadataKey[] = "__metadata__";

struct Dtype {
  const char* name;
  at::ScalarType type;
};
constexpr Dtype kDtypes[] = {
    {"BOOL", at::kBool},  {"U8", at::kByte},       {"I8", at::kChar},
    {"I16", at::kShort},  {"I32", at::kInt},       {"I64", at::kLong},
    {"F16", at::kHalf},   {"BF16", at::kBFloat16}, {"F32", at::kFloat},
    {"F64", at::kDouble},
};

std::optional<at::ScalarType> TypeOf(const std::string& name) {
  for (const Dtype& dtype : kDtypes) {
    if (name == dtype.name) return dtype.type;
  }
  return std::nullopt;
}

const char* NameOf(at::ScalarType type) {
  for (const Dtype& dtype : kDtypes) {
    if (type == dtype.type) return dtype.name;
  }
  return nullptr;
}

absl::Status Corrupt(const std::string& source, const std::string& tensor,
                     int64_t offset, const std::string& what) {
  ErrorDetail detail;
  detail.reason = "CORRUPT_CHECKPOINT";
  detail.tensor = tensor;
  detail.hint = "Restore the file from a good copy.";
  return MakeStatus(
      absl::StatusCode::kDataLoss, detail,
      absl::StrCat(source, " is not a sound safetensors file: ", what,
                   tensor.empty() ? "" : absl::StrCat(" (tensor ", tensor, ")"),
                   ", at byte ", offset, "."));
}

uint64_t ReadLength(const std::string& bytes) {
  uint64_t length = 0;
  for (int i = kLengthBytes - 1; i >= 0; --i) {
    length = length << 8 | static_cast<unsigned char>(bytes[i]);
  }
  return length;
}

std::optional<int64_t> AsSize(const Json& value) {
  if (!value.is_number_integer()) return std::nullopt;
  if (value.is_number_unsigned() &&
      value.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX)) {
    return std::nullopt;
  }
  const int64_t size = value.get<int64_t>();
  return size < 0 ? std::nullopt : std::optional<int64_t>(size);
}

// One entry of the header. `begin` and `end` count from the first data byte.
struct Entry {
  std::string name;
  at::ScalarType type = at::kFloat;
  std::vector<int64_t> shape;
  int64_t begin = 0;
  int64_t end = 0;
};

// What is wrong with the entry; empty if nothing is.
std::string ParseEntry(const Json& json, const SafetensorsLimits& limits,
                       Entry& entry) {
  if (!json.is_object() || json.size() != 3 || !json.contains("dtype") ||
      !json.contains("shape") || !json.contains("data_offsets")) {
    return "an entry must hold exactly dtype, shape and data_offsets";
  }
  if (!json["dtype"].is_string()) return "dtype is not a string";
  const auto type = TypeOf(json["dtype"].get<std::string>());
  if (!type.has_value()) {
    return absl::StrCat("unknown dtype ", json["dtype"].get<std::string>());
  }
  entry.type = *type;
  const Json& shape = json["shape"];
  if (!shape.is_array() ||
      static_cast<int64_t>(shape.size()) > limits.max_dimensions) {
    return "shape is not a list of few enough sizes";
  }
  int64_t size_bytes = static_cast<int64_t>(c10::elementSize(entry.type));
  bool has_zero = false;
  for (const Json& item : shape) {
    const auto size = AsSize(item);
    if (!size.has_value()) return "shape holds something not a size";
    // A product over the other sizes may overflow although one is zero.
    if (*size == 0) {
      has_zero = true;
    } else if (__builtin_mul_overflow(size_bytes, *size, &size_bytes)) {
      return "the product of the shape overflows";
    }
    entry.shape.push_back(*size);
  }
  if (has_zero) size_bytes = 0;
  const Json& offsets = json["data_offsets"];
  if (!offsets.is_array() || offsets.size() != 2) {
    return "data_offsets is not a pair";
  }
  const auto begin = AsSize(offsets[0]);
  const auto end = AsSize(offsets[1]);
  if (!begin.has_value() || !end.has_value() || *end < *begin) {
    return "data_offsets is not a range";
  }
  if (*end - *begin != size_bytes) {
    return absl::StrCat("shape needs ", size_bytes, " bytes, data_offsets has ",
                        *end - *begin);
  }
  entry.begin = *begin;
  entry.end = *end;
  return "";
}

// JSON that refuses a key given twice, which parsers otherwise merge silently.
absl::StatusOr<Json> ParseHeader(const std::string& text,
                                 const std::string& source) {
  std::vector<std::set<std::string>> keys;
  std::string repeated;
  bool too_deep = false;
  const auto callback = [&](int depth, Json::parse_event_t event,
                            Json& parsed) {
    if (depth > 4) too_deep = true;
    if (event == Json::parse_event_t::object_start) keys.emplace_back();
    if (event == Json::parse_event_t::object_end) keys.pop_back();
    if (event == Json::parse_event_t::key &&
        !keys.back().insert(parsed.get<std::string>()).second) {
      repeated = parsed.get<std::string>();
    }
    return !too_deep;
  };
  Json header = Json::parse(text, callback, /*allow_exceptions=*/false);
  if (too_deep || header.is_discarded() || !header.is_object()) {
    return Corrupt(source, "", kLengthBytes, "the header is not a JSON object");
  }
  if (!repeated.empty()) {
    return Corrupt(source, repeated, kLengthBytes, "a header key is repeated");
  }
  return header;
}

absl::Status ParseMetadata(const Json& json, const std::string& source,
                           std::map<std::string, std::string>& metadata) {
  if (!json.is_object()) {
    return Corrupt(source, "", kLengthBytes, "the metadata is not an object");
  }
  for (const auto& [key, value] : json.items()) {
    if (!value.is_string()) {
      return Corrupt(source, "", kLengthBytes,
                     absl::StrCat("metadata ", key, " is not a string"));
    }
    metadata[key] = value.get<std::string>();
  }
  return absl::OkStatus();
}

}  // namespace

const at::Tensor* Safetensors::Find(const std::string& name) const {
  for (const auto& [key, tensor] : tensors) {
    if (key == name) return &tensor;
  }
  return nullptr;
}

const std::string* Safetensors::FindMetadata(const std::string& key) const {
  const auto it = metadata.find(key);
  return it == metadata.end() ? nullptr : &it->second;
}

absl::StatusOr<Safetensors> ParseSafetensors(const std::string& bytes,
                                             const std::string& source,
                                             const SafetensorsLimits& limits) {
  const int64_t file_bytes = static_cast<int64_t>(bytes.size());
  if (file_bytes < kLengthBytes) {
    return Corrupt(source, "", file_bytes, "the header length is cut off");
  }
  const uint64_t header_bytes = ReadLength(bytes);
  if (header_bytes > static_cast<uint64_t>(limits.max_header_bytes)) {
    return Corrupt(
        source, "", 0,
        absl::StrCat("a header of ", header_bytes,
                     " bytes is above the limit of ", limits.max_header_bytes));
  }
  const int64_t data_begin = kLengthBytes + static_cast<int64_t>(header_bytes);
  if (data_begin > file_bytes) {
    return Corrupt(source, "", file_bytes, "the header is cut off");
  }
  const auto header =
      ParseHeader(bytes.substr(kLengthBytes, header_bytes), source);
  if (!header.ok()) return header.status();

  Safetensors result;
  std::vector<Entry> entries;
  for (const auto& [name, json] : header->items()) {
    if (name == kMetadataKey) {
      const absl::Status status = ParseMetadata(json, source, result.metadata);
      if (!status.ok()) return status;
      continue;
    }
    Entry entry;
    entry.name = name;
    const std::string problem = ParseEntry(json, limits, entry);
    if (!problem.empty()) return Corrupt(source, name, kLengthBytes, problem);
    entries.push_back(std::move(entry));
  }
  std::stable_sort(
      entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
        return a.begin != b.begin ? a.begin < b.begin : a.end < b.end;
      });
  const int64_t data_bytes = file_bytes - data_begin;
  int64_t expected = 0;
  for (const Entry& entry : entries) {
    if (entry.begin != expected) {
      return Corrupt(source, entry.name, data_begin + entry.begin,
                     entry.begin < expected ? "byte ranges overlap"
                                            : "a gap between byte ranges");
    }
    if (entry.end > data_bytes) {
      return Corrupt(source, entry.name, file_bytes, "the data is cut off");
    }
    expected = entry.end;
  }
  if (expected != data_bytes) {
    return Corrupt(source, "", data_begin + expected,
                   "data that belongs to no tensor");
  }
  for (const Entry& entry : entries) {
    at::Tensor tensor =
        at::empty(entry.shape, at::TensorOptions().dtype(entry.type));
    if (entry.end > entry.begin) {
      std::memcpy(tensor.mutable_data_ptr(),
                  bytes.data() + data_begin + entry.begin,
                  static_cast<size_t>(entry.end - entry.begin));
    }
    if (entry.type == at::kBool) {
      // Any other byte would be undefined behaviour as a bool.
      const auto* data =
          reinterpret_cast<const unsigned char*>(bytes.data()) + data_begin;
      for (int64_t i = entry.begin; i < entry.end; ++i) {
        if (data[i] > 1) {
          return Corrupt(source, entry.name, data_begin + i,
                         "a bool that is neither 0 nor 1");
        }
      }
    }
    result.tensors.emplace_back(entry.name, std::move(tensor));
  }
  return result;
}

absl::StatusOr<Safetensors> ReadSafetensors(const std::string& path,
                                            const SafetensorsLimits& limits) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  const int64_t size = file ? static_cast<int64_t>(file.tellg()) : -1;
  if (size < 0) {
    ErrorDetail detail;
    detail.reason = "UNKNOWN_CHECKPOINT";
    return MakeStatus(absl::StatusCode::kNotFound, detail,
                      absl::StrCat("Cannot read ", path, "."));
  }
  if (size > limits.max_file_bytes) {
    return Corrupt(path, "", 0,
                   absl::StrCat(size, " bytes are above the limit of ",
                                limits.max_file_bytes));
  }
  std::string bytes(static_cast<size_t>(size), '\0');
  file.seekg(0);
  if (!file.read(bytes.data(), size)) {
    return Corrupt(path, "", file.gcount(), "reading stopped early");
  }
  return ParseSafetensors(bytes, path, limits);
}

absl::StatusOr<std::string> SerializeSafetensors(
    const NamedTensors& tensors,
    const std::map<std::string, std::string>& metadata) {
  Json header = Json::object();
  if (!metadata.empty()) {
    Json& json = header[kMetadataKey];
    for (const auto& [key, value] : metadata) json[key] = value;
  }
  int64_t offset = 0;
  for (const auto& [name, tensor] : tensors) {
    if (name.empty() || name == kMetadataKey || header.contains(name)) {
      return absl::InvalidArgumentError(absl::StrCat(
          "Tensor name \"", name, "\" is empty, taken or reserved."));
    }
    const char* dtype =
        tensor.defined() ? NameOf(tensor.scalar_type()) : nullptr;
    if (dtype == nullptr) {
      return absl::InvalidArgumentError(
          absl::StrCat("Tensor ", name,
                       " is undefined or of a dtype that safetensors lacks."));
    }
    const int64_t size =
        tensor.numel() * static_cast<int64_t>(tensor.element_size());
    header[name] = {{"dtype", dtype},
                    {"shape", tensor.sizes().vec()},
                    {"data_offsets", {offset, offset + size}}};
    offset += size;
  }
  std::string text =
      header.dump(-1, ' ', false, Json::error_handler_t::replace);
  // Data begins on a multiple of 8 bytes, so that readers may map the file.
  text.append((8 - text.size() % 8) % 8, ' ');
  std::string bytes;
  bytes.reserve(kLengthBytes + text.size() + offset);
  for (int i = 0; i < kLengthBytes; ++i) {
    bytes.push_back(static_cast<char>(text.size() >> (8 * i) & 0xff));
  }
  bytes += text;
  for (const auto& [name, tensor] : tensors) {
    const at::Tensor host = tensor.detach().to(at::kCPU).contiguous();
    bytes.append(static_cast<const char*>(host.const_data_ptr()),
                 host.numel() * host.element_size());
  }
  return bytes;
}

absl::Status WriteSafetensors(
    const std::string& path, const NamedTensors& tensors,
    const std::map<std::string, std::string>& metadata) {
  const auto bytes = SerializeSafetensors(tensors, metadata);
  if (!bytes.ok()) return bytes.status();
  return ReplaceFile(path, *bytes);
}

}  // namespace esper::tensor
