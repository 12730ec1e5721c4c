#ifndef ESPER_CLIENT_TRAINER_TRAINER_FLAGS_H_
#define ESPER_CLIENT_TRAINER_TRAINER_FLAGS_H_

#include <string>

#include "proto/config/training_config.h"

namespace esper::client {

// The layers of the configuration that the command line names: --profile,
// --preset, --config (without it `otherwise`), --set, and the flags that are
// short for an assignment, which win over --set.
config::ConfigSources SourcesFromFlags(const std::string& otherwise = "");

}  // namespace esper::client
#endif  // ESPER_CLIENT_TRAINER_TRAINER_FLAGS_H_
