#ifndef ESPER_PROTO_CONFIG_CONFIG_SCHEMA_H_
#define ESPER_PROTO_CONFIG_CONFIG_SCHEMA_H_

#include "proto/config/json_message.h"

namespace esper::config {

// The JSON schema (draft 2020-12) of a TrainingConfig file: types, ranges,
// choices, the default profile's values, and the comments of the .proto as
// descriptions. Thread-safe.
Json TrainingConfigSchema();

}  // namespace esper::config
#endif  // ESPER_PROTO_CONFIG_CONFIG_SCHEMA_H_
