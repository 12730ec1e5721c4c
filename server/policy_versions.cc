#include "server/policy_versions.h"

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "server/learner_checkpoint.h"
#include "server/refusal.h"
#include "spdlog/spdlog.h"

namespace esper::server {
namespace {

constexpr char kFrozen[] = "frozen";
// Inside the checkpoint folder; no name from the wire begins with a dot.
constexpr char kPinnedFolder[] = ".versions";

std::string PinnedFolder(const std::string& folder) {
  if (folder.empty()) return "";
  return (std::filesystem::path(folder) / kPinnedFolder).string();
}

std::string PinnedName(int64_t version) { return absl::StrCat("v", version); }

absl::Status NotKept(int64_t version) {
  return Refuse("UNKNOWN_VERSION", "policy_version",
                absl::StrCat("Version ", version, " is not kept."),
                "ListVersions tells which are; freeze a version while it is, "
                "and restore a checkpoint otherwise.");
}

absl::Status CheckLabel(const std::string& label) {
  if (label == kFrozen) return absl::OkStatus();
  if (label == "current" || label == "previous") {
    return Refuse(
        "MALFORMED_REQUEST", "label",
        absl::StrCat("The label ", label, " follows from what is published."),
        "Publish, or roll back.");
  }
  const bool number = std::all_of(label.begin(), label.end(), [](char c) {
    return std::isdigit(static_cast<unsigned char>(c));
  });
  if (number || !CheckpointStore::IsName(label)) {
    return Refuse("MALFORMED_REQUEST", "label",
                  "A label is 1 to 64 letters, digits, '.', '_' and '-', does "
                  "not start with a dot and is no number.",
                  "Choose such a name.");
  }
  return absl::OkStatus();
}

}  // namespace

PolicyVersions::PolicyVersions(const Options& options, PolicyStore& policies)
    : options_(options),
      policies_(policies),
      numbers_(options.folder, "highest_version"),
      history_(options.folder),
      pinned_(PinnedFolder(options.folder)) {}

absl::Status PolicyVersions::Open() {
  if (absl::Status status = numbers_.Open(); !status.ok()) return status;
  if (absl::Status status = history_.Open(); !status.ok()) return status;
  absl::MutexLock lock(&mu_);
  for (const CheckpointInfo& info : pinned_.List()) {
    pinned_versions_.insert(info.policy_version);
  }
  return absl::OkStatus();
}

absl::Status PolicyVersions::Start(ppo::Learner& learner, bool restored) {
  if (restored) return Restored(learner);
  const auto first = numbers_.Take(/*current=*/0);
  if (!first.ok()) return first.status();
  learner.StartHistory(*first);
  return Act(learner);
}

absl::Status PolicyVersions::Publish(ppo::Learner& learner) {
  const auto version = numbers_.Take(learner.policy_version());
  if (!version.ok()) return version.status();
  learner.Publish(*version);
  return Act(learner);
}

absl::Status PolicyVersions::Restored(ppo::Learner& learner) {
  const auto published = learner.published();
  if (history_.MeansOthers(published->version,
                           WeightsDigest(published->weights))) {
    const auto version = TakeNumber(learner);
    if (!version.ok()) return version.status();
    spdlog::warn(
        "version {} was published with other weights than this checkpoint's, "
        "which act as version {}",
        published->version, *version);
    learner.StartHistory(*version);
  }
  return Act(learner);
}

absl::Status PolicyVersions::Act(ppo::Learner& learner,
                                 int64_t rolled_back_to) {
  const auto snapshot = learner.published();
  VersionRecord record;
  record.version = snapshot->version;
  record.published_at_nanos = absl::ToUnixNanos(absl::Now());
  record.optimizer_steps =
      learner.optimizer_steps() - learner.unpublished_steps();
  record.weights_digest = WeightsDigest(snapshot->weights);
  record.bf16 = policies_.precision() == policy::InferencePrecision::kBf16;
  record.rolled_back_to = rolled_back_to;
  // Nobody acts under a number before it is known what it means.
  if (absl::Status status = history_.NoteActing(record); !status.ok()) {
    return status;
  }
  if (absl::Status status = policies_.Publish(*snapshot); !status.ok()) {
    return status;
  }
  auto state = std::make_shared<const ppo::LearnerState>(learner.Save());
  const VersionHistory::State known = history_.Read();
  absl::MutexLock lock(&mu_);
  states_[snapshot->version] = std::move(state);
  const auto keep = static_cast<size_t>(options_.keep);
  for (auto it = states_.begin();
       it != states_.end() && states_.size() > keep;) {
    // Without a folder what has a label stays here.
    const bool held = it->first == known.current ||
                      it->first == known.previous ||
                      (options_.folder.empty() && known.IsLabelled(it->first));
    it = held ? std::next(it) : states_.erase(it);
  }
  return absl::OkStatus();
}

absl::StatusOr<ppo::LearnerState> PolicyVersions::Load(int64_t version) const {
  {
    absl::MutexLock lock(&mu_);
    const auto it = states_.find(version);
    if (it != states_.end()) return *it->second;
    if (pinned_versions_.count(version) == 0) return NotKept(version);
  }
  const auto checkpoint = pinned_.Load(PinnedName(version));
  if (!checkpoint.ok()) return checkpoint.status();
  return FromCheckpoint(*checkpoint);
}

absl::Status PolicyVersions::RollBack(int64_t version, ppo::Learner& learner) {
  const auto state = Load(version);
  if (!state.ok()) return state.status();
  // Before anything changes: a number that is not used does no harm.
  const auto number = numbers_.Take(learner.policy_version());
  if (!number.ok()) return number.status();
  if (absl::Status status = learner.Restore(*state); !status.ok()) {
    return status;
  }
  // What is kept may have been saved in the middle of an update.
  learner.DropUnpublished();
  learner.Publish(*number);
  return Act(learner, /*rolled_back_to=*/version);
}

absl::StatusOr<int64_t> PolicyVersions::Resolve(
    const std::string& label) const {
  const VersionHistory::State state = history_.Read();
  if (label == "current") return state.current;
  if (label == "previous" || label.empty()) {
    if (state.previous > 0) return state.previous;
    return Refuse("UNKNOWN_VERSION", "label",
                  "There is no previous version: only one has acted.",
                  "ListVersions tells what there is.");
  }
  const auto it = state.labels.find(label);
  if (it != state.labels.end()) return it->second;
  return Refuse("UNKNOWN_VERSION", "label",
                absl::StrCat("No version has the label ", label, "."),
                "ListVersions tells the labels.");
}

absl::Status PolicyVersions::SetLabel(const std::string& label, int64_t version,
                                      const policy::PolicySpec& spec) {
  if (absl::Status status = CheckLabel(label); !status.ok()) return status;
  if (version == 0) version = history_.Read().current;
  // On the disk first: a label never names what is not kept.
  if (absl::Status status = Pin(version, spec); !status.ok()) return status;
  if (label == kFrozen) return history_.SetFrozen(version, true);
  const VersionHistory::State before = history_.Read();
  if (absl::Status status = history_.SetLabel(label, version); !status.ok()) {
    return status;
  }
  const auto moved = before.labels.find(label);
  if (moved != before.labels.end()) MaybeUnpin(moved->second);
  return absl::OkStatus();
}

absl::Status PolicyVersions::RemoveLabel(const std::string& label,
                                         int64_t version) {
  if (absl::Status status = CheckLabel(label); !status.ok()) return status;
  if (label == kFrozen) {
    if (version == 0) version = history_.Read().current;
    absl::Status status = history_.SetFrozen(version, false);
    if (status.ok()) MaybeUnpin(version);
    return status;
  }
  const auto labelled = Resolve(label);
  if (!labelled.ok()) return labelled.status();
  absl::Status status = history_.RemoveLabel(label);
  if (status.ok()) MaybeUnpin(*labelled);
  return status;
}

absl::Status PolicyVersions::Pin(int64_t version,
                                 const policy::PolicySpec& spec) {
  std::shared_ptr<const ppo::LearnerState> state;
  {
    absl::MutexLock lock(&mu_);
    if (pinned_versions_.count(version) > 0) return absl::OkStatus();
    const auto it = states_.find(version);
    if (it == states_.end()) return NotKept(version);
    state = it->second;
  }
  if (options_.folder.empty()) return absl::OkStatus();
  auto checkpoint = ToCheckpoint(spec, *state, PinnedName(version));
  if (!checkpoint.ok()) return checkpoint.status();
  const auto saved = pinned_.Save(*std::move(checkpoint));
  if (!saved.ok()) return saved.status();
  absl::MutexLock lock(&mu_);
  pinned_versions_.insert(version);
  return absl::OkStatus();
}

void PolicyVersions::MaybeUnpin(int64_t version) {
  if (history_.Read().IsLabelled(version)) return;
  absl::MutexLock lock(&mu_);
  if (pinned_versions_.erase(version) == 0) return;
  const absl::Status removed = pinned_.Remove(PinnedName(version));
  if (!removed.ok()) spdlog::warn("{}", std::string(removed.message()));
}

std::set<int64_t> PolicyVersions::Kept() const {
  absl::MutexLock lock(&mu_);
  std::set<int64_t> kept = pinned_versions_;
  for (const auto& [version, state] : states_) kept.insert(version);
  return kept;
}

}  // namespace esper::server
