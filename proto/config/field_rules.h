#ifndef ESPER_PROTO_CONFIG_FIELD_RULES_H_
#define ESPER_PROTO_CONFIG_FIELD_RULES_H_

#include <string>

#include "absl/status/status.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/message.h"

// The rules that stand beside the fields of our messages
// (esper/v1/field_rules.proto), applied to any of them. Thread-safe.
namespace esper::config {

// Checks every number that is set, in this message and those in it: rules,
// and that it is finite. Enums must be known and not UNSPECIFIED.
// INVALID_ARGUMENT (MALFORMED_REQUEST) names the field as `path` says, its
// value and the allowed range: "ppo.gamma = 1.5 is not in (0, 1].".
absl::Status CheckFields(const google::protobuf::Message& message,
                         const std::string& path);

// The range of a number, like "(0, 1]" or "[0, inf)"; empty without a rule.
std::string RangeOf(const google::protobuf::FieldDescriptor& field);

// An enum's value as users write it: PROFILE_UPSTREAM is "upstream".
std::string ChoiceName(const google::protobuf::EnumValueDescriptor& value);
// All of them but UNSPECIFIED: "default, upstream".
std::string Choices(const google::protobuf::EnumDescriptor& type);

}  // namespace esper::config
#endif  // ESPER_PROTO_CONFIG_FIELD_RULES_H_
