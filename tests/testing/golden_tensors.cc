#include "tests/testing/golden_tensors.h"

#include <cstring>
#include <fstream>
#include <iterator>
#include <stdexcept>

#include "nlohmann/json.hpp"

namespace esper::testing {
namespace {

template <typename T>
std::vector<double> Decode(const std::string& bytes) {
  std::vector<double> values(bytes.size() / sizeof(T));
  for (size_t i = 0; i < values.size(); ++i) {
    T value;
    std::memcpy(&value, bytes.data() + i * sizeof(T), sizeof(T));
    values[i] = static_cast<double>(value);
  }
  return values;
}

std::vector<double> Decode(const std::string& dtype, const std::string& bytes) {
  if (dtype == "F32") return Decode<float>(bytes);
  if (dtype == "F64") return Decode<double>(bytes);
  if (dtype == "I64") return Decode<int64_t>(bytes);
  if (dtype == "U8" || dtype == "BOOL") return Decode<uint8_t>(bytes);
  throw std::runtime_error("unexpected dtype " + dtype);
}

}  // namespace

GoldenTensors::GoldenTensors(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  if (!stream) throw std::runtime_error("cannot open " + path);
  const std::string file{std::istreambuf_iterator<char>(stream), {}};
  if (file.size() < 8) throw std::runtime_error(path + " is too short");
  uint64_t header_size = 0;
  std::memcpy(&header_size, file.data(), sizeof(header_size));
  const auto header = nlohmann::json::parse(file.substr(8, header_size));
  for (const auto& [name, entry] : header.items()) {
    if (name == "__metadata__") continue;
    const auto offsets = entry.at("data_offsets").get<std::vector<size_t>>();
    GoldenTensor tensor;
    tensor.shape = entry.at("shape").get<std::vector<int64_t>>();
    tensor.values = Decode(entry.at("dtype").get<std::string>(),
                           file.substr(8 + header_size + offsets.at(0),
                                       offsets.at(1) - offsets.at(0)));
    tensors_.emplace(name, std::move(tensor));
  }
}

const GoldenTensor& GoldenTensors::operator[](const std::string& name) const {
  const auto it = tensors_.find(name);
  if (it == tensors_.end()) throw std::out_of_range("no tensor " + name);
  return it->second;
}

}  // namespace esper::testing
