#include "server/checkpoint_store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

#include <algorithm>
#include <cctype>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <system_error>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "core/durable_file.h"
#include "core/error.h"
#include "core/sha256.h"
#include "nlohmann/json.hpp"
#include "server/refusal.h"

namespace esper::server {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr char kManifest[] = "manifest.json";
constexpr int kFormat = 1;
constexpr size_t kMaxNameLength = 64;

absl::Status Corrupt(const std::string& file, const std::string& why) {
  return Refuse("CORRUPT_CHECKPOINT", file,
                absl::StrCat("Checkpoint file ", file, " ", why, "."),
                "Restore another checkpoint.");
}

absl::Status SystemError(const std::string& what, const fs::path& path) {
  return absl::InternalError(
      absl::StrCat(what, " ", path.string(), ": ", std::strerror(errno)));
}

absl::Status CheckName(const std::string& name) {
  if (CheckpointStore::IsName(name)) return absl::OkStatus();
  return Refuse("MALFORMED_REQUEST", "name",
                "A checkpoint name is 1 to 64 letters, digits, '.', '_' and "
                "'-', and does not start with a dot.",
                "Choose such a name, or leave it empty.");
}

// Makes the folder `from` appear as `to` in one step; what was there ends up
// as `from`.
absl::Status MoveIntoPlace(const fs::path& from, const fs::path& to) {
  if (rename(from.c_str(), to.c_str()) == 0) return absl::OkStatus();
  if (errno != ENOTEMPTY && errno != EEXIST) {
    return SystemError("cannot rename to", to);
  }
  if (renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(),
                RENAME_EXCHANGE) != 0) {
    return SystemError("cannot replace", to);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> ReadFile(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) return Corrupt(path.filename().string(), "is missing");
  std::stringstream bytes;
  bytes << in.rdbuf();
  if (!in) return Corrupt(path.filename().string(), "cannot be read");
  return std::move(bytes).str();
}

json ToManifest(const Checkpoint& checkpoint) {
  json files = json::object();
  for (const auto& [name, bytes] : checkpoint.files) {
    files[name] = {{"size", bytes.size()}, {"sha256", Sha256Hex(bytes)}};
  }
  const CheckpointInfo& info = checkpoint.info;
  return {{"format", kFormat},
          {"policy_version", info.policy_version},
          {"optimizer_steps", info.optimizer_steps},
          {"spec_digest", info.spec_digest},
          {"lease_token", info.lease_token},
          {"weights_digest", info.weights_digest},
          {"saved_at_nanos", info.saved_at_nanos},
          {"automatic", info.automatic},
          {"files", files}};
}

// The manifest of a checkpoint, with the members that are read checked.
absl::StatusOr<json> ReadManifest(const fs::path& folder) {
  auto text = ReadFile(folder / kManifest);
  if (!text.ok()) return text.status();
  json manifest = json::parse(*text, nullptr, /*allow_exceptions=*/false);
  if (!manifest.is_object()) return Corrupt(kManifest, "is not JSON");
  for (const char* key : {"format", "policy_version", "optimizer_steps",
                          "lease_token", "saved_at_nanos"}) {
    const auto it = manifest.find(key);
    if (it == manifest.end() || !it->is_number_integer()) {
      return Corrupt(kManifest, absl::StrCat("lacks the number ", key));
    }
  }
  if (manifest["format"] != kFormat) {
    return Corrupt(kManifest, "has an unknown format");
  }
  if (!manifest["spec_digest"].is_string() ||
      !manifest["automatic"].is_boolean() || !manifest["files"].is_object()) {
    return Corrupt(kManifest, "lacks spec_digest, automatic or files");
  }
  if (manifest.contains("weights_digest") &&
      !manifest["weights_digest"].is_string()) {
    return Corrupt(kManifest, "has a weights_digest that is no text");
  }
  for (const auto& [file, entry] : manifest["files"].items()) {
    if (!CheckName(file).ok() || !entry.is_object() ||
        !entry["size"].is_number_unsigned() || !entry["sha256"].is_string()) {
      return Corrupt(kManifest, "has a malformed file entry");
    }
  }
  return manifest;
}

CheckpointInfo InfoOf(const std::string& name, const json& manifest) {
  CheckpointInfo info;
  info.name = name;
  info.policy_version = manifest["policy_version"];
  info.optimizer_steps = manifest["optimizer_steps"];
  info.spec_digest = manifest["spec_digest"];
  info.lease_token = manifest["lease_token"];
  info.saved_at_nanos = manifest["saved_at_nanos"];
  info.automatic = manifest["automatic"];
  info.weights_digest = manifest.value("weights_digest", "");
  for (const auto& [file, entry] : manifest["files"].items()) {
    info.size_bytes += entry["size"].get<int64_t>();
  }
  return info;
}

// What a process that was killed had begun to save.
void RemoveUnfinished(const std::string& root) {
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(root, error)) {
    const std::string name = entry.path().filename().string();
    if (absl::StartsWith(name, ".") && absl::EndsWith(name, ".tmp") &&
        entry.is_directory(error)) {
      fs::remove_all(entry.path(), error);
    }
  }
}

}  // namespace

CheckpointStore::CheckpointStore(std::string root, int keep_automatic)
    : root_(std::move(root)), keep_automatic_(keep_automatic) {
  if (!root_.empty()) RemoveUnfinished(root_);
}

absl::Status CheckpointStore::CheckConfigured() const {
  if (!root_.empty()) return absl::OkStatus();
  ErrorDetail detail;  // A reason of its own: the server lacks a setting.
  detail.reason = "NO_CHECKPOINT_FOLDER";
  detail.hint = "Start the server with --checkpoint_dir.";
  return MakeStatus(absl::StatusCode::kFailedPrecondition, detail,
                    "The server has no folder for checkpoints.");
}

absl::StatusOr<CheckpointInfo> CheckpointStore::Save(Checkpoint checkpoint) {
  if (absl::Status status = CheckConfigured(); !status.ok()) return status;
  if (absl::Status status = CheckName(checkpoint.info.name); !status.ok()) {
    return status;
  }
  checkpoint.info.saved_at_nanos = absl::ToUnixNanos(absl::Now());
  checkpoint.info.size_bytes = 0;
  for (const auto& [name, bytes] : checkpoint.files) {
    checkpoint.info.size_bytes += static_cast<int64_t>(bytes.size());
  }

  const fs::path root(root_);
  const fs::path aside = root / absl::StrCat(".", checkpoint.info.name, ".tmp");
  std::error_code error;
  fs::remove_all(aside, error);
  fs::create_directories(aside, error);
  if (error) {
    return absl::InternalError(
        absl::StrCat("cannot create ", aside.string(), ": ", error.message()));
  }
  std::map<std::string, std::string> files = checkpoint.files;
  files[kManifest] = ToManifest(checkpoint).dump(1);
  absl::Status status;
  for (const auto& [name, bytes] : files) {
    status = WriteAndFlush((aside / name).string(), bytes);
    if (!status.ok()) break;
  }
  if (status.ok()) status = FlushFolder(aside.string());
  if (status.ok()) status = MoveIntoPlace(aside, root / checkpoint.info.name);
  if (status.ok()) status = FlushFolder(root.string());
  fs::remove_all(aside, error);
  if (!status.ok()) return status;
  RemoveOldAutomatic();
  return checkpoint.info;
}

void CheckpointStore::RemoveOldAutomatic() {
  std::vector<CheckpointInfo> automatic = List();
  automatic.erase(std::remove_if(automatic.begin(), automatic.end(),
                                 [](const CheckpointInfo& info) {
                                   return !info.automatic;
                                 }),
                  automatic.end());
  for (size_t i = 0; i + keep_automatic_ < automatic.size(); ++i) {
    // What cannot be removed now is tried again later.
    Remove(automatic[i].name).IgnoreError();
  }
}

absl::StatusOr<Checkpoint> CheckpointStore::Load(
    const std::string& name) const {
  if (absl::Status status = CheckConfigured(); !status.ok()) return status;
  std::string chosen = name;
  if (name.empty() || name == "latest") {
    const std::vector<CheckpointInfo> all = List();
    if (all.empty()) {
      return Refuse("UNKNOWN_CHECKPOINT", "name",
                    "There is no checkpoint to restore.",
                    "Save one first with SaveCheckpoint.");
    }
    chosen = all.back().name;
  }
  if (absl::Status status = CheckName(chosen); !status.ok()) return status;
  const fs::path folder = fs::path(root_) / chosen;
  std::error_code error;
  if (!fs::is_directory(folder, error)) {
    return Refuse("UNKNOWN_CHECKPOINT", "name",
                  absl::StrCat("There is no checkpoint ", chosen, "."),
                  "ListCheckpoints tells which there are.");
  }
  auto manifest = ReadManifest(folder);
  if (!manifest.ok()) return manifest.status();
  Checkpoint checkpoint;
  checkpoint.info = InfoOf(chosen, *manifest);
  for (const auto& [file, entry] : (*manifest)["files"].items()) {
    auto bytes = ReadFile(folder / file);
    if (!bytes.ok()) return bytes.status();
    if (bytes->size() != entry["size"].get<size_t>()) {
      return Corrupt(file, absl::StrCat("has ", bytes->size(), " bytes, not ",
                                        entry["size"].get<size_t>()));
    }
    if (Sha256Hex(*bytes) != entry["sha256"].get<std::string>()) {
      return Corrupt(file, "does not have the digest of its manifest");
    }
    checkpoint.files[file] = *std::move(bytes);
  }
  return checkpoint;
}

absl::Status CheckpointStore::Remove(const std::string& name) {
  if (absl::Status status = CheckConfigured(); !status.ok()) return status;
  if (absl::Status status = CheckName(name); !status.ok()) return status;
  const fs::path folder = fs::path(root_) / name;
  std::error_code error;
  if (!fs::is_directory(folder, error)) {
    return Refuse("UNKNOWN_CHECKPOINT", "name",
                  absl::StrCat("There is no checkpoint ", name, "."),
                  "ListCheckpoints tells which there are.");
  }
  // Out of sight in one step, so that no half of it is ever found.
  const fs::path aside = fs::path(root_) / absl::StrCat(".", name, ".tmp");
  fs::remove_all(aside, error);
  if (rename(folder.c_str(), aside.c_str()) != 0) {
    return SystemError("cannot remove", folder);
  }
  const absl::Status status = FlushFolder(root_);
  fs::remove_all(aside, error);
  return status;
}

bool CheckpointStore::IsName(const std::string& name) {
  return !name.empty() && name.size() <= kMaxNameLength && name[0] != '.' &&
         std::all_of(name.begin(), name.end(), [](unsigned char c) {
           return std::isalnum(c) || c == '.' || c == '_' || c == '-';
         });
}

std::vector<CheckpointInfo> CheckpointStore::List() const {
  std::vector<CheckpointInfo> all;
  std::error_code error;
  fs::directory_iterator entries(root_, error);
  if (error) return all;
  for (const fs::directory_entry& entry : entries) {
    const std::string name = entry.path().filename().string();
    if (!CheckName(name).ok() || !entry.is_directory(error)) continue;
    auto manifest = ReadManifest(entry.path());
    if (manifest.ok()) all.push_back(InfoOf(name, *manifest));
  }
  std::sort(all.begin(), all.end(),
            [](const CheckpointInfo& a, const CheckpointInfo& b) {
              return a.saved_at_nanos < b.saved_at_nanos;
            });
  return all;
}

}  // namespace esper::server
