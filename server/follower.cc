#include "server/follower.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "core/error.h"
#include "core/sha256.h"
#include "server/refusal.h"
#include "spdlog/spdlog.h"

namespace esper::server {
namespace {

// The checkpoint that holds the version kept, and its file.
constexpr char kKeptName[] = "followed";
constexpr char kKeptFile[] = "policy.safetensors";

}  // namespace

Follower::Follower(const FollowerOptions& options, CheckpointStore& keep,
                   bool keeps, Clock clock)
    : keep_(keep), keeps_(keeps), clock_(clock), link_(options, clock) {}

absl::StatusOr<policy::PolicySpec> Follower::FindSpec(
    const std::optional<policy::PolicySpec>& spec) {
  found_ = FindKept();
  const std::string digest = spec.has_value() ? spec->Digest() : "";
  if (spec.has_value() && found_.has_value() &&
      found_->file.spec.Digest() != digest) {
    spdlog::warn("the kept version {} is of another specification: not used",
                 found_->file.snapshot.version);
    found_.reset();
  }
  const bool known = spec.has_value() || found_.has_value();
  auto version = link_.Fetch(digest, /*patient=*/!known);
  if (!version.ok()) {
    if (!IsAbsent(version.status()) || !known) {
      spdlog::error("cannot follow {}", source());
      if (!IsAbsent(version.status())) return version.status();
      return absl::UnavailableError(absl::StrCat(
          "Nobody answers at ", source(),
          ", the server to follow. Start it, or name its specification with "
          "--policy_spec to start before it."));
    }
    spdlog::warn("{} is away: {}", source(),
                 std::string(version.status().message()));
    return spec.has_value() ? *spec : found_->file.spec;
  }
  auto file = DecodeSnapshot(version->bytes, source());
  if (!file.ok()) return file.status();
  if (spec.has_value() && file->spec.Digest() != digest) {
    return Refuse("SPEC_MISMATCH", "policy_spec",
                  absl::StrCat(source(),
                               " sent a version of another "
                               "specification than it promised."),
                  "Follow another server.");
  }
  Keep(*version);
  found_ = Found{*std::move(file), std::move(version->sha256)};
  return found_->file.spec;
}

std::optional<Follower::Found> Follower::FindKept() const {
  if (!keeps_) return std::nullopt;
  const auto checkpoint = keep_.Load(kKeptName);
  if (absl::IsNotFound(checkpoint.status())) return std::nullopt;
  absl::Status status = checkpoint.status();
  if (status.ok()) {
    const auto bytes = checkpoint->files.find(kKeptFile);
    if (bytes != checkpoint->files.end()) {
      auto file = DecodeSnapshot(bytes->second, kKeptFile);
      if (file.ok()) return Found{*std::move(file), Sha256Hex(bytes->second)};
      status = file.status();
    } else {
      status = absl::DataLossError(absl::StrCat(kKeptFile, " is missing"));
    }
  }
  spdlog::warn("the version kept cannot be used: {}",
               std::string(status.message()));
  return std::nullopt;
}

absl::Status Follower::Begin(PolicyStore& policies) {
  policies_ = &policies;
  return found_.has_value() ? Publish(found_->file) : absl::OkStatus();
}

void Follower::Run(std::function<void()> on_ready) {
  on_ready_ = std::move(on_ready);
  int64_t held = 0;
  std::string sha256;
  if (found_.has_value()) {
    held = found_->file.snapshot.version;
    sha256 = found_->sha256;
    found_.reset();
    std::exchange(on_ready_, nullptr)();
  }
  link_.Start(
      policies_->spec_digest(), held, sha256,
      [this](ReceivedVersion version) { return Accept(std::move(version)); });
}

absl::Status Follower::Accept(ReceivedVersion version) {
  const auto file = DecodeSnapshot(version.bytes, source());
  if (!file.ok()) return file.status();
  if (file->spec.Digest() != policies_->spec_digest()) {
    return Refuse("SPEC_MISMATCH", "policy_spec",
                  absl::StrCat(source(),
                               " sent a version of another "
                               "specification than it promised."),
                  "Follow another server.");
  }
  const absl::Status published = Publish(*file);
  if (!published.ok()) return published;
  if (on_ready_) std::exchange(on_ready_, nullptr)();
  Keep(version);
  return absl::OkStatus();
}

absl::Status Follower::Publish(const SnapshotFile& file) {
  const absl::Status published =
      policies_->Publish(file.snapshot, file.precision);
  if (!published.ok()) return published;
  ++versions_followed_;
  spdlog::info("acting with version {} of {}", file.snapshot.version, source());
  return absl::OkStatus();
}

void Follower::Keep(const ReceivedVersion& version) {
  if (!keeps_) return;
  Checkpoint checkpoint;
  checkpoint.info.name = kKeptName;
  checkpoint.info.policy_version = version.header.policy_version();
  checkpoint.info.spec_digest = version.header.spec_digest();
  checkpoint.files[kKeptFile] = version.bytes;
  const auto saved = keep_.Save(std::move(checkpoint));
  if (saved.ok()) return;
  // It serves all the same.
  spdlog::error("version {} was not kept: {}", version.header.policy_version(),
                std::string(saved.status().message()));
}

void Follower::FillStatus(v1::FollowerStatus* status) const {
  const FollowerLinkState state = link_.State();
  status->set_source(source());
  status->set_followed_version(policies_->version());
  status->set_connected(state.connected);
  double seconds = -1;
  if (state.connected) {
    seconds = 0;
  } else if (state.last_contact != absl::InfinitePast()) {
    seconds = absl::ToDoubleSeconds(clock_() - state.last_contact);
  }
  status->set_seconds_since_contact(seconds);
  status->set_versions_followed(versions_followed_);
  status->set_last_error(state.last_error);
}

}  // namespace esper::server
