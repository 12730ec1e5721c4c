#include "server/version_history.h"

#include <exception>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/durable_file.h"
#include "nlohmann/json.hpp"
#include "server/refusal.h"

namespace esper::server {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr char kFile[] = "versions.json";
constexpr int kFormat = 1;

json ToJson(const VersionHistory::State& state) {
  json records = json::array();
  for (const auto& [version, record] : state.records) {
    records.push_back({{"version", version},
                       {"published_at_nanos", record.published_at_nanos},
                       {"optimizer_steps", record.optimizer_steps},
                       {"weights_digest", record.weights_digest},
                       {"bf16", record.bf16},
                       {"rolled_back_to", record.rolled_back_to}});
  }
  return {{"format", kFormat},        {"versions", records},
          {"labels", state.labels},   {"frozen", state.frozen},
          {"current", state.current}, {"previous", state.previous}};
}

VersionHistory::State FromJson(const json& text) {
  if (text.at("format") != kFormat) throw std::runtime_error("unknown format");
  VersionHistory::State state;
  for (const json& entry : text.at("versions")) {
    VersionRecord record;
    entry.at("version").get_to(record.version);
    entry.at("published_at_nanos").get_to(record.published_at_nanos);
    entry.at("optimizer_steps").get_to(record.optimizer_steps);
    entry.at("weights_digest").get_to(record.weights_digest);
    entry.at("bf16").get_to(record.bf16);
    entry.at("rolled_back_to").get_to(record.rolled_back_to);
    state.records[record.version] = record;
  }
  text.at("labels").get_to(state.labels);
  text.at("frozen").get_to(state.frozen);
  text.at("current").get_to(state.current);
  text.at("previous").get_to(state.previous);
  for (const auto& [label, version] : state.labels) {
    if (state.records.count(version) == 0) {
      throw std::runtime_error("label " + label + " of an unknown version");
    }
  }
  return state;
}

// Drops the oldest versions that nothing holds.
void Forget(size_t remembered, VersionHistory::State& state) {
  size_t loose = 0;
  for (const auto& [version, record] : state.records) {
    loose += state.IsLabelled(version) ? 0 : 1;
  }
  for (auto it = state.records.begin();
       it != state.records.end() && loose > remembered;) {
    const bool held = state.IsLabelled(it->first) ||
                      it->first == state.current || it->first == state.previous;
    if (held) {
      ++it;
      continue;
    }
    it = state.records.erase(it);
    --loose;
  }
}

}  // namespace

bool VersionHistory::State::IsLabelled(int64_t version) const {
  if (frozen.count(version) > 0) return true;
  for (const auto& [label, labelled] : labels) {
    if (labelled == version) return true;
  }
  return false;
}

std::vector<std::string> VersionHistory::State::LabelsOf(
    int64_t version) const {
  std::vector<std::string> all;
  if (version == current) all.push_back("current");
  if (version == previous) all.push_back("previous");
  if (frozen.count(version) > 0) all.push_back("frozen");
  for (const auto& [label, labelled] : labels) {
    if (labelled == version) all.push_back(label);
  }
  return all;
}

VersionHistory::VersionHistory(std::string folder, int remembered)
    : folder_(std::move(folder)), remembered_(remembered) {}

absl::Status VersionHistory::Open() {
  if (folder_.empty()) return absl::OkStatus();
  const fs::path path = fs::path(folder_) / kFile;
  std::error_code error;
  if (!fs::exists(path, error) && !error) return absl::OkStatus();
  std::ifstream file(path);
  const std::string text((std::istreambuf_iterator<char>(file)),
                         std::istreambuf_iterator<char>());
  try {
    State state = FromJson(json::parse(text));
    absl::MutexLock lock(&mu_);
    state_ = std::move(state);
  } catch (const std::exception& bad) {
    return Refuse("CORRUPT_CHECKPOINT", kFile,
                  absl::StrCat(path.string(), " does not parse: ", bad.what()),
                  "Restore it from a copy, or remove it: labels are lost then, "
                  "checkpoints are not.");
  }
  return absl::OkStatus();
}

VersionHistory::State VersionHistory::Read() const {
  absl::MutexLock lock(&mu_);
  return state_;
}

absl::Status VersionHistory::Replace(State next) {
  Forget(static_cast<size_t>(remembered_), next);
  if (!folder_.empty()) {
    std::error_code error;
    fs::create_directories(folder_, error);
    if (error) {
      return absl::InternalError(
          absl::StrCat("cannot create ", folder_, ": ", error.message()));
    }
    const absl::Status written =
        ReplaceFile((fs::path(folder_) / kFile).string(), ToJson(next).dump(1));
    if (!written.ok()) return written;
  }
  state_ = std::move(next);
  return absl::OkStatus();
}

absl::Status VersionHistory::NoteActing(const VersionRecord& record) {
  absl::MutexLock lock(&mu_);
  State next = state_;
  const auto [entry, fresh] = next.records.emplace(record.version, record);
  if (!fresh && entry->second.weights_digest != record.weights_digest) {
    return Refuse("CORRUPT_CHECKPOINT", "policy_version",
                  absl::StrCat("Version ", record.version,
                               " was published with other weights than these."),
                  "Publish these under a number of their own.");
  }
  if (next.current != record.version) {
    next.previous = next.current;
    next.current = record.version;
  }
  return Replace(std::move(next));
}

bool VersionHistory::MeansOthers(int64_t version,
                                 const std::string& weights_digest) const {
  absl::MutexLock lock(&mu_);
  const auto it = state_.records.find(version);
  return it != state_.records.end() &&
         it->second.weights_digest != weights_digest;
}

absl::Status VersionHistory::SetLabel(const std::string& label,
                                      int64_t version) {
  absl::MutexLock lock(&mu_);
  State next = state_;
  next.labels[label] = version;
  return Replace(std::move(next));
}

absl::Status VersionHistory::RemoveLabel(const std::string& label) {
  absl::MutexLock lock(&mu_);
  State next = state_;
  next.labels.erase(label);
  return Replace(std::move(next));
}

absl::Status VersionHistory::SetFrozen(int64_t version, bool frozen) {
  absl::MutexLock lock(&mu_);
  State next = state_;
  if (frozen) {
    next.frozen.insert(version);
  } else {
    next.frozen.erase(version);
  }
  return Replace(std::move(next));
}

}  // namespace esper::server
