#ifndef ESPER_CORE_DIST_FRAME_H_
#define ESPER_CORE_DIST_FRAME_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace esper::dist {

// What travels between two ranks: a header of kFrameHeaderBytes and a payload.
// All numbers are little-endian:
//   0 magic "ESPD" | 4 version u16 | 6 kind u16 | 8 rank u32 | 12 argument u32
//   16 sequence u64 | 24 payload length u64
enum class FrameKind : uint16_t {
  kHello = 1,      // First of a connection; argument = size of the group.
  kBroadcast = 2,  // Argument = root.
  kAllGather = 3,
  kBarrier = 4,
  kAbort = 5,  // The group fails; argument = status code, payload = message.
};

inline constexpr size_t kFrameHeaderBytes = 32;
// An Abort frame may always say why, however small the group's messages are.
inline constexpr size_t kMaxAbortBytes = 4096;

struct FrameHeader {
  FrameKind kind = FrameKind::kHello;
  uint32_t rank = 0;      // Of the sender.
  uint32_t argument = 0;  // By kind; 0 where none is named.
  uint64_t sequence = 0;  // Collectives of the group so far.
  uint64_t length = 0;    // Of the payload, bytes.
};

struct Frame {
  FrameHeader header;
  std::string payload;
};

const char* FrameKindName(FrameKind kind);  // "AllGather"

std::string EncodeFrameHeader(const FrameHeader& header);
// `bytes` holds kFrameHeaderBytes. DATA_LOSS for another magic, version or
// kind, or a payload of more than `max_length` bytes (Abort: kMaxAbortBytes, if
// that is more).
absl::StatusOr<FrameHeader> DecodeFrameHeader(const char* bytes,
                                              uint64_t max_length);

// Builds a byte string of fixed-width numbers and length-prefixed strings.
class ByteWriter {
 public:
  void U8(uint8_t value) { Number(value, 1); }
  void U32(uint32_t value) { Number(value, 4); }
  void U64(uint64_t value) { Number(value, 8); }
  void F64(double value);
  // u32 length, then the bytes. The string must be shorter than 4 GiB.
  void Text(const std::string& value);
  void Raw(const std::string& value) { bytes_ += value; }

  const std::string& bytes() const { return bytes_; }

 private:
  void Number(uint64_t value, int width);

  std::string bytes_;
};

// Reads what ByteWriter wrote. A read past the end returns zero or an empty
// string and makes `ok` false for good. `bytes` must outlive the reader.
class ByteReader {
 public:
  explicit ByteReader(const std::string& bytes) : bytes_(bytes) {}

  uint8_t U8() { return static_cast<uint8_t>(Number(1)); }
  uint32_t U32() { return static_cast<uint32_t>(Number(4)); }
  uint64_t U64() { return Number(8); }
  double F64();
  std::string Text();
  std::string Raw(size_t length);

  bool ok() const { return ok_; }
  bool done() const { return ok_ && at_ == bytes_.size(); }

 private:
  uint64_t Number(int width);

  const std::string& bytes_;
  size_t at_ = 0;
  bool ok_ = true;
};

// The parts, each with its length before it; and back. DATA_LOSS if `bytes` is
// not exactly that.
std::string PackTexts(const std::vector<std::string>& parts);
absl::StatusOr<std::vector<std::string>> UnpackTexts(const std::string& bytes);

}  // namespace esper::dist
#endif  // ESPER_CORE_DIST_FRAME_H_
