#ifndef ESPER_CORE_SLOT_SLOT_ID_H_
#define ESPER_CORE_SLOT_SLOT_ID_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace esper::slot {

// Where a slot sits in the host: "r<row>c<column>", both from zero. Ordered by
// number, so r0c10 comes after r0c9.
//
// Parsing takes ASCII digits only, no leading zero, nothing before or after,
// and values that fit 32 bits; the retired names early, mid and late (in any
// case) get an error of their own. Every refusal is INVALID_ARGUMENT with
// reason BAD_SLOT_ID.
class SlotId {
 public:
  // BAD_SLOT_ID if either is negative.
  static absl::StatusOr<SlotId> Create(int32_t row, int32_t column);
  static absl::StatusOr<SlotId> Parse(const std::string& text);

  int32_t row() const { return row_; }
  int32_t column() const { return column_; }
  std::string ToString() const;

  friend bool operator==(const SlotId& a, const SlotId& b) {
    return a.row_ == b.row_ && a.column_ == b.column_;
  }
  friend bool operator!=(const SlotId& a, const SlotId& b) { return !(a == b); }
  friend bool operator<(const SlotId& a, const SlotId& b) {
    return a.row_ != b.row_ ? a.row_ < b.row_ : a.column_ < b.column_;
  }

 private:
  SlotId(int32_t row, int32_t column) : row_(row), column_(column) {}

  int32_t row_;
  int32_t column_;
};

// Which surface of the host a slot is attached to. Numbers are wire contracts.
enum class SurfaceType : int {
  kBlockEnd = 0,
  kPrePool = 1,
  kPostPool = 2,
  kPostAttention = 3,
  kPostMlp = 4,
};

// One place where a host accepts a seed.
struct InjectionSpec {
  std::string slot_id;
  int64_t channels = 0;     // > 0.
  double position = 0;      // In [0, 1]; for display only.
  int64_t layer_begin = 0;  // Layers [begin, end) that the slot follows,
  int64_t layer_end = 0;    // 0 <= begin <= end.
  SurfaceType surface = SurfaceType::kBlockEnd;
  int64_t order = 0;  // >= 0; the action index follows from it alone.
  int32_t row = 0;
  int32_t column = 0;

  // INVALID_ARGUMENT naming the first field out of range, or if row and column
  // are not those of the slot id.
  absl::Status Validate() const;
};

// The slots of a model, in action order, with their channel counts. Immutable.
class SlotConfig {
 public:
  // r0c0, r0c1, r0c2 with no channels known.
  static SlotConfig Default();
  // Row-major. INVALID_ARGUMENT if a count is below 1.
  static absl::StatusOr<SlotConfig> ForGrid(int32_t rows, int32_t columns);
  // Sorted by `order`. INVALID_ARGUMENT if empty, a spec is invalid, or an id
  // or an order occurs twice.
  static absl::StatusOr<SlotConfig> FromSpecs(std::vector<InjectionSpec> specs);
  // INVALID_ARGUMENT if empty, or an id is malformed or occurs twice.
  static absl::StatusOr<SlotConfig> Create(
      std::vector<std::string> slot_ids,
      std::map<std::string, int64_t> channels = {});

  const std::vector<std::string>& slot_ids() const { return slot_ids_; }
  int64_t size() const { return static_cast<int64_t>(slot_ids_.size()); }

  // OUT_OF_RANGE unless 0 <= index < size().
  absl::StatusOr<std::string> IdAt(int64_t index) const;
  // NOT_FOUND for an id that is not configured, or has no known channels.
  absl::StatusOr<int64_t> IndexOf(const std::string& slot_id) const;
  absl::StatusOr<int64_t> ChannelsOf(const std::string& slot_id) const;

 private:
  SlotConfig(std::vector<std::string> slot_ids,
             std::map<std::string, int64_t> channels);

  std::vector<std::string> slot_ids_;
  std::map<std::string, int64_t> channels_;
};

}  // namespace esper::slot
#endif  // ESPER_CORE_SLOT_SLOT_ID_H_
