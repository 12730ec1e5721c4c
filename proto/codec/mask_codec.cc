#include "proto/codec/mask_codec.h"

#include <algorithm>

#include "ATen/ops/empty.h"
#include "ATen/ops/ones.h"
#include "absl/strings/str_cat.h"
#include "c10/util/Exception.h"
#include "core/error.h"
#include "core/policy/policy_spec.h"
#include "proto/codec/tensor_codec.h"

namespace esper::codec {
namespace {

// Reads bits of one packed row in order.
class BitReader {
 public:
  explicit BitReader(const uint8_t* bytes) : bytes_(bytes) {}
  void Read(bool* out, int64_t count) {
    for (int64_t i = 0; i < count; ++i, ++position_) {
      out[i] = (bytes_[position_ >> 3] >> (position_ & 7)) & 1;
    }
  }

 private:
  const uint8_t* bytes_;
  int64_t position_ = 0;
};

class BitWriter {
 public:
  explicit BitWriter(uint8_t* bytes) : bytes_(bytes) {}
  void Write(const bool* in, int64_t count) {
    for (int64_t i = 0; i < count; ++i, ++position_) {
      bytes_[position_ >> 3] |= static_cast<uint8_t>(in[i]) << (position_ & 7);
    }
  }

 private:
  uint8_t* bytes_;  // Zeroed by the caller.
  int64_t position_ = 0;
};

absl::Status PaddingError(const std::string& field, int64_t row) {
  ErrorDetail detail;
  detail.reason = "MALFORMED_REQUEST";
  detail.field = field;
  detail.row = row;
  detail.tensor = field;
  detail.hint = "Pack the masks as GetActionRequest.action_masks describes.";
  return MakeStatus(
      absl::StatusCode::kInvalidArgument, detail,
      absl::StrCat(field, " has a padding bit set in row ", row, "."));
}

}  // namespace

MaskCodec::MaskCodec(const policy::PolicySpec& spec)
    : conditional_(spec.ConditionalHead()), optional_(spec.mask_optional) {
  for (int64_t k = 0; k < spec.num_heads(); ++k) {
    Head head;
    head.name = spec.heads[k].name;
    const bool masked = spec.heads[k].kind == policy::HeadKind::kCategorical;
    head.size = masked ? spec.heads[k].size : 0;
    head.offset = width_;
    head.driver = spec.DriverOf(k);
    if (head.driver >= 0) {
      head.relevant_when.resize(spec.heads[head.driver].size, false);
      for (const int64_t choice : spec.heads[k].relevant_when) {
        head.relevant_when[choice] = true;
      }
    }
    width_ += head.size;
    heads_.push_back(std::move(head));
  }
  bits_ = width_;
  if (conditional_ >= 0) {
    driver_size_ = heads_[heads_[conditional_].driver].size;
    bits_ += (driver_size_ - 1) * heads_[conditional_].size;
  }
  row_bytes_ = (bits_ + 7) / 8;
  if (bits_ == 0) optional_ = true;
}

absl::StatusOr<ActionMasks> MaskCodec::Decode(const v1::Tensor& message,
                                              int64_t rows,
                                              const std::string& field,
                                              int64_t row) const {
  if (IsAbsent(message) && optional_) return AllowAll(rows);
  auto packed = DecodeTensor(
      message, {field, {rows, row_bytes_}, {v1::DATA_TYPE_UINT8}, row});
  if (!packed.ok()) return packed.status();

  ActionMasks masks;
  masks.heads = at::empty({rows, width_}, at::kBool);
  bool* heads = masks.heads.mutable_data_ptr<bool>();
  bool* conditional = nullptr;
  int64_t conditional_size = 0;
  if (conditional_ >= 0) {
    const int64_t size = heads_[conditional_].size;
    masks.conditional = at::empty({rows, driver_size_, size}, at::kBool);
    conditional = masks.conditional.mutable_data_ptr<bool>();
    conditional_size = driver_size_ * size;
  }
  const uint8_t* bytes = packed->const_data_ptr<uint8_t>();
  for (int64_t n = 0; n < rows; ++n, bytes += row_bytes_) {
    if (bits_ % 8 != 0 && (bytes[row_bytes_ - 1] >> (bits_ % 8)) != 0) {
      return PaddingError(field, row >= 0 ? row : n);
    }
    BitReader reader(bytes);
    reader.Read(conditional, conditional_size);
    for (int64_t k = 0; k < heads_.size(); ++k) {
      bool* entries = heads + n * width_ + heads_[k].offset;
      if (k == conditional_) {
        std::copy_n(conditional, heads_[k].size, entries);
      } else {
        reader.Read(entries, heads_[k].size);
      }
    }
    conditional += conditional_size;
  }
  return masks;
}

ActionMasks MaskCodec::AllowAll(int64_t rows) const {
  ActionMasks masks;
  masks.heads = at::ones({rows, width_}, at::kBool);
  if (conditional_ >= 0) {
    masks.conditional =
        at::ones({rows, driver_size_, heads_[conditional_].size}, at::kBool);
  }
  return masks;
}

void MaskCodec::Encode(const ActionMasks& masks, v1::Tensor* message) const {
  const at::Tensor heads = masks.heads.contiguous();
  const int64_t rows = heads.size(0);
  at::Tensor conditional;
  if (conditional_ >= 0) conditional = masks.conditional.contiguous();
  std::string data(rows * row_bytes_, '\0');
  for (int64_t n = 0; n < rows; ++n) {
    BitWriter writer(reinterpret_cast<uint8_t*>(data.data()) + n * row_bytes_);
    if (conditional_ >= 0) {
      const int64_t size = driver_size_ * heads_[conditional_].size;
      writer.Write(conditional.const_data_ptr<bool>() + n * size, size);
    }
    const bool* row = heads.const_data_ptr<bool>() + n * width_;
    for (int64_t k = 0; k < heads_.size(); ++k) {
      if (k != conditional_)
        writer.Write(row + heads_[k].offset, heads_[k].size);
    }
  }
  message->Clear();
  message->set_dtype(v1::DATA_TYPE_UINT8);
  message->add_shape(rows);
  message->add_shape(row_bytes_);
  message->set_data(std::move(data));
}

bool MaskCodec::Any(const bool* entries, int64_t size) {
  return std::find(entries, entries + size, true) != entries + size;
}

std::string MaskCodec::FirstEmptyHead(const bool* heads,
                                      const bool* conditional) const {
  for (int64_t k = 0; k < heads_.size(); ++k) {
    const Head& head = heads_[k];
    if (head.size == 0) continue;
    if (head.driver < 0) {
      if (!Any(heads + head.offset, head.size)) return head.name;
      continue;
    }
    const bool* driver = heads + heads_[head.driver].offset;
    for (int64_t choice = 0; choice < head.relevant_when.size(); ++choice) {
      if (!head.relevant_when[choice] || !driver[choice]) continue;
      const bool* entries = k == conditional_ ? conditional + choice * head.size
                                              : heads + head.offset;
      if (!Any(entries, head.size)) return head.name;
    }
  }
  return "";
}

absl::Status MaskCodec::CheckNotEmpty(const ActionMasks& masks,
                                      int64_t rows_are_steps) const {
  const at::Tensor heads = masks.heads.contiguous();
  const bool* conditional = nullptr;
  int64_t conditional_size = 0;
  if (conditional_ >= 0) {
    TORCH_CHECK(masks.conditional.is_contiguous(), "unpacked masks expected");
    conditional = masks.conditional.const_data_ptr<bool>();
    conditional_size = driver_size_ * heads_[conditional_].size;
  }
  for (int64_t n = 0; n < heads.size(0); ++n) {
    const std::string empty =
        FirstEmptyHead(heads.const_data_ptr<bool>() + n * width_,
                       conditional + n * conditional_size);
    if (empty.empty()) continue;
    return ToStatus(rows_are_steps >= 0
                        ? EmptyMaskError(empty, rows_are_steps, n)
                        : EmptyMaskError(empty, n));
  }
  return absl::OkStatus();
}

at::Tensor MaskCodec::SelectConditional(const ActionMasks& masks,
                                        const at::Tensor& drivers) const {
  at::Tensor heads = masks.heads.clone();
  if (conditional_ < 0) return heads;
  const Head& head = heads_[conditional_];
  const int64_t rows = heads.size(0);
  const at::Tensor choices = drivers.contiguous();
  const int64_t* choice = choices.const_data_ptr<int64_t>();
  const at::Tensor conditional = masks.conditional.contiguous();
  const bool* from = conditional.const_data_ptr<bool>();
  bool* to = heads.mutable_data_ptr<bool>();
  for (int64_t n = 0; n < rows; ++n) {
    TORCH_CHECK(choice[n] >= 0 && choice[n] < driver_size_,
                "driver action out of range: ", choice[n]);
    std::copy_n(from + (n * driver_size_ + choice[n]) * head.size, head.size,
                to + n * width_ + head.offset);
  }
  return heads;
}

}  // namespace esper::codec
