#ifndef ESPER_TESTS_CORE_SLOT_CHECKPOINT_TEXT_H_
#define ESPER_TESTS_CORE_SLOT_CHECKPOINT_TEXT_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/time.h"
#include "core/slot/slot_checkpoint_fields.h"

// Checkpoint structs by way of the field table: as text per field, and with a
// value of its own in each.
namespace esper::testing {

using FieldTexts = std::map<std::string, std::string>;  // "seed.tempo" -> "5"

template <typename T>
void FlattenInto(const std::string& key, const T& value, FieldTexts& texts);

template <typename T>
void FlattenInto(const std::string& key, const std::optional<T>& value,
                 FieldTexts& texts) {
  if (value) {
    FlattenInto(key, *value, texts);
  } else {
    texts[key] = "absent";
  }
}

template <typename T>
void FlattenInto(const std::string& key, const std::map<std::string, T>& value,
                 FieldTexts& texts) {
  std::string text;
  for (const auto& [name, entry] : value)
    absl::StrAppend(&text, name, "=", entry, " ");
  texts[key] = text;
}

inline void FlattenInto(
    const std::string& key,
    const std::vector<std::pair<slot::SeedStage, absl::Time>>& value,
    FieldTexts& texts) {
  std::string text;
  for (const auto& [stage, time] : value) {
    absl::StrAppend(&text, slot::StageName(stage), "@",
                    absl::FormatTime(time, absl::UTCTimeZone()), " ");
  }
  texts[key] = text;
}

template <typename T>
void FlattenInto(const std::string& key, const T& value, FieldTexts& texts) {
  if constexpr (slot::HasFieldTable<T>::value) {
    slot::ForEachField(value, [&](const char* name, const auto& field) {
      FlattenInto(key.empty() ? name : absl::StrCat(key, ".", name), field,
                  texts);
    });
  } else if constexpr (std::is_enum_v<T>) {
    texts[key] = absl::StrCat(static_cast<int64_t>(value));
  } else if constexpr (std::is_same_v<T, double>) {
    texts[key] = absl::StrFormat("%a", value);  // Every bit.
  } else if constexpr (std::is_same_v<T, absl::Time>) {
    texts[key] = absl::FormatTime(value, absl::UTCTimeZone());
  } else {
    texts[key] = absl::StrCat(value);
  }
}

template <typename T>
FieldTexts Flatten(const T& value) {
  FieldTexts texts;
  FlattenInto("", value, texts);
  return texts;
}

// Sets every field to a value of its own that is not its default.
class Filler {
 public:
  template <typename T>
  void Fill(T& value) {
    if constexpr (slot::HasFieldTable<T>::value) {
      slot::ForEachField(value,
                         [this](const char*, auto& field) { Fill(field); });
    } else if constexpr (std::is_same_v<T, bool>) {
      value = !value;
    } else if constexpr (std::is_enum_v<T>) {
      value = static_cast<T>(2);  // Known in each; the default in none.
    } else if constexpr (std::is_same_v<T, double>) {
      value = ++count_ + 0.1;
    } else {
      value = ++count_;
    }
  }
  void Fill(slot::InitProfile& value) { value = slot::InitProfile::kUpstream; }
  void Fill(slot::Topology& value) { value = slot::Topology::kTransformer; }
  void Fill(std::string& value) { value = absl::StrCat("text ", ++count_); }
  void Fill(absl::Time& value) {
    value = absl::FromUnixNanos(1234567890123456789 + ++count_);
  }
  template <typename T>
  void Fill(std::optional<T>& value) {
    Fill(value.emplace());
  }
  template <typename T>
  void Fill(std::map<std::string, T>& value) {
    Fill(value[absl::StrCat("name ", ++count_)]);
  }
  void Fill(std::vector<std::pair<slot::SeedStage, absl::Time>>& value) {
    auto& [stage, time] = value.emplace_back();
    Fill(stage);
    Fill(time);
  }

 private:
  int64_t count_ = 1000;
};

// Every field away from its default, and sound as a whole.
inline slot::SlotRecord FullRecord() {
  slot::SlotRecord record;
  Filler().Fill(record);
  record.version = slot::kSlotRecordVersion;
  record.slot_id = "r3c4";
  slot::SeedRecord& seed = *record.seed;
  seed.generation = record.germinations - 1;
  seed.stage.stage = slot::SeedStage::kBlending;
  seed.stage.previous = slot::SeedStage::kTraining;
  seed.stage.history.emplace_back(slot::SeedStage::kBlending,
                                  absl::FromUnixNanos(-1));
  seed.alpha = {0.3, 0.2, 0.9, slot::AlphaMode::kUp, slot::AlphaCurve::kSigmoid,
                7.5, 9,   4};
  seed.alpha_target = 0.75;
  seed.metrics.current_alpha = 0.3;
  seed.algorithm = slot::AlphaAlgorithm::kGate;
  seed.blend_id = slot::BlendId::kGated;
  record.gate->algorithm_id = "gated";
  return record;
}

}  // namespace esper::testing
#endif  // ESPER_TESTS_CORE_SLOT_CHECKPOINT_TEXT_H_
