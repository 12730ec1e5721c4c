#include "client/trainer/event_file.h"

#include <array>
#include <filesystem>
#include <sstream>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace esper::client {
namespace {

constexpr char kFileVersion[] = "brain.Event:2";
constexpr int kString = 7;  // TensorFlow's DT_STRING.
constexpr size_t kHeaderBytes = 12;
constexpr size_t kFooterBytes = 4;

std::array<uint32_t, 256> MakeTable() {
  std::array<uint32_t, 256> table = {};
  for (uint32_t i = 0; i < table.size(); ++i) {
    uint32_t crc = i;
    for (int bit = 0; bit < 8; ++bit) {
      crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0x82F63B78u : 0u);
    }
    table[i] = crc;
  }
  return table;
}

uint32_t Masked(absl::string_view data) {
  const uint32_t crc = Crc32c(data);
  return ((crc >> 15) | (crc << 17)) + 0xA282EAD8u;
}

template <typename Integer>
void AppendLittleEndian(Integer value, std::string* out) {
  for (size_t i = 0; i < sizeof(value); ++i) {
    out->push_back(static_cast<char>(value >> (8 * i) & 0xFF));
  }
}

template <typename Integer>
Integer ReadLittleEndian(absl::string_view bytes) {
  Integer value = 0;
  for (size_t i = 0; i < sizeof(value); ++i) {
    value |= static_cast<Integer>(static_cast<unsigned char>(bytes[i]))
             << (8 * i);
  }
  return value;
}

std::string Frame(absl::string_view data) {
  std::string record;
  AppendLittleEndian<uint64_t>(data.size(), &record);
  AppendLittleEndian<uint32_t>(Masked(record), &record);
  absl::StrAppend(&record, data);
  AppendLittleEndian<uint32_t>(Masked(data), &record);
  return record;
}

// Length of the first record of `bytes`, and its event; 0 if it is not whole.
size_t ReadRecord(absl::string_view bytes, tensorboard::Event* event) {
  if (bytes.size() < kHeaderBytes + kFooterBytes) return 0;
  const auto size = ReadLittleEndian<uint64_t>(bytes);
  if (ReadLittleEndian<uint32_t>(bytes.substr(8)) !=
          Masked(bytes.substr(0, 8)) ||
      size > bytes.size() - kHeaderBytes - kFooterBytes) {
    return 0;
  }
  const absl::string_view data = bytes.substr(kHeaderBytes, size);
  const absl::string_view footer = bytes.substr(kHeaderBytes + size);
  if (ReadLittleEndian<uint32_t>(footer) != Masked(data) ||
      !event->ParseFromArray(data.data(), static_cast<int>(data.size()))) {
    return 0;
  }
  return kHeaderBytes + size + kFooterBytes;
}

tensorboard::Event MakeEvent(int64_t step, absl::Time time) {
  tensorboard::Event event;
  event.set_step(step);
  event.set_wall_time(static_cast<double>(absl::ToUnixMicros(time)) / 1e6);
  return event;
}

}  // namespace

uint32_t Crc32c(absl::string_view data) {
  static const std::array<uint32_t, 256> table = MakeTable();
  uint32_t crc = ~uint32_t{0};
  for (const char byte : data) {
    crc = table[(crc ^ static_cast<unsigned char>(byte)) & 0xFF] ^ (crc >> 8);
  }
  return ~crc;
}

absl::StatusOr<std::unique_ptr<EventFile>> EventFile::Create(
    const std::string& path) {
  std::unique_ptr<EventFile> events(new EventFile(path));
  events->file_.open(path, std::ios::binary | std::ios::trunc);
  tensorboard::Event event = MakeEvent(0, absl::Now());
  event.set_file_version(kFileVersion);
  const absl::Status written = events->Write(event);
  if (!written.ok()) return written;
  return events;
}

absl::StatusOr<std::unique_ptr<EventFile>> EventFile::Resume(
    const std::string& path, int64_t last_step) {
  std::stringstream buffer;
  buffer << std::ifstream(path, std::ios::binary).rdbuf();
  const std::string bytes = buffer.str();
  size_t kept = 0;
  tensorboard::Event event;
  while (const size_t size =
             ReadRecord(absl::string_view(bytes).substr(kept), &event)) {
    if (event.step() > last_step) break;
    kept += size;
  }
  if (kept == 0) return Create(path);
  std::error_code error;
  std::filesystem::resize_file(path, kept, error);
  std::unique_ptr<EventFile> events(new EventFile(path));
  events->file_.open(path, std::ios::binary | std::ios::app);
  if (error || !events->file_) {
    return absl::UnavailableError(absl::StrCat("cannot continue ", path));
  }
  return events;
}

absl::Status EventFile::AddScalars(
    int64_t step, absl::Time time,
    const std::map<std::string, double>& scalars) {
  tensorboard::Event event = MakeEvent(step, time);
  for (const auto& [tag, value] : scalars) {
    auto* point = event.mutable_summary()->add_value();
    point->set_tag(tag);
    point->set_simple_value(static_cast<float>(value));
  }
  return Write(event);
}

absl::Status EventFile::AddText(int64_t step, absl::Time time,
                                const std::string& tag,
                                const std::string& text) {
  tensorboard::Event event = MakeEvent(step, time);
  auto* value = event.mutable_summary()->add_value();
  value->set_tag(tag);
  value->mutable_metadata()->mutable_plugin_data()->set_plugin_name("text");
  value->mutable_tensor()->set_dtype(kString);
  value->mutable_tensor()->add_string_val(text);
  return Write(event);
}

absl::Status EventFile::Write(const tensorboard::Event& event) {
  file_ << Frame(event.SerializeAsString()) << std::flush;
  if (file_) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat("cannot write ", path_));
}

}  // namespace esper::client
