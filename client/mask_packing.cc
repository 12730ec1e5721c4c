#include "client/mask_packing.h"

#include "absl/strings/str_cat.h"

namespace esper::client {
namespace {

absl::Status SizeError(const std::string& what, size_t actual,
                       int64_t expected) {
  return absl::InvalidArgumentError(absl::StrCat(
      "The mask of ", what, " has ", actual, " entries, not ", expected, "."));
}

// Appends bits to bytes, least significant first.
class BitWriter {
 public:
  explicit BitWriter(int64_t bytes) : bytes_(bytes, 0) {}

  void Write(const std::vector<bool>& bits) {
    for (const bool bit : bits) {
      if (bit) bytes_[position_ / 8] |= uint8_t{1} << (position_ % 8);
      ++position_;
    }
  }

  std::vector<uint8_t> Take() { return std::move(bytes_); }

 private:
  std::vector<uint8_t> bytes_;
  int64_t position_ = 0;
};

}  // namespace

int64_t MaskLayout::Bits() const {
  int64_t bits = driver_actions * conditional_choices;
  for (const int64_t size : head_sizes) bits += size;
  return bits;
}

int64_t MaskLayout::Bytes() const { return (Bits() + 7) / 8; }

absl::StatusOr<std::vector<uint8_t>> PackMask(const MaskLayout& layout,
                                              const MaskRow& row) {
  const int64_t conditional =
      layout.driver_actions * layout.conditional_choices;
  if (static_cast<int64_t>(row.conditional.size()) != conditional) {
    return SizeError("the conditional head", row.conditional.size(),
                     conditional);
  }
  if (row.heads.size() != layout.head_sizes.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("There are ", row.heads.size(), " head masks, not ",
                     layout.head_sizes.size(), "."));
  }
  BitWriter writer(layout.Bytes());
  writer.Write(row.conditional);
  for (size_t i = 0; i < row.heads.size(); ++i) {
    if (static_cast<int64_t>(row.heads[i].size()) != layout.head_sizes[i]) {
      return SizeError(absl::StrCat("head ", i), row.heads[i].size(),
                       layout.head_sizes[i]);
    }
    writer.Write(row.heads[i]);
  }
  return writer.Take();
}

}  // namespace esper::client
