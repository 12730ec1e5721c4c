#include "core/slot/slot_checkpoint_codec.h"

#include <cmath>
#include <limits>
#include <set>
#include <type_traits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/error.h"
#include "core/slot/slot_checkpoint_fields.h"
#include "nlohmann/json.hpp"

namespace esper::slot {
namespace {

using Json = nlohmann::ordered_json;

constexpr char kMetadataKey[] = "esper.slot";

absl::Status Corrupt(const std::string& key, const std::string& what) {
  ErrorDetail detail;
  detail.reason = "CORRUPT_CHECKPOINT";
  detail.field = key;
  detail.hint = "Restore the checkpoint from a good copy.";
  return MakeStatus(
      absl::StatusCode::kDataLoss, detail,
      absl::StrCat("Slot checkpoint, ", key.empty() ? "as a whole" : key, ": ",
                   what, "."));
}

std::string Join(const std::string& path, const std::string& key) {
  return path.empty() ? key : absl::StrCat(path, ".", key);
}

// Writing.

struct Writer {
  std::string not_finite;  // Key of the first such number.

  Json Write(const std::string&, bool value) { return value; }
  Json Write(const std::string&, int64_t value) { return value; }
  Json Write(const std::string&, uint64_t value) { return value; }
  Json Write(const std::string& key, double value) {
    if (!std::isfinite(value) && not_finite.empty()) not_finite = key;
    return value;
  }
  Json Write(const std::string&, const std::string& value) { return value; }
  Json Write(const std::string&, SeedStage value) {
    return static_cast<int64_t>(value);
  }
  Json Write(const std::string&, AlphaMode value) {
    return static_cast<int64_t>(value);
  }
  Json Write(const std::string&, AlphaCurve value) {
    return static_cast<int64_t>(value);
  }
  Json Write(const std::string&, AlphaAlgorithm value) {
    return static_cast<int64_t>(value);
  }
  Json Write(const std::string&, Topology value) { return TopologyName(value); }
  Json Write(const std::string&, BlendId value) { return BlendIdName(value); }
  Json Write(const std::string&, InitProfile value) {
    return value == InitProfile::kLive ? "live" : "upstream";
  }
  Json Write(const std::string&, absl::Time value) {
    return absl::FormatTime(absl::RFC3339_full, value, absl::UTCTimeZone());
  }
  template <typename T>
  Json Write(const std::string& key, const std::optional<T>& value) {
    return value ? Write(key, *value) : Json(nullptr);
  }
  template <typename T>
  Json Write(const std::string& key, const std::map<std::string, T>& value) {
    Json json = Json::object();
    for (const auto& [name, entry] : value) {
      json[name] = Write(Join(key, name), entry);
    }
    return json;
  }
  Json Write(const std::string& key,
             const std::vector<std::pair<SeedStage, absl::Time>>& value) {
    Json json = Json::array();
    for (const auto& [stage, time] : value) {
      json.push_back({Write(key, stage), Write(key, time)});
    }
    return json;
  }
  template <typename T>
  std::enable_if_t<HasFieldTable<T>::value, Json> Write(const std::string& key,
                                                        const T& value) {
    Json json = Json::object();
    ForEachField(value, [&](const char* name, const auto& field) {
      json[name] = Write(Join(key, name), field);
    });
    return json;
  }
};

// Reading. The first error stays.

struct Reader {
  absl::Status status;

  void Fail(const std::string& key, const std::string& what) {
    if (status.ok()) status = Corrupt(key, what);
  }
  template <typename T>
  void Take(const std::string& key, absl::StatusOr<T> parsed, T& value) {
    if (parsed.ok()) {
      value = *std::move(parsed);
    } else {
      Fail(key, std::string(parsed.status().message()));
    }
  }

  void Read(const std::string& key, const Json& json, bool& value) {
    if (!json.is_boolean()) return Fail(key, "not a truth value");
    value = json.get<bool>();
  }
  void Read(const std::string& key, const Json& json, int64_t& value) {
    if (!json.is_number_integer() ||
        (json.is_number_unsigned() &&
         json.get<uint64_t>() >
             uint64_t{std::numeric_limits<int64_t>::max()})) {
      return Fail(key, "not a 64-bit integer");
    }
    value = json.get<int64_t>();
  }
  void Read(const std::string& key, const Json& json, uint64_t& value) {
    if (!json.is_number_unsigned()) {
      return Fail(key, "not a 64-bit integer from 0");
    }
    value = json.get<uint64_t>();
  }
  void Read(const std::string& key, const Json& json, double& value) {
    if (!json.is_number()) return Fail(key, "not a number");
    value = json.get<double>();
  }
  void Read(const std::string& key, const Json& json, std::string& value) {
    if (!json.is_string()) return Fail(key, "not a text");
    value = json.get<std::string>();
  }
  template <typename Enum, typename FromNumber>
  void ReadNumbered(const std::string& key, const Json& json, Enum& value,
                    FromNumber from_number) {
    int64_t number = 0;
    Read(key, json, number);
    if (status.ok()) Take<Enum>(key, from_number(number), value);
  }
  void Read(const std::string& key, const Json& json, SeedStage& value) {
    ReadNumbered(key, json, value, StageFromNumber);
  }
  void Read(const std::string& key, const Json& json, AlphaMode& value) {
    ReadNumbered(key, json, value, AlphaModeFromNumber);
  }
  void Read(const std::string& key, const Json& json, AlphaCurve& value) {
    ReadNumbered(key, json, value, AlphaCurveFromNumber);
  }
  void Read(const std::string& key, const Json& json, AlphaAlgorithm& value) {
    ReadNumbered(key, json, value, AlphaAlgorithmFromNumber);
  }
  void Read(const std::string& key, const Json& json, Topology& value) {
    std::string name;
    Read(key, json, name);
    if (status.ok()) Take(key, ParseTopology(name), value);
  }
  void Read(const std::string& key, const Json& json, BlendId& value) {
    std::string name;
    Read(key, json, name);
    if (status.ok()) Take(key, ParseBlendId(name), value);
  }
  void Read(const std::string& key, const Json& json, InitProfile& value) {
    std::string name;
    Read(key, json, name);
    if (name == "live") {
      value = InitProfile::kLive;
    } else if (name == "upstream") {
      value = InitProfile::kUpstream;
    } else {
      Fail(key, absl::StrCat("no initialisation is called \"", name, "\""));
    }
  }
  void Read(const std::string& key, const Json& json, absl::Time& value) {
    std::string text, error;
    Read(key, json, text);
    if (status.ok() &&
        !absl::ParseTime(absl::RFC3339_full, text, &value, &error)) {
      Fail(key, absl::StrCat("not a time: ", error));
    }
  }
  template <typename T>
  void Read(const std::string& key, const Json& json, std::optional<T>& value) {
    if (json.is_null()) {
      value = std::nullopt;
    } else {
      Read(key, json, value.emplace());
    }
  }
  template <typename T>
  void Read(const std::string& key, const Json& json,
            std::map<std::string, T>& value) {
    if (!json.is_object()) return Fail(key, "not an object");
    value.clear();
    for (const auto& [name, entry] : json.items()) {
      Read(Join(key, name), entry, value[name]);
    }
  }
  void Read(const std::string& key, const Json& json,
            std::vector<std::pair<SeedStage, absl::Time>>& value) {
    if (!json.is_array()) return Fail(key, "not a list");
    value.clear();
    for (const Json& entry : json) {
      if (!entry.is_array() || entry.size() != 2) {
        return Fail(key, "an entry is not a stage with its time");
      }
      auto& [stage, time] = value.emplace_back();
      Read(key, entry[0], stage);
      Read(key, entry[1], time);
    }
  }
  template <typename T>
  std::enable_if_t<HasFieldTable<T>::value> Read(const std::string& key,
                                                 const Json& json, T& value) {
    if (!json.is_object()) return Fail(key, "not an object");
    std::set<std::string> known;
    ForEachField(value, [&](const char* name, auto& field) {
      known.insert(name);
      const auto entry = json.find(name);
      if (entry == json.end()) return Fail(Join(key, name), "missing");
      Read(Join(key, name), *entry, field);
    });
    for (const auto& [name, entry] : json.items()) {
      if (known.count(name) == 0) Fail(Join(key, name), "unknown key");
    }
  }
};

}  // namespace

absl::StatusOr<std::string> EncodeSlotRecord(const SlotRecord& record) {
  Writer writer;
  const Json json = writer.Write("", record);
  if (!writer.not_finite.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "Slot ", record.slot_id, " cannot be saved: ", writer.not_finite,
        " is not finite."));
  }
  try {
    return json.dump();
  } catch (const Json::type_error&) {
    return absl::InvalidArgumentError(absl::StrCat(
        "Slot ", record.slot_id, " cannot be saved: a text is not UTF-8."));
  }
}

absl::StatusOr<SlotRecord> DecodeSlotRecord(const std::string& text) {
  const Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (json.is_discarded()) return Corrupt("", "not JSON");
  // Before anything else: another version may have other keys.
  if (!json.is_object() || !json.contains("version")) {
    return Corrupt("version", "missing");
  }
  if (json["version"] != kSlotRecordVersion) {
    return Corrupt("version", absl::StrCat("must be ", kSlotRecordVersion,
                                           ", is ", json["version"].dump()));
  }
  Reader reader;
  SlotRecord record;
  reader.Read("", json, record);
  if (!reader.status.ok()) return reader.status;
  if (absl::Status status = CheckSlotRecord(record); !status.ok()) {
    return status;
  }
  return record;
}

absl::StatusOr<std::string> EncodeSlotCheckpoint(
    const SlotCheckpoint& checkpoint) {
  const auto record = EncodeSlotRecord(checkpoint.record);
  if (!record.ok()) return record.status();
  return tensor::SerializeSafetensors(checkpoint.tensors,
                                      {{kMetadataKey, *record}});
}

absl::StatusOr<SlotCheckpoint> DecodeSlotCheckpoint(const std::string& bytes,
                                                    const std::string& source) {
  auto file = tensor::ParseSafetensors(bytes, source);
  if (!file.ok()) return file.status();
  const std::string* text = file->FindMetadata(kMetadataKey);
  if (text == nullptr) {
    return Corrupt(kMetadataKey, absl::StrCat("missing in ", source));
  }
  auto record = DecodeSlotRecord(*text);
  if (!record.ok()) return record.status();
  return SlotCheckpoint{*std::move(record), std::move(file->tensors)};
}

}  // namespace esper::slot
