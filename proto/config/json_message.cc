#include "proto/config/json_message.h"

#include <cmath>
#include <cstdint>
#include <limits>
#include <map>
#include <memory>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "core/nearest_name.h"
#include "google/protobuf/duration.pb.h"
#include "google/protobuf/io/tokenizer.h"
#include "google/protobuf/text_format.h"
#include "proto/codec/duration.h"
#include "proto/config/field_rules.h"

namespace esper::config {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::Duration;
using google::protobuf::EnumValueDescriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

constexpr char kInfinity[] = "Infinity";

absl::Status Invalid(const std::string& path, const std::string& what) {
  return absl::InvalidArgumentError(absl::StrCat(path, " ", what, "."));
}

absl::Status MustBe(const std::string& path, const std::string& what,
                    const Json& value) {
  return Invalid(
      path,
      absl::StrCat("must be ", what, ", got ",
                   value.dump(-1, ' ', false, Json::error_handler_t::replace)));
}

std::string Join(const std::string& path, const std::string& name) {
  return path.empty() ? name : absl::StrCat(path, ".", name);
}

bool IsDuration(const FieldDescriptor& field) {
  return field.message_type() == Duration::descriptor();
}

std::vector<std::string> FieldNames(const Descriptor& type) {
  std::vector<std::string> names;
  for (int i = 0; i < type.field_count(); ++i) {
    names.push_back(type.field(i)->name());
  }
  return names;
}

// Where in the messages below `type` a field has this name; empty: nowhere.
std::string FindBelow(const std::string& name, const Descriptor& type,
                      const std::string& path) {
  if (type.FindFieldByName(name) != nullptr) return Join(path, name);
  for (int i = 0; i < type.field_count(); ++i) {
    const FieldDescriptor& field = *type.field(i);
    if (field.message_type() == nullptr || field.is_map()) continue;
    const std::string found =
        FindBelow(name, *field.message_type(), Join(path, field.name()));
    if (!found.empty()) return found;
  }
  return "";
}

absl::StatusOr<double> ReadDouble(const Json& json, const std::string& path) {
  if (json.is_number()) return json.get<double>();
  if (json == kInfinity) return std::numeric_limits<double>::infinity();
  return MustBe(path, "a number", json);
}

template <typename Integer>
absl::StatusOr<Integer> ReadInteger(const Json& json, const std::string& path) {
  using Limits = std::numeric_limits<Integer>;
  const absl::Status refusal =
      MustBe(path,
             absl::StrCat("a whole number in [", Limits::min(), ", ",
                          Limits::max(), "]"),
             json);
  if (!json.is_number_integer()) return refusal;
  if (json.is_number_unsigned() || json.get<int64_t>() >= 0) {
    const uint64_t value = json.get<uint64_t>();
    if (value > static_cast<uint64_t>(Limits::max())) return refusal;
    return static_cast<Integer>(value);
  }
  if (!Limits::is_signed) return refusal;
  const int64_t value = json.get<int64_t>();
  if (value < static_cast<int64_t>(Limits::min())) return refusal;
  return static_cast<Integer>(value);
}

absl::StatusOr<std::string> ReadString(const Json& json,
                                       const std::string& path) {
  if (json.is_string()) return json.get<std::string>();
  return MustBe(path, "a text", json);
}

absl::Status MergeDuration(const Json& json, const std::string& path,
                           Duration* message) {
  absl::Duration duration = absl::InfiniteDuration();
  if (json.is_number()) {
    duration = absl::Seconds(json.get<double>());
  } else if (!json.is_string() ||
             !absl::ParseDuration(json.get<std::string>(), &duration)) {
    duration = absl::InfiniteDuration();
  }
  if (duration == absl::InfiniteDuration() ||
      duration == -absl::InfiniteDuration()) {
    return MustBe(path, "a duration like \"90s\" or \"5m\"", json);
  }
  codec::SetDuration(duration, message);
  return absl::OkStatus();
}

absl::Status MergeChoice(const Json& json, const FieldDescriptor& field,
                         const std::string& path, Message* message) {
  std::vector<std::string> known;
  for (int i = 0; i < field.enum_type()->value_count(); ++i) {
    const EnumValueDescriptor& value = *field.enum_type()->value(i);
    if (value.number() == 0) continue;
    known.push_back(ChoiceName(value));
    if (json != known.back()) continue;
    message->GetReflection()->SetEnum(message, &field, &value);
    return absl::OkStatus();
  }
  absl::Status refusal =
      MustBe(path, absl::StrCat("one of: ", Choices(*field.enum_type())), json);
  if (!json.is_string()) return refusal;
  return absl::InvalidArgumentError(
      absl::StrCat(refusal.message(), " The nearest is ",
                   NearestName(json.get<std::string>(), known), "."));
}

// Sets fields from JSON, and knows the type that paths begin at.
class Merger {
 public:
  explicit Merger(const Descriptor& root) : root_(root) {}

  absl::Status Merge(const Json& object, const std::string& path,
                     Message* message) {
    if (!object.is_object()) {
      return MustBe(path.empty() ? "the configuration" : path, "an object",
                    object);
    }
    const Descriptor& type = *message->GetDescriptor();
    for (const auto& [name, value] : object.items()) {
      if (path.empty() && name == "$schema") continue;  // For editors.
      const FieldDescriptor* field = type.FindFieldByName(name);
      if (field == nullptr) {
        return Invalid(Join(path, name),
                       absl::StrCat("is unknown; the nearest is ",
                                    NearestField(name, type, path, root_)));
      }
      absl::Status status =
          MergeField(value, *field, Join(path, name), message);
      if (!status.ok()) return status;
    }
    return absl::OkStatus();
  }

 private:
  absl::Status MergeField(const Json& json, const FieldDescriptor& field,
                          const std::string& path, Message* message) {
    if (json.is_null()) {
      return Invalid(path, "is null; give a value, or leave it out");
    }
    if (field.is_map()) return MergeMap(json, field, path, message);
    if (field.is_repeated()) return MergeList(json, field, path, message);
    const Reflection& reflection = *message->GetReflection();
    const auto set = [&](auto value, auto setter) {
      if (!value.ok()) return value.status();
      (reflection.*setter)(message, &field, *std::move(value));
      return absl::OkStatus();
    };
    switch (field.cpp_type()) {
      case FieldDescriptor::CPPTYPE_DOUBLE:
        return set(ReadDouble(json, path), &Reflection::SetDouble);
      case FieldDescriptor::CPPTYPE_INT32:
        return set(ReadInteger<int32_t>(json, path), &Reflection::SetInt32);
      case FieldDescriptor::CPPTYPE_INT64:
        return set(ReadInteger<int64_t>(json, path), &Reflection::SetInt64);
      case FieldDescriptor::CPPTYPE_UINT64:
        return set(ReadInteger<uint64_t>(json, path), &Reflection::SetUInt64);
      case FieldDescriptor::CPPTYPE_STRING:
        return set(ReadString(json, path), &Reflection::SetString);
      case FieldDescriptor::CPPTYPE_BOOL:
        if (!json.is_boolean()) return MustBe(path, "true or false", json);
        reflection.SetBool(message, &field, json.get<bool>());
        return absl::OkStatus();
      case FieldDescriptor::CPPTYPE_ENUM:
        return MergeChoice(json, field, path, message);
      case FieldDescriptor::CPPTYPE_MESSAGE: {
        Message* inner = reflection.MutableMessage(message, &field);
        if (!IsDuration(field)) return Merge(json, path, inner);
        return MergeDuration(json, path, dynamic_cast<Duration*>(inner));
      }
      default:
        return absl::InternalError(absl::StrCat(path, " has no JSON form."));
    }
  }

  // From names to numbers: entries that are there already stay.
  absl::Status MergeMap(const Json& json, const FieldDescriptor& field,
                        const std::string& path, Message* message) {
    if (!json.is_object()) {
      return MustBe(path, "an object of names and numbers", json);
    }
    const Reflection& reflection = *message->GetReflection();
    const FieldDescriptor* key = field.message_type()->map_key();
    const FieldDescriptor* value = field.message_type()->map_value();
    for (const auto& [name, item] : json.items()) {
      auto number = ReadDouble(item, Join(path, name));
      if (!number.ok()) return number.status();
      // As on the wire, the last entry of a name counts.
      Message* entry = reflection.AddMessage(message, &field);
      entry->GetReflection()->SetString(entry, key, name);
      entry->GetReflection()->SetDouble(entry, value, *number);
    }
    return absl::OkStatus();
  }

  // Lists hold texts.
  absl::Status MergeList(const Json& json, const FieldDescriptor& field,
                         const std::string& path, Message* message) {
    if (!json.is_array()) return MustBe(path, "a list of texts", json);
    const Reflection& reflection = *message->GetReflection();
    reflection.ClearField(message, &field);
    for (size_t i = 0; i < json.size(); ++i) {
      auto text = ReadString(json[i], absl::StrCat(path, "[", i, "]"));
      if (!text.ok()) return text.status();
      reflection.AddString(message, &field, *std::move(text));
    }
    return absl::OkStatus();
  }

  const Descriptor& root_;
};

Json NumberToJson(double value) {
  return std::isinf(value) && value > 0 ? Json(kInfinity) : Json(value);
}

Json SingleToJson(const Message& message, const FieldDescriptor& field) {
  const Reflection& reflection = *message.GetReflection();
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return NumberToJson(reflection.GetDouble(message, &field));
    case FieldDescriptor::CPPTYPE_INT32:
      return reflection.GetInt32(message, &field);
    case FieldDescriptor::CPPTYPE_INT64:
      return reflection.GetInt64(message, &field);
    case FieldDescriptor::CPPTYPE_UINT64:
      return reflection.GetUInt64(message, &field);
    case FieldDescriptor::CPPTYPE_BOOL:
      return reflection.GetBool(message, &field);
    case FieldDescriptor::CPPTYPE_STRING:
      return reflection.GetString(message, &field);
    case FieldDescriptor::CPPTYPE_ENUM:
      return ChoiceName(*reflection.GetEnum(message, &field));
    case FieldDescriptor::CPPTYPE_MESSAGE: {
      const Message& inner = reflection.GetMessage(message, &field);
      if (!IsDuration(field)) return ToJson(inner);
      const auto& time = dynamic_cast<const Duration&>(inner);
      return absl::FormatDuration(absl::Seconds(time.seconds()) +
                                  absl::Nanoseconds(time.nanos()));
    }
    default:
      return Json();
  }
}

// "named \"x\"" -> x.
std::string Between(const std::string& text, const std::string& before,
                    const std::string& after) {
  const size_t start = text.find(before);
  if (start == std::string::npos) return "";
  const size_t from = start + before.size();
  const size_t end = text.find(after, from);
  return end == std::string::npos ? "" : text.substr(from, end - from);
}

// Keeps the first error, and adds the nearest name.
class FirstError : public google::protobuf::io::ErrorCollector {
 public:
  explicit FirstError(const Descriptor& root) : root_(root) {}

  void AddError(int line, google::protobuf::io::ColumnNumber column,
                const std::string& message) override {
    if (!text_.empty()) return;
    text_ =
        absl::StrCat("line ", line + 1, ", column ", column + 1, ": ", message);
    const std::string name = Between(message, "has no field named \"", "\"");
    const Descriptor* type = root_.file()->pool()->FindMessageTypeByName(
        Between(message, "Message type \"", "\""));
    if (name.empty() || type == nullptr) return;
    absl::StrAppend(&text_, " The nearest is ",
                    NearestField(name, *type, "", root_), ".");
  }
  const std::string& text() const { return text_; }

 private:
  const Descriptor& root_;
  std::string text_;
};

}  // namespace

absl::StatusOr<Json> ParseJson(const std::string& text) {
  // The names that stand in each open object.
  std::vector<std::set<std::string>> open;
  std::string twice;
  const auto watch = [&](int, Json::parse_event_t event, Json& parsed) {
    if (event == Json::parse_event_t::object_start) open.emplace_back();
    if (event == Json::parse_event_t::object_end) open.pop_back();
    if (event == Json::parse_event_t::key && twice.empty() &&
        !open.back().insert(parsed.get<std::string>()).second) {
      twice = parsed.get<std::string>();
    }
    return true;
  };
  Json json;
  try {
    json = Json::parse(text, watch, /*allow_exceptions=*/true,
                       /*ignore_comments=*/true);
  } catch (const Json::exception& error) {
    return absl::InvalidArgumentError(error.what());
  }
  if (!twice.empty()) return Invalid(twice, "stands twice in one object");
  if (!json.is_object()) {
    return MustBe("the configuration", "an object", json);
  }
  return json;
}

absl::StatusOr<Json> ParseProtoText(const std::string& text,
                                    const Message& type) {
  FirstError error(*type.GetDescriptor());
  google::protobuf::TextFormat::Parser parser;
  parser.RecordErrorsTo(&error);
  const std::unique_ptr<Message> message(type.New());
  if (!parser.ParseFromString(text, message.get())) {
    return absl::InvalidArgumentError(error.text());
  }
  return ToJson(*message);
}

absl::Status MergeJson(const Json& object, Message* message) {
  return Merger(*message->GetDescriptor()).Merge(object, "", message);
}

Json ToJson(const Message& message) {
  Json json = Json::object();
  const Reflection& reflection = *message.GetReflection();
  std::vector<const FieldDescriptor*> fields;
  reflection.ListFields(message, &fields);
  for (const FieldDescriptor* field : fields) {
    Json& value = json[field->name()];
    if (!field->is_repeated()) {
      value = SingleToJson(message, *field);
      continue;
    }
    // By name, so that equal messages have equal texts.
    std::map<std::string, double> entries;
    for (int i = 0; i < reflection.FieldSize(message, field); ++i) {
      if (!field->is_map()) {
        value.push_back(reflection.GetRepeatedString(message, field, i));
        continue;
      }
      const Message& entry = reflection.GetRepeatedMessage(message, field, i);
      entries[entry.GetReflection()->GetString(
          entry, field->message_type()->map_key())] =
          entry.GetReflection()->GetDouble(entry,
                                           field->message_type()->map_value());
    }
    for (const auto& [name, number] : entries) {
      value[name] = NumberToJson(number);
    }
  }
  return json;
}

std::string NearestField(const std::string& name, const Descriptor& type,
                         const std::string& path, const Descriptor& root) {
  const std::string elsewhere = FindBelow(name, root, "");
  if (!elsewhere.empty()) return elsewhere;
  return Join(path, NearestName(name, FieldNames(type)));
}

}  // namespace esper::config
