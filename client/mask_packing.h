#ifndef ESPER_CLIENT_MASK_PACKING_H_
#define ESPER_CLIENT_MASK_PACKING_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

// Action masks as they travel (GetActionRequest.action_masks): one row is the
// conditional mask row-major by driver action, then the masks of the other
// heads in storage order; least significant bit first, zero-padded to a byte.
namespace esper::client {

// Sizes that fix the layout of one row.
struct MaskLayout {
  // Rows and columns of the conditional mask: driver actions, and choices of
  // the head that it masks (slots). Both 0 for a policy without one.
  int64_t driver_actions = 0;
  int64_t conditional_choices = 0;
  // Choices of each other head, in storage order.
  std::vector<int64_t> head_sizes;

  int64_t Bits() const;
  int64_t Bytes() const;
};

// One row of masks; true = allowed.
struct MaskRow {
  // [driver_actions * conditional_choices], row-major.
  std::vector<bool> conditional;
  // One per entry of MaskLayout::head_sizes.
  std::vector<std::vector<bool>> heads;
};

// MaskLayout::Bytes() bytes. INVALID_ARGUMENT naming the head (its position,
// or "conditional") whose size differs from the layout.
absl::StatusOr<std::vector<uint8_t>> PackMask(const MaskLayout& layout,
                                              const MaskRow& row);

}  // namespace esper::client
#endif  // ESPER_CLIENT_MASK_PACKING_H_
