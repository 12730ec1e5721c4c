#ifndef ESPER_PROTO_CONFIG_TRAINING_CONFIG_H_
#define ESPER_PROTO_CONFIG_TRAINING_CONFIG_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "esper/v1/training_config.pb.h"
#include "proto/config/json_message.h"

// The configuration of a training run: layers that are merged, each over the
// ones before it, and checked as a whole. Thread-safe.
namespace esper::config {

// Where the layers come from, lowest first. Below them all lies the profile,
// which sets every field that the program does not leave to somebody else.
struct ConfigSources {
  // Given by flag. Empty: what the layers say, and "default" if they do not.
  // A layer that names another one is refused.
  std::string profile;
  std::string preset;  // One of PresetNames(); empty: none.
  // Proto text if the name ends in .textproto or .txtpb, JSON otherwise;
  // empty: none.
  std::string file;
  // Assignments "path=value", like "ppo.gamma=0.99", later ones over earlier.
  // The value is JSON, or else a text.
  std::vector<std::string> assignments;
};

// Merges, and checks every field's range (CheckFields) and their combination
// (CheckCombination). NOT_FOUND for a file that cannot be read;
// INVALID_ARGUMENT, naming source and field, for what is refused. The result,
// written as JSON and read back as a file, gives itself.
absl::StatusOr<v1::TrainingConfig> LoadConfig(const ConfigSources& sources);

// Settings that are each in range and cannot work together: INVALID_ARGUMENT
// naming the fields and what to change.
absl::Status CheckCombination(const v1::TrainingConfig& config);

// Episodes that an update needs: `min_episodes`, or what 0 stands for.
int MinEpisodes(const v1::RunConfig& run);

// Splits "a=1,b=[2,3]" at the commas that are in no brackets or quotes.
std::vector<std::string> SplitAssignments(const std::string& text);

// The JSON object of one assignment: "a.b=1" is {"a": {"b": 1}}.
// INVALID_ARGUMENT if it has no "=" or no path.
absl::StatusOr<Json> ParseAssignment(const std::string& text);

// Names of the presets, sorted, and the JSON text of one; NOT_FOUND with the
// nearest name.
std::vector<std::string> PresetNames();
absl::StatusOr<std::string> PresetText(const std::string& name);

}  // namespace esper::config
#endif  // ESPER_PROTO_CONFIG_TRAINING_CONFIG_H_
