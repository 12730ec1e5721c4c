#include "server/learner_checkpoint.h"

#include <exception>
#include <map>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "core/sha256.h"
#include "core/policy/policy_io.h"
#include "core/tensor/safetensors.h"
#include "nlohmann/json.hpp"
#include "server/refusal.h"

namespace esper::server {
namespace {

using nlohmann::json;

constexpr char kLearnerFile[] = "learner.safetensors";
constexpr char kPolicyFile[] = "policy.safetensors";
constexpr char kStateKey[] = "learner_state";  // Metadata of the former.
// Metadata of the latter; JSON, the members of ppo::Moments.
constexpr char kObservations[] = "observation_normalizer";
constexpr char kValues[] = "value_normalizer";
constexpr char kRewards[] = "reward_normalizer";

absl::Status Corrupt(const std::string& file, const std::string& why) {
  return Refuse("CORRUPT_CHECKPOINT", file,
                absl::StrCat("Checkpoint file ", file, " ", why, "."),
                "Restore another checkpoint.");
}

absl::StatusOr<json> ParseState(const ppo::LearnerState& state) {
  json text = json::parse(state.json, nullptr, /*allow_exceptions=*/false);
  if (!text.is_object()) {
    return Corrupt(kLearnerFile, "has a learner state that does not parse");
  }
  return text;
}

// The published weights, which are the training weights unless those have moved
// since. Aliases.
tensor::NamedTensors PublishedWeights(const ppo::LearnerState& state) {
  for (const char* prefix : {"published.", "weights."}) {
    tensor::NamedTensors weights;
    for (const auto& [name, value] : state.tensors) {
      absl::string_view rest = name;
      if (absl::ConsumePrefix(&rest, prefix)) {
        weights.emplace_back(std::string(rest), value);
      }
    }
    if (!weights.empty()) return weights;
  }
  return {};
}

// Optimiser steps taken by the published weights.
int64_t PublishedSteps(const json& text) {
  const json& counters = text.at("counters");
  return counters.at("optimizer_steps").get<int64_t>() -
         counters.at("steps_since_publish").get<int64_t>();
}

// `spec` must be that of the file, if the file has one.
absl::Status CheckOrigin(const policy::PolicySpec& spec,
                         const policy::PolicyFile& file) {
  const bool described = file.metadata.count("policy_spec") > 0;
  const bool slots_known = file.metadata.count("slot_ids") > 0;
  if (described && file.spec.Digest() != spec.Digest()) {
    return Refuse(
        "SPEC_MISMATCH", "policy_spec",
        absl::StrCat("The file belongs to specification ", file.spec.Digest(),
                     ", this policy's is ", spec.Digest(), "."),
        "Start the server with the file's specification.");
  }
  if (slots_known && file.spec.slot_ids != spec.slot_ids) {
    return Refuse(
        "SPEC_MISMATCH", "slot_ids",
        absl::StrCat("The file has slots ",
                     absl::StrJoin(file.spec.slot_ids, ","), ", this policy ",
                     absl::StrJoin(spec.slot_ids, ","), "."),
        "Start the server with the file's slots.");
  }
  return policy::ValidateWeights(spec, file.weights);
}

// Puts the statistics of a file's metadata into a learner's state.
absl::Status TakeStatistics(const std::map<std::string, std::string>& metadata,
                            json& text) {
  const std::map<std::string, std::string> places = {
      {kObservations, "observations"},
      {kValues, "values"},
      {kRewards, "rewards"}};
  for (const auto& [key, place] : places) {
    const auto it = metadata.find(key);
    if (it == metadata.end()) continue;
    json moments = json::parse(it->second, nullptr, /*allow_exceptions=*/false);
    if (!moments.is_object()) {
      return Refuse("CORRUPT_CHECKPOINT", key,
                    absl::StrCat("The metadata ", key, " is no JSON object."),
                    "Convert the file again.");
    }
    text["statistics"][place] = std::move(moments);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::string> ToPolicyFile(const policy::PolicySpec& spec,
                                         const ppo::LearnerState& state) {
  const auto text = ParseState(state);
  if (!text.ok()) return text.status();
  try {
    const json& statistics = text->at("statistics");
    auto metadata = policy::PolicyMetadata(spec);
    metadata["policy_version"] =
        absl::StrCat(text->at("policy_version").get<int64_t>());
    metadata["optimizer_steps"] = absl::StrCat(PublishedSteps(*text));
    metadata[kObservations] = text->at("published_observations").dump();
    metadata[kValues] = statistics.at("values").dump();
    metadata[kRewards] = statistics.at("rewards").dump();
    return tensor::SerializeSafetensors(PublishedWeights(state), metadata);
  } catch (const json::exception& error) {
    return Corrupt(kLearnerFile,
                   absl::StrCat("lacks a part of its state: ", error.what()));
  }
}

absl::StatusOr<Checkpoint> ToCheckpoint(const policy::PolicySpec& spec,
                                        const ppo::LearnerState& state,
                                        const std::string& name) {
  auto learner_file =
      tensor::SerializeSafetensors(state.tensors, {{kStateKey, state.json}});
  if (!learner_file.ok()) return learner_file.status();
  auto policy_file = ToPolicyFile(spec, state);
  if (!policy_file.ok()) return policy_file.status();
  const auto text = ParseState(state);
  if (!text.ok()) return text.status();

  Checkpoint checkpoint;
  CheckpointInfo& info = checkpoint.info;
  info.policy_version = text->at("policy_version");
  info.optimizer_steps = text->at("counters").at("optimizer_steps");
  info.spec_digest = spec.Digest();
  info.weights_digest = WeightsDigest(PublishedWeights(state));
  info.automatic = name.empty();
  info.name = !name.empty() ? name
                            : absl::StrCat("v", info.policy_version, "-s",
                                           info.optimizer_steps);
  checkpoint.files[kLearnerFile] = *std::move(learner_file);
  checkpoint.files[kPolicyFile] = *std::move(policy_file);
  return checkpoint;
}

absl::StatusOr<ppo::LearnerState> FromCheckpoint(const Checkpoint& checkpoint) {
  const auto file = checkpoint.files.find(kLearnerFile);
  if (file == checkpoint.files.end()) {
    return Corrupt(kLearnerFile, "is missing");
  }
  auto parsed = tensor::ParseSafetensors(file->second, kLearnerFile);
  if (!parsed.ok()) return parsed.status();
  const std::string* json = parsed->FindMetadata(kStateKey);
  if (json == nullptr) return Corrupt(kLearnerFile, "has no learner state");
  return ppo::LearnerState{std::move(parsed->tensors), *json};
}

absl::Status CheckCheckpoint(const policy::PolicySpec& spec,
                             const ppo::LearnerConfig& config,
                             const Checkpoint& checkpoint) {
  const auto state = FromCheckpoint(checkpoint);
  if (!state.ok()) return state.status();
  const auto learner = ppo::Learner::CreateFromState(spec, config, *state);
  if (!learner.ok()) return learner.status();
  const CheckpointInfo& info = checkpoint.info;
  if (info.policy_version != (*learner)->policy_version() ||
      info.optimizer_steps != (*learner)->optimizer_steps()) {
    return Corrupt(kLearnerFile, "is not of the version that its manifest has");
  }
  const std::string digest = WeightsDigest((*learner)->published()->weights);
  if (!info.weights_digest.empty() && info.weights_digest != digest) {
    return Corrupt(kLearnerFile, "has other weights than its manifest says");
  }
  const auto file = checkpoint.files.find(kPolicyFile);
  if (file == checkpoint.files.end()) return Corrupt(kPolicyFile, "is missing");
  const auto parsed = tensor::ParseSafetensors(file->second, kPolicyFile);
  if (!parsed.ok()) return parsed.status();
  if (WeightsDigest(parsed->tensors) != digest) {
    return Corrupt(kPolicyFile, "has other weights than the learner");
  }
  return absl::OkStatus();
}

absl::StatusOr<ppo::LearnerState> FromPolicyFile(
    const policy::PolicySpec& spec, const ppo::LearnerConfig& config,
    const std::string& bytes, int64_t version) {
  const auto parsed = tensor::ParseSafetensors(bytes, "the file");
  if (!parsed.ok()) return parsed.status();
  const auto file = policy::ImportPolicy(*parsed);
  if (!file.ok()) return file.status();
  absl::Status status = CheckOrigin(spec, *file);
  if (!status.ok()) return status;
  auto fresh = ppo::Learner::CreateFromWeights(spec, config, file->weights);
  if (!fresh.ok()) return fresh.status();
  ppo::LearnerState state = (*fresh)->Save();
  json text = json::parse(state.json);
  status = TakeStatistics(file->metadata, text);
  if (!status.ok()) return status;
  state.json = text.dump();
  auto learner = ppo::Learner::CreateFromState(spec, config, state);
  if (!learner.ok()) return learner.status();
  // Now with the file's statistics; their scale is what V is in.
  (*learner)->Publish();
  (*learner)->StartHistory(version);
  return (*learner)->Save();
}

std::string WeightsDigest(const ppo::NamedTensors& weights) {
  Sha256 digest;
  for (const auto& [name, value] : weights) {
    const at::Tensor host = value.detach().contiguous();
    digest.Add(
        absl::StrCat(name, " [", absl::StrJoin(host.sizes(), ","), "]\n"));
    digest.Add(absl::string_view(
        static_cast<const char*>(host.const_data_ptr()),
        static_cast<size_t>(host.numel()) * host.element_size()));
  }
  return digest.Hex();
}

}  // namespace esper::server
