#include "proto/config/config_schema.h"

#include <limits>
#include <string>

#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "esper/v1/field_rules.pb.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/descriptor.pb.h"
#include "google/protobuf/duration.pb.h"
#include "proto/config/embedded.h"
#include "proto/config/field_rules.h"
#include "proto/config/training_config.h"

namespace esper::config {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::DescriptorPool;
using google::protobuf::FieldDescriptor;

// The descriptors with the comments, which compiled ones do not have.
const DescriptorPool& CommentedDescriptors() {
  static const DescriptorPool& pool = *[] {
    google::protobuf::FileDescriptorSet files;
    files.ParseFromString(EmbeddedDescriptors().at("descriptors"));
    auto* built = new DescriptorPool;
    for (const auto& file : files.file()) built->BuildFile(file);
    return built;
  }();
  return pool;
}

// Paragraph out of a comment's lines.
template <typename AnyDescriptor>
std::string CommentOf(const AnyDescriptor* descriptor) {
  google::protobuf::SourceLocation location;
  if (descriptor == nullptr || !descriptor->GetSourceLocation(&location)) {
    return "";
  }
  std::string text;
  for (absl::string_view line : absl::StrSplit(location.leading_comments, '\n',
                                               absl::SkipWhitespace())) {
    if (!text.empty()) text += ' ';
    text += std::string(absl::StripAsciiWhitespace(line));
  }
  return text;
}

std::string CommentOf(const FieldDescriptor& field) {
  return CommentOf(CommentedDescriptors().FindFieldByName(field.full_name()));
}

void AddRange(const FieldDescriptor& field, Json* schema) {
  const v1::FieldRule& rule = field.options().GetExtension(v1::rule);
  if (rule.has_at_least()) (*schema)["minimum"] = rule.at_least();
  if (rule.has_above()) (*schema)["exclusiveMinimum"] = rule.above();
  if (rule.has_at_most()) (*schema)["maximum"] = rule.at_most();
  if (rule.has_below()) (*schema)["exclusiveMaximum"] = rule.below();
}

Json NumberSchema(const FieldDescriptor& field) {
  Json schema = {{"type", "number"}};
  AddRange(field, &schema);
  if (!field.options().GetExtension(v1::rule).infinite()) return schema;
  return {{"anyOf", {schema, {{"const", "Infinity"}}}}};
}

Json ChoiceSchema(const google::protobuf::EnumDescriptor& type) {
  Json schema = {{"enum", Json::array()}};
  for (int i = 0; i < type.value_count(); ++i) {
    if (type.value(i)->number() == 0) continue;
    schema["enum"].push_back(ChoiceName(*type.value(i)));
  }
  return schema;
}

Json DurationSchema() {
  return {{"anyOf",
           {{{"type", "number"}, {"description", "Seconds."}},
            {{"type", "string"}, {"description", "Like \"90s\" or \"5m\"."}}}}};
}

Json MessageSchema(const Descriptor& type, const Json& defaults);

Json FieldSchema(const FieldDescriptor& field, const Json& defaults) {
  if (field.is_map()) {
    Json number = {{"type", "number"}};
    AddRange(field, &number);
    return {{"type", "object"}, {"additionalProperties", number}};
  }
  if (field.is_repeated()) {
    return {{"type", "array"}, {"items", {{"type", "string"}}}};
  }
  Json schema;
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return NumberSchema(field);
    case FieldDescriptor::CPPTYPE_BOOL:
      return {{"type", "boolean"}};
    case FieldDescriptor::CPPTYPE_STRING:
      return {{"type", "string"}};
    case FieldDescriptor::CPPTYPE_ENUM:
      return ChoiceSchema(*field.enum_type());
    case FieldDescriptor::CPPTYPE_MESSAGE:
      if (field.message_type() == google::protobuf::Duration::descriptor()) {
        return DurationSchema();
      }
      return MessageSchema(*field.message_type(), defaults);
    default:
      schema = {{"type", "integer"}};
      if (field.cpp_type() == FieldDescriptor::CPPTYPE_UINT64) {
        schema["minimum"] = 0;
        schema["maximum"] = std::numeric_limits<uint64_t>::max();
      }
      AddRange(field, &schema);
      return schema;
  }
}

Json MessageSchema(const Descriptor& type, const Json& defaults) {
  Json properties = Json::object();
  for (int i = 0; i < type.field_count(); ++i) {
    const FieldDescriptor& field = *type.field(i);
    const std::string& name = field.name();
    const Json value = defaults.is_object() && defaults.contains(name)
                           ? defaults[name]
                           : Json();
    Json schema = FieldSchema(field, value);
    if (const std::string comment = CommentOf(field); !comment.empty()) {
      schema["description"] = comment;
    }
    const bool section =
        field.message_type() != nullptr && schema.contains("properties");
    if (!section && !value.is_null()) schema["default"] = value;
    properties[name] = schema;
  }
  return {{"type", "object"},
          {"properties", properties},
          {"additionalProperties", false}};
}

}  // namespace

Json TrainingConfigSchema() {
  const Descriptor& type = *v1::TrainingConfig::descriptor();
  const auto defaults = LoadConfig({});
  Json schema = {
      {"$schema", "https://json-schema.org/draft/2020-12/schema"},
      {"title", "Configuration of a training run of Esper Serve"},
      {"description", CommentOf(CommentedDescriptors().FindMessageTypeByName(
                          type.full_name()))}};
  schema.update(
      MessageSchema(type, defaults.ok() ? ToJson(*defaults) : Json()));
  schema["properties"]["$schema"] = {{"type", "string"}};
  return schema;
}

}  // namespace esper::config
