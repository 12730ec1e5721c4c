#include "proto/config/field_rules.h"

#include <cmath>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "core/error.h"
#include "esper/v1/field_rules.pb.h"
#include "google/protobuf/duration.pb.h"

namespace esper::config {
namespace {

using google::protobuf::Duration;
using google::protobuf::EnumDescriptor;
using google::protobuf::EnumValueDescriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

bool Allows(const v1::FieldRule& rule, double value) {
  if (std::isnan(value)) return false;
  if (std::isinf(value) && !rule.infinite()) return false;
  return !(rule.has_at_least() && value < rule.at_least()) &&
         !(rule.has_above() && value <= rule.above()) &&
         !(rule.has_at_most() && value > rule.at_most()) &&
         !(rule.has_below() && value >= rule.below());
}

absl::Status Invalid(const std::string& path, const std::string& value,
                     const std::string& what, const std::string& hint) {
  ErrorDetail detail;
  detail.reason = "MALFORMED_REQUEST";
  detail.field = path;
  detail.hint = hint;
  return MakeStatus(absl::StatusCode::kInvalidArgument, detail,
                    absl::StrCat(path, " = ", value, " ", what, "."));
}

absl::Status CheckNumber(const FieldDescriptor& field, const std::string& path,
                         double value) {
  if (Allows(field.options().GetExtension(v1::rule), value)) {
    return absl::OkStatus();
  }
  const std::string range = RangeOf(field);
  return Invalid(
      path, absl::StrCat(value),
      range.empty() ? "is not finite" : absl::StrCat("is not in ", range),
      "Leave it unset for its default.");
}

absl::Status CheckChoice(const FieldDescriptor& field, const std::string& path,
                         int value) {
  const EnumDescriptor& type = *field.enum_type();
  const EnumValueDescriptor* known = type.FindValueByNumber(value);
  if (known != nullptr && value != 0) return absl::OkStatus();
  return Invalid(path, absl::StrCat(value),
                 absl::StrCat("is none of ", Choices(type)),
                 "Leave it unset for its default.");
}

// A field that is set, and neither map nor list; `message` holds it.
absl::Status CheckSingle(const Message& message, const FieldDescriptor& field,
                         const std::string& path) {
  const Reflection& reflection = *message.GetReflection();
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return CheckNumber(field, path, reflection.GetDouble(message, &field));
    case FieldDescriptor::CPPTYPE_FLOAT:
      return CheckNumber(field, path, reflection.GetFloat(message, &field));
    case FieldDescriptor::CPPTYPE_INT32:
      return CheckNumber(field, path, reflection.GetInt32(message, &field));
    case FieldDescriptor::CPPTYPE_INT64:
      return CheckNumber(
          field, path,
          static_cast<double>(reflection.GetInt64(message, &field)));
    case FieldDescriptor::CPPTYPE_ENUM:
      return CheckChoice(field, path, reflection.GetEnumValue(message, &field));
    case FieldDescriptor::CPPTYPE_MESSAGE: {
      const Message& inner = reflection.GetMessage(message, &field);
      if (const auto* time = dynamic_cast<const Duration*>(&inner)) {
        return CheckNumber(
            field, path,
            static_cast<double>(time->seconds()) + 1e-9 * time->nanos());
      }
      return CheckFields(inner, path);
    }
    default:  // Booleans, strings, seeds: anything goes.
      return absl::OkStatus();
  }
}

// Every value of a map from names to numbers.
absl::Status CheckMap(const Message& message, const FieldDescriptor& field,
                      const std::string& path) {
  const FieldDescriptor* key = field.message_type()->map_key();
  const FieldDescriptor* value = field.message_type()->map_value();
  if (key->cpp_type() != FieldDescriptor::CPPTYPE_STRING ||
      value->cpp_type() != FieldDescriptor::CPPTYPE_DOUBLE) {
    return absl::OkStatus();
  }
  const Reflection& outer = *message.GetReflection();
  for (int i = 0; i < outer.FieldSize(message, &field); ++i) {
    const Message& entry = outer.GetRepeatedMessage(message, &field, i);
    const Reflection& reflection = *entry.GetReflection();
    absl::Status status = CheckNumber(
        field, absl::StrCat(path, ".", reflection.GetString(entry, key)),
        reflection.GetDouble(entry, value));
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckFields(const Message& message, const std::string& path) {
  std::vector<const FieldDescriptor*> fields;
  message.GetReflection()->ListFields(message, &fields);
  for (const FieldDescriptor* field : fields) {
    const std::string name =
        path.empty() ? field->name() : absl::StrCat(path, ".", field->name());
    absl::Status status;
    if (field->is_map()) {
      status = CheckMap(message, *field, name);
    } else if (!field->is_repeated()) {
      status = CheckSingle(message, *field, name);
    }
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

std::string RangeOf(const FieldDescriptor& field) {
  if (!field.options().HasExtension(v1::rule)) return "";
  const v1::FieldRule& rule = field.options().GetExtension(v1::rule);
  const std::string low = rule.has_at_least()
                              ? absl::StrCat("[", rule.at_least())
                          : rule.has_above() ? absl::StrCat("(", rule.above())
                                             : "(-inf";
  const std::string high =
      rule.has_at_most() ? absl::StrCat(rule.at_most(), "]")
      : rule.has_below() ? absl::StrCat(rule.below(), ")")
                         : (rule.infinite() ? "inf]" : "inf)");
  return absl::StrCat(low, ", ", high);
}

std::string ChoiceName(const EnumValueDescriptor& value) {
  // RewardMode's values begin with REWARD_MODE_.
  std::string prefix;
  for (const char c : value.type()->name()) {
    if (absl::ascii_isupper(c) && !prefix.empty()) prefix += '_';
    prefix += absl::ascii_toupper(c);
  }
  prefix += '_';
  return absl::AsciiStrToLower(absl::StripPrefix(value.name(), prefix));
}

std::string Choices(const EnumDescriptor& type) {
  std::string choices;
  for (int i = 0; i < type.value_count(); ++i) {
    if (type.value(i)->number() == 0) continue;
    absl::StrAppend(&choices, choices.empty() ? "" : ", ",
                    ChoiceName(*type.value(i)));
  }
  return choices;
}

}  // namespace esper::config
