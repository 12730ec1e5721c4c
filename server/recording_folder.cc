#include "server/recording_folder.h"

#include <algorithm>
#include <filesystem>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "core/durable_file.h"
#include "proto/recording/recording_file.h"
#include "server/refusal.h"
#include "spdlog/spdlog.h"

namespace esper::server {
namespace {

namespace fs = std::filesystem;

constexpr char kSuffix[] = ".safetensors";

}  // namespace

RecordingFolder::RecordingFolder(std::string path) : path_(std::move(path)) {}

std::string RecordingFolder::FileOf(const std::string& episode_id) const {
  const std::string name =
      absl::StrCat(absl::BytesToHexString(episode_id), kSuffix);
  return (fs::path(path_) / name).string();
}

absl::StatusOr<std::vector<v1::RecordingInfo>> RecordingFolder::Open() const {
  std::vector<v1::RecordingInfo> infos;
  if (!enabled()) return infos;
  std::error_code error;
  fs::create_directories(path_, error);
  std::vector<std::pair<fs::file_time_type, std::string>> files;
  fs::directory_iterator entry(path_, error);
  while (!error && entry != fs::directory_iterator()) {
    const fs::path& file = entry->path();
    if (file.extension() == kSuffix) {
      files.emplace_back(fs::last_write_time(file, error), file.string());
    }
    if (!error) entry.increment(error);
  }
  if (error) {
    return absl::InternalError(absl::StrCat("Cannot read the recordings in ",
                                            path_, ": ", error.message(), "."));
  }
  std::sort(files.begin(), files.end());
  for (const auto& [time, file] : files) {
    auto info = recording::ReadRecordingInfo(file);
    if (info.ok() && FileOf(info->episode_id()) != file) {
      info = absl::DataLossError(absl::StrCat(
          "The recording ", file, " is of another episode than its name."));
    }
    if (info.ok()) {
      infos.push_back(*std::move(info));
    } else {
      spdlog::error("{} It is left out.", std::string(info.status().message()));
    }
  }
  return infos;
}

absl::Status RecordingFolder::Write(const v1::Recording& recording) const {
  return ReplaceFile(FileOf(recording.info().episode_id()),
                     recording::SerializeRecording(recording));
}

absl::StatusOr<v1::Recording> RecordingFolder::Read(
    const std::string& episode_id) const {
  auto recording = recording::ReadRecording(FileOf(episode_id));
  if (recording.ok()) return recording;
  return Refuse("CORRUPT_RECORDING", "episode_id",
                std::string(recording.status().message()),
                "Discard the recording.");
}

absl::Status RecordingFolder::Remove(
    const std::vector<std::string>& episode_ids) const {
  for (const std::string& id : episode_ids) {
    std::error_code error;
    fs::remove(FileOf(id), error);
    if (error) {
      return absl::InternalError(absl::StrCat("Cannot remove ", FileOf(id),
                                              ": ", error.message(), "."));
    }
  }
  return FlushFolder(path_);
}

}  // namespace esper::server
