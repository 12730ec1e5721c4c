#ifndef ESPER_PROTO_CONFIG_EMBEDDED_H_
#define ESPER_PROTO_CONFIG_EMBEDDED_H_

#include <map>
#include <string>

// Files that were built into the program, by name without extension.
// Thread-safe.
namespace esper::config {

// proto/config/presets/*.json.
const std::map<std::string, std::string>& EmbeddedPresets();
// proto/config/profiles/*.json.
const std::map<std::string, std::string>& EmbeddedProfiles();
// "descriptors": a serialized FileDescriptorSet of training_config.proto and
// what it imports, with comments.
const std::map<std::string, std::string>& EmbeddedDescriptors();

}  // namespace esper::config
#endif  // ESPER_PROTO_CONFIG_EMBEDDED_H_
