#include "core/slot/slot_id.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <set>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "core/error.h"

namespace esper::slot {
namespace {

absl::Status BadSlotId(const std::string& message) {
  ErrorDetail detail;
  detail.reason = "BAD_SLOT_ID";
  detail.field = "slot_id";
  detail.hint = "Write r<row>c<column>, for example r0c1.";
  return MakeStatus(absl::StatusCode::kInvalidArgument, detail, message);
}

// Reads a decimal number without leading zeros at `position` and moves past
// it; absent if there is none or it does not fit 32 bits.
std::optional<int32_t> ReadNumber(const std::string& text, size_t& position) {
  const size_t begin = position;
  int64_t value = 0;
  while (position < text.size() && text[position] >= '0' &&
         text[position] <= '9') {
    value = value * 10 + (text[position] - '0');
    if (value > std::numeric_limits<int32_t>::max()) return std::nullopt;
    ++position;
  }
  const size_t digits = position - begin;
  if (digits == 0 || (digits > 1 && text[begin] == '0')) return std::nullopt;
  return static_cast<int32_t>(value);
}

}  // namespace

absl::StatusOr<SlotId> SlotId::Create(int32_t row, int32_t column) {
  if (row < 0 || column < 0) {
    return BadSlotId(absl::StrCat("Row and column must not be negative, got ",
                                  row, " and ", column, "."));
  }
  return SlotId(row, column);
}

absl::StatusOr<SlotId> SlotId::Parse(const std::string& text) {
  const std::string lower = absl::AsciiStrToLower(text);
  if (lower == "early" || lower == "mid" || lower == "late") {
    return BadSlotId(
        absl::StrCat("Slot name \"", text, "\" is retired; slots have ids."));
  }
  size_t position = 0;
  std::optional<int32_t> row, column;
  if (position < text.size() && text[position++] == 'r') {
    row = ReadNumber(text, position);
  }
  if (row && position < text.size() && text[position++] == 'c') {
    column = ReadNumber(text, position);
  }
  if (!column || position != text.size()) {
    return BadSlotId(
        absl::StrCat("\"", absl::CHexEscape(text), "\" is not a slot id."));
  }
  return SlotId(*row, *column);
}

std::string SlotId::ToString() const {
  return absl::StrCat("r", row_, "c", column_);
}

absl::Status InjectionSpec::Validate() const {
  const auto id = SlotId::Parse(slot_id);
  if (!id.ok()) return id.status();
  const auto refuse = [this](const std::string& what) {
    return absl::InvalidArgumentError(
        absl::StrCat("Injection point ", slot_id, ": ", what, "."));
  };
  if (channels <= 0) {
    return refuse(absl::StrCat("channels must be positive, got ", channels));
  }
  if (!(position >= 0 && position <= 1)) {
    return refuse(absl::StrCat("position must be in [0, 1], got ", position));
  }
  if (layer_begin < 0 || layer_end < layer_begin) {
    return refuse(absl::StrCat("layers [", layer_begin, ", ", layer_end,
                               ") are not a range"));
  }
  if (surface < SurfaceType::kBlockEnd || surface > SurfaceType::kPostMlp) {
    return refuse(
        absl::StrCat("surface ", static_cast<int>(surface), " is unknown"));
  }
  if (order < 0) {
    return refuse(absl::StrCat("order must not be negative, got ", order));
  }
  if (row != id->row() || column != id->column()) {
    return refuse(absl::StrCat("row ", row, " and column ", column,
                               " are not those of the id"));
  }
  return absl::OkStatus();
}

SlotConfig::SlotConfig(std::vector<std::string> slot_ids,
                       std::map<std::string, int64_t> channels)
    : slot_ids_(std::move(slot_ids)), channels_(std::move(channels)) {}

SlotConfig SlotConfig::Default() {
  return SlotConfig({"r0c0", "r0c1", "r0c2"}, {});
}

absl::StatusOr<SlotConfig> SlotConfig::ForGrid(int32_t rows, int32_t columns) {
  if (rows < 1 || columns < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("A slot grid needs at least one row and one column, got ",
                     rows, " by ", columns, "."));
  }
  std::vector<std::string> ids;
  for (int32_t row = 0; row < rows; ++row) {
    for (int32_t column = 0; column < columns; ++column) {
      ids.push_back(SlotId::Create(row, column)->ToString());
    }
  }
  return SlotConfig(std::move(ids), {});
}

absl::StatusOr<SlotConfig> SlotConfig::FromSpecs(
    std::vector<InjectionSpec> specs) {
  std::stable_sort(
      specs.begin(), specs.end(),
      [](const auto& a, const auto& b) { return a.order < b.order; });
  std::vector<std::string> ids;
  std::map<std::string, int64_t> channels;
  for (size_t i = 0; i < specs.size(); ++i) {
    const InjectionSpec& spec = specs[i];
    if (absl::Status status = spec.Validate(); !status.ok()) return status;
    if (i > 0 && specs[i - 1].order == spec.order) {
      return absl::InvalidArgumentError(
          absl::StrCat("Injection points ", specs[i - 1].slot_id, " and ",
                       spec.slot_id, " share order ", spec.order, "."));
    }
    ids.push_back(spec.slot_id);
    channels[spec.slot_id] = spec.channels;
  }
  return Create(std::move(ids), std::move(channels));
}

absl::StatusOr<SlotConfig> SlotConfig::Create(
    std::vector<std::string> slot_ids,
    std::map<std::string, int64_t> channels) {
  if (slot_ids.empty()) {
    return absl::InvalidArgumentError("A slot configuration needs a slot.");
  }
  std::set<std::string> seen;
  for (const std::string& id : slot_ids) {
    const auto parsed = SlotId::Parse(id);
    if (!parsed.ok()) return parsed.status();
    if (!seen.insert(id).second) {
      return absl::InvalidArgumentError(
          absl::StrCat("Slot ", id, " occurs twice."));
    }
  }
  return SlotConfig(std::move(slot_ids), std::move(channels));
}

absl::StatusOr<std::string> SlotConfig::IdAt(int64_t index) const {
  if (index < 0 || index >= size()) {
    return absl::OutOfRangeError(
        absl::StrCat("Slot index ", index, " is outside [0, ", size(), ")."));
  }
  return slot_ids_[index];
}

absl::StatusOr<int64_t> SlotConfig::IndexOf(const std::string& slot_id) const {
  const auto it = std::find(slot_ids_.begin(), slot_ids_.end(), slot_id);
  if (it == slot_ids_.end()) {
    return absl::NotFoundError(
        absl::StrCat("Slot \"", slot_id, "\" is not configured."));
  }
  return it - slot_ids_.begin();
}

absl::StatusOr<int64_t> SlotConfig::ChannelsOf(
    const std::string& slot_id) const {
  const auto it = channels_.find(slot_id);
  if (it == channels_.end()) {
    return absl::NotFoundError(
        absl::StrCat("No channel count is known for slot \"", slot_id, "\"."));
  }
  return it->second;
}

}  // namespace esper::slot
