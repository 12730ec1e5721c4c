#ifndef ESPER_PROTO_CODEC_MASK_CODEC_H_
#define ESPER_PROTO_CODEC_MASK_CODEC_H_

#include <cstdint>
#include <string>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "esper/v1/tensor.pb.h"

namespace esper::policy {
struct PolicySpec;
}  // namespace esper::policy

namespace esper::codec {

// Masks of N rows; true = allowed. A is the sum of the sizes of categorical
// heads in storage order, O the number of driver actions, S the size of the
// conditional head. Gaussian heads have no mask.
struct ActionMasks {
  // bool [N, A]. The segment of the conditional head, which the wire does not
  // carry, holds the row of driver action 0 until `SelectConditional`.
  at::Tensor heads;
  at::Tensor conditional;  // bool [N, O, S]; undefined if the spec has none.
};

// Packed bits to bools and back for one policy specification: per row, least
// significant bit first, the conditional mask row-major by driver action, then
// the heads in storage order without the conditional one, zero-padded to a
// byte.
//
// Immutable; any thread may use it.
class MaskCodec {
 public:
  explicit MaskCodec(const policy::PolicySpec& spec);

  // M: bytes of one row on the wire.
  int64_t row_bytes() const { return row_bytes_; }

  // message: uint8 [N, M]. BAD_SHAPE; MALFORMED_REQUEST if a padding bit is
  // set; an absent message allows everything if the specification makes masks
  // optional, and is BAD_SHAPE otherwise. `row` as in TensorSpec.
  absl::StatusOr<ActionMasks> Decode(const v1::Tensor& message, int64_t rows,
                                     const std::string& field,
                                     int64_t row = -1) const;

  // Every action allowed, in `rows` rows.
  ActionMasks AllowAll(int64_t rows) const;

  // The inverse of `Decode`.
  void Encode(const ActionMasks& masks, v1::Tensor* message) const;

  // EMPTY_ACTION_MASK, naming row and head, if a head without driver allows
  // nothing, or if a driver allows a choice that uses a head that allows
  // nothing: such a row could fail, depending on what is sampled. With
  // `rows_are_steps` >= 0 the tensor's rows are steps of that row.
  absl::Status CheckNotEmpty(const ActionMasks& masks,
                             int64_t rows_are_steps = -1) const;

  // bool [N, A]: `masks.heads` with the conditional head's segment replaced by
  // the row of the driver action taken. driver_actions: int64 [N], in range.
  at::Tensor SelectConditional(const ActionMasks& masks,
                               const at::Tensor& driver_actions) const;

 private:
  struct Head {
    std::string name;
    int64_t size = 0;                 // 0 for a Gaussian head.
    int64_t offset = 0;               // In `heads`.
    int64_t driver = -1;              // Its driver head; -1: none.
    std::vector<bool> relevant_when;  // [driver size].
  };

  // Whether any of `size` entries is true.
  static bool Any(const bool* entries, int64_t size);
  // Name of the first head that row could need and cannot have; empty if none.
  // `conditional` is null if the specification has no conditional mask.
  std::string FirstEmptyHead(const bool* heads, const bool* conditional) const;

  std::vector<Head> heads_;   // Storage order.
  int64_t conditional_ = -1;  // Index of the conditional head; -1: none.
  int64_t driver_size_ = 0;   // O.
  // An absent mask allows everything; so it does where there is nothing to
  // mask.
  bool optional_ = false;
  int64_t width_ = 0;  // A.
  int64_t bits_ = 0;   // Bits of one row on the wire.
  int64_t row_bytes_ = 0;
};

}  // namespace esper::codec
#endif  // ESPER_PROTO_CODEC_MASK_CODEC_H_
