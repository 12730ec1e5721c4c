#include "server/state_codec.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <cmath>
#include <cstring>
#include <fstream>
#include <iterator>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "c10/util/Exception.h"
#include "server/refusal.h"

namespace esper::server {
namespace {

constexpr char kMagic[] = {'E', 'S', 'S', 'T'};
constexpr uint16_t kFormat = 1;
constexpr uint16_t kDeterministic = 1;
constexpr uint16_t kSigned = 2;
constexpr size_t kDigestBytes = 32;
constexpr size_t kHeaderBytes = 64;
constexpr size_t kMinKeyBytes = 16;

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
              "states are written as they lie in memory");

template <typename T>
void Put(T value, std::string* out) {
  out->append(reinterpret_cast<const char*>(&value), sizeof(value));
}

void Put(const std::vector<float>& values, std::string* out) {
  out->append(reinterpret_cast<const char*>(values.data()),
              values.size() * sizeof(float));
}

// Reads one value after the other out of bytes that are known to be there.
class Reader {
 public:
  explicit Reader(const char* at) : at_(at) {}

  template <typename T>
  T Take() {
    T value;
    std::memcpy(&value, at_, sizeof(value));
    at_ += sizeof(value);
    return value;
  }
  std::string Take(size_t bytes) {
    at_ += bytes;
    return std::string(at_ - bytes, bytes);
  }
  std::vector<float> TakeFloats(size_t count) {
    std::vector<float> values(count);
    std::memcpy(values.data(), at_, count * sizeof(float));
    at_ += count * sizeof(float);
    return values;
  }

 private:
  const char* at_;
};

absl::Status BadState(int64_t row, const std::string& why) {
  return RefuseRow("BAD_STATE", "recurrent_state", row,
                   absl::StrCat("the recurrent state ", why, "."),
                   "Send back the bytes of the last answer unchanged, or begin "
                   "a new episode.");
}

bool AllFinite(const std::vector<float>& values) {
  for (const float value : values) {
    if (!std::isfinite(value)) return false;
  }
  return true;
}

}  // namespace

StateCodec::StateCodec(const policy::PolicySpec& spec, const std::string& key)
    : spec_digest_(absl::HexStringToBytes(spec.Digest())),
      layers_(spec.lstm_layers),
      hidden_(spec.hidden_dim),
      key_(key) {}

std::string StateCodec::Tag(const char* data, size_t size) const {
  unsigned char tag[EVP_MAX_MD_SIZE];
  unsigned int length = 0;
  const auto* bytes = reinterpret_cast<const unsigned char*>(data);
  if (key_.empty()) {
    EVP_Digest(bytes, size, tag, &length, EVP_sha256(), nullptr);
  } else {
    HMAC(EVP_sha256(), key_.data(), static_cast<int>(key_.size()), bytes, size,
         tag, &length);
  }
  return std::string(reinterpret_cast<const char*>(tag), length);
}

std::string StateCodec::Encode(const HeldState& state) const {
  const size_t count = static_cast<size_t>(layers_ * hidden_);
  TORCH_CHECK(state.h.size() == count && state.c.size() == count,
              "a recurrent state of ", state.h.size(), " and ", state.c.size(),
              " numbers where ", count, " each are needed");
  std::string bytes;
  bytes.reserve(kHeaderBytes + 2 * count * sizeof(float) + kDigestBytes);
  bytes.append(kMagic, sizeof(kMagic));
  Put(kFormat, &bytes);
  Put(static_cast<uint16_t>((state.deterministic ? kDeterministic : 0) |
                            (key_.empty() ? 0 : kSigned)),
      &bytes);
  bytes.append(spec_digest_);
  Put(state.seed, &bytes);
  Put(state.step, &bytes);
  Put(static_cast<uint32_t>(layers_), &bytes);
  Put(static_cast<uint32_t>(hidden_), &bytes);
  Put(state.h, &bytes);
  Put(state.c, &bytes);
  bytes.append(Tag(bytes.data(), bytes.size()));
  return bytes;
}

absl::StatusOr<HeldState> StateCodec::Decode(const std::string& bytes,
                                             int64_t row) const {
  if (bytes.size() < kHeaderBytes + kDigestBytes ||
      std::memcmp(bytes.data(), kMagic, sizeof(kMagic)) != 0) {
    return BadState(row, "is none of this service");
  }
  Reader reader(bytes.data() + sizeof(kMagic));
  const auto format = reader.Take<uint16_t>();
  if (format != kFormat) {
    return BadState(row,
                    absl::StrCat("has format ", format, ", not ", kFormat));
  }
  const auto flags = reader.Take<uint16_t>();
  if (((flags & kSigned) != 0) == key_.empty()) {
    return BadState(row, key_.empty() ? "is signed, and this server has no key"
                                      : "is not signed");
  }
  const size_t body = bytes.size() - kDigestBytes;
  const std::string tag = Tag(bytes.data(), body);
  if (CRYPTO_memcmp(tag.data(), bytes.data() + body, kDigestBytes) != 0) {
    return BadState(row, key_.empty() ? "is damaged"
                                      : "is damaged, or signed by another key");
  }
  // From here on the bytes are as some server wrote them.
  if (reader.Take(kDigestBytes) != spec_digest_) {
    return RefuseRow("SPEC_MISMATCH", "recurrent_state", row,
                     "the recurrent state is of a policy with another "
                     "specification.",
                     "Begin a new episode.");
  }
  HeldState state;
  state.deterministic = (flags & kDeterministic) != 0;
  state.seed = reader.Take<uint64_t>();
  state.step = reader.Take<int64_t>();
  const int64_t layers = reader.Take<uint32_t>();
  const int64_t hidden = reader.Take<uint32_t>();
  const size_t count = static_cast<size_t>(layers_ * hidden_);
  if (state.step < 1 || state.step == INT64_MAX || layers != layers_ ||
      hidden != hidden_ || body != kHeaderBytes + 2 * count * sizeof(float)) {
    return BadState(row, "does not hold what its specification says");
  }
  state.h = reader.TakeFloats(count);
  state.c = reader.TakeFloats(count);
  if (!AllFinite(state.h) || !AllFinite(state.c)) {
    return BadState(row, "holds NaN or infinity");
  }
  return state;
}

absl::StatusOr<std::string> ReadStateKey(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    return absl::NotFoundError(
        absl::StrCat("Cannot read the state key file ", path, "."));
  }
  const std::string bytes{std::istreambuf_iterator<char>(file),
                          std::istreambuf_iterator<char>()};
  const std::string key(absl::StripAsciiWhitespace(bytes));
  if (key.size() < kMinKeyBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("The state key file ", path, " has ", key.size(),
                     " bytes; use at least ", kMinKeyBytes,
                     ", for example of `openssl rand -hex 32`."));
  }
  return key;
}

}  // namespace esper::server
