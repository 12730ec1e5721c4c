#include "core/dist/frame.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace esper::dist {
namespace {

constexpr char kMagic[] = "ESPD";
constexpr uint16_t kVersion = 1;

uint64_t LoadNumber(const char* bytes, int width) {
  uint64_t value = 0;
  for (int i = width - 1; i >= 0; --i) {
    value = value << 8 | static_cast<unsigned char>(bytes[i]);
  }
  return value;
}

void StoreNumber(uint64_t value, int width, char* bytes) {
  for (int i = 0; i < width; ++i) {
    bytes[i] = static_cast<char>(value >> (8 * i));
  }
}

}  // namespace

const char* FrameKindName(FrameKind kind) {
  switch (kind) {
    case FrameKind::kHello:
      return "Hello";
    case FrameKind::kBroadcast:
      return "Broadcast";
    case FrameKind::kAllGather:
      return "AllGather";
    case FrameKind::kBarrier:
      return "Barrier";
    case FrameKind::kAbort:
      return "Abort";
  }
  return "?";
}

std::string EncodeFrameHeader(const FrameHeader& header) {
  std::string bytes(kFrameHeaderBytes, '\0');
  std::memcpy(&bytes[0], kMagic, 4);
  StoreNumber(kVersion, 2, &bytes[4]);
  StoreNumber(static_cast<uint16_t>(header.kind), 2, &bytes[6]);
  StoreNumber(header.rank, 4, &bytes[8]);
  StoreNumber(header.argument, 4, &bytes[12]);
  StoreNumber(header.sequence, 8, &bytes[16]);
  StoreNumber(header.length, 8, &bytes[24]);
  return bytes;
}

absl::StatusOr<FrameHeader> DecodeFrameHeader(const char* bytes,
                                              uint64_t max_length) {
  if (std::memcmp(bytes, kMagic, 4) != 0 ||
      LoadNumber(bytes + 4, 2) != kVersion) {
    return absl::DataLossError("A peer does not speak the group's protocol.");
  }
  const uint64_t kind = LoadNumber(bytes + 6, 2);
  if (kind < 1 || kind > static_cast<uint16_t>(FrameKind::kAbort)) {
    return absl::DataLossError(
        absl::StrCat("A peer sent a frame of unknown kind ", kind, "."));
  }
  FrameHeader header;
  header.kind = static_cast<FrameKind>(kind);
  header.rank = static_cast<uint32_t>(LoadNumber(bytes + 8, 4));
  header.argument = static_cast<uint32_t>(LoadNumber(bytes + 12, 4));
  header.sequence = LoadNumber(bytes + 16, 8);
  header.length = LoadNumber(bytes + 24, 8);
  if (header.kind == FrameKind::kAbort) {
    max_length = std::max<uint64_t>(max_length, kMaxAbortBytes);
  }
  if (header.length > max_length) {
    return absl::DataLossError(absl::StrCat("A peer announced ", header.length,
                                            " bytes; the group's limit is ",
                                            max_length, "."));
  }
  return header;
}

void ByteWriter::Number(uint64_t value, int width) {
  char bytes[8];
  StoreNumber(value, width, bytes);
  bytes_.append(bytes, width);
}

void ByteWriter::F64(double value) {
  uint64_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  U64(bits);
}

void ByteWriter::Text(const std::string& value) {
  U32(static_cast<uint32_t>(value.size()));
  bytes_ += value;
}

uint64_t ByteReader::Number(int width) {
  if (!ok_ || bytes_.size() - at_ < static_cast<size_t>(width)) {
    ok_ = false;
    return 0;
  }
  const uint64_t value = LoadNumber(bytes_.data() + at_, width);
  at_ += width;
  return value;
}

double ByteReader::F64() {
  const uint64_t bits = U64();
  double value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

std::string ByteReader::Text() { return Raw(U32()); }

std::string ByteReader::Raw(size_t length) {
  if (!ok_ || bytes_.size() - at_ < length) {
    ok_ = false;
    return "";
  }
  at_ += length;
  return bytes_.substr(at_ - length, length);
}

std::string PackTexts(const std::vector<std::string>& parts) {
  ByteWriter writer;
  writer.U32(static_cast<uint32_t>(parts.size()));
  for (const std::string& part : parts) writer.Text(part);
  return writer.bytes();
}

absl::StatusOr<std::vector<std::string>> UnpackTexts(const std::string& bytes) {
  ByteReader reader(bytes);
  const uint32_t count = reader.U32();
  std::vector<std::string> parts;
  for (uint32_t i = 0; i < count && reader.ok(); ++i) {
    parts.push_back(reader.Text());
  }
  if (!reader.done()) {
    return absl::DataLossError("A list of texts is cut short or too long.");
  }
  return parts;
}

}  // namespace esper::dist
