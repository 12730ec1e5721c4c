#include "server/learner_checkpoint.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "core/policy/policy_io.h"
#include "core/tensor/safetensors.h"
#include "server/refusal.h"

namespace esper::server {
namespace {

constexpr char kLearnerFile[] = "learner.safetensors";
constexpr char kPolicyFile[] = "policy.safetensors";
constexpr char kStateKey[] = "learner_state";  // Metadata of the former.

absl::Status Corrupt(const std::string& why) {
  return Refuse("CORRUPT_CHECKPOINT", kLearnerFile,
                absl::StrCat("Checkpoint file ", kLearnerFile, " ", why, "."),
                "Restore another checkpoint.");
}

}  // namespace

absl::StatusOr<Checkpoint> ToCheckpoint(const ppo::Learner& learner,
                                        const std::string& name) {
  ppo::LearnerState state = learner.Save();
  auto learner_file =
      tensor::SerializeSafetensors(state.tensors, {{kStateKey, state.json}});
  if (!learner_file.ok()) return learner_file.status();
  const auto published = learner.published();
  auto metadata = policy::PolicyMetadata(learner.spec());
  metadata["policy_version"] = absl::StrCat(published->version);
  auto policy_file = tensor::SerializeSafetensors(published->weights, metadata);
  if (!policy_file.ok()) return policy_file.status();

  Checkpoint checkpoint;
  CheckpointInfo& info = checkpoint.info;
  info.policy_version = learner.policy_version();
  info.optimizer_steps = learner.optimizer_steps();
  info.spec_digest = learner.spec().Digest();
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
  if (file == checkpoint.files.end()) return Corrupt("is missing");
  auto parsed = tensor::ParseSafetensors(file->second, kLearnerFile);
  if (!parsed.ok()) return parsed.status();
  const std::string* json = parsed->FindMetadata(kStateKey);
  if (json == nullptr) return Corrupt("has no learner state");
  return ppo::LearnerState{std::move(parsed->tensors), *json};
}

}  // namespace esper::server
