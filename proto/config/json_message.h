#ifndef ESPER_PROTO_CONFIG_JSON_MESSAGE_H_
#define ESPER_PROTO_CONFIG_JSON_MESSAGE_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/message.h"
#include "nlohmann/json.hpp"

// Messages as JSON that people write: field names as in the .proto, enums by
// their short names ("upstream"), durations like "5m" or a number of seconds,
// 64-bit integers as numbers, infinity as "Infinity". Thread-safe.
namespace esper::config {

using Json = nlohmann::ordered_json;

// Parses a JSON object, in which // and /* */ comments are allowed.
// INVALID_ARGUMENT with line and column, or naming a key that stands twice.
absl::StatusOr<Json> ParseJson(const std::string& text);

// Parses proto text of the message type. INVALID_ARGUMENT with line and column,
// and with the nearest name for an unknown field.
absl::StatusOr<Json> ParseProtoText(const std::string& text,
                                    const google::protobuf::Message& type);

// Sets the fields that `object` names, and leaves the others: objects are
// merged, lists replaced. INVALID_ARGUMENT names the whole path: for an unknown
// field with the nearest known one, for a value of the wrong type with what it
// must be. The message is then partly changed.
absl::Status MergeJson(const Json& object, google::protobuf::Message* message);

// Every field that is set, in the order of their numbers.
Json ToJson(const google::protobuf::Message& message);

// The name that takes the fewest insertions, deletions and replacements of
// characters to get to from `name`: a field of `type`, or, if none is near, one
// of that name in a message inside `root`, with its path.
std::string NearestField(const std::string& name,
                         const google::protobuf::Descriptor& type,
                         const std::string& path,
                         const google::protobuf::Descriptor& root);

}  // namespace esper::config
#endif  // ESPER_PROTO_CONFIG_JSON_MESSAGE_H_
