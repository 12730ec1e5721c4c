#include "client/trainer/run_directory.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/trainer/run_records.h"

namespace esper::client {
namespace {

namespace fs = std::filesystem;

absl::Status FileError(const std::string& path, const std::string& what) {
  return absl::UnavailableError(absl::StrCat("cannot ", what, " ", path));
}

// Writes all of it, or leaves the old file.
absl::Status WriteFile(const std::string& path, const std::string& text) {
  const std::string temporary = path + ".tmp";
  std::ofstream file(temporary, std::ios::trunc);
  file << text;
  file.close();
  if (!file) return FileError(temporary, "write");
  std::error_code error;
  fs::rename(temporary, path, error);
  return error ? FileError(path, "replace") : absl::OkStatus();
}

// Keeps the first `lines` lines of a file and opens it for appending. A file
// that has fewer is kept as it is, without an unfinished last line.
absl::Status OpenAt(const std::string& path, int64_t lines,
                    const std::string& header, std::ofstream& out) {
  std::ifstream in(path);
  std::string kept;
  std::string line;
  for (int64_t i = 0; i < lines && std::getline(in, line) && !in.eof(); ++i) {
    absl::StrAppend(&kept, line, "\n");
  }
  if (kept.empty()) kept = header;
  absl::Status status = WriteFile(path, kept);
  if (!status.ok()) return status;
  out.open(path, std::ios::app);
  return out ? absl::OkStatus() : FileError(path, "append to");
}

// NOT_FOUND, or DATA_LOSS if it is no summary.
absl::StatusOr<RunTotals> ReadTotals(const std::string& path) {
  std::ifstream file(path);
  if (!file) {
    return absl::NotFoundError(absl::StrCat("there is no run: ", path));
  }
  auto totals = RunTotalsFromJson(
      nlohmann::json::parse(file, nullptr, /*allow_exceptions=*/false));
  if (totals.ok()) return totals;
  return absl::DataLossError(
      absl::StrCat(path, ": ", std::string(totals.status().message())));
}

double MeanOfLast(const std::vector<double>& values, int64_t count) {
  count = std::min<int64_t>(count, values.size());
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += values[values.size() - 1 - i];
  return count == 0 ? 0 : sum / static_cast<double>(count);
}

}  // namespace

absl::StatusOr<std::unique_ptr<RunDirectory>> RunDirectory::Open(
    const std::string& path, bool resume,
    const nlohmann::ordered_json& config) {
  std::unique_ptr<RunDirectory> directory(new RunDirectory(path, config));
  absl::Status status = resume ? directory->Resume() : directory->Create();
  if (!status.ok()) return status;
  return directory;
}

RunDirectory::RunDirectory(std::string path, nlohmann::ordered_json config)
    : path_(std::move(path)),
      opened_(absl::Now()),
      config_(std::move(config)) {}

std::string RunDirectory::File(const std::string& name) const {
  return (fs::path(path_) / name).string();
}

absl::Status RunDirectory::Create() {
  absl::MutexLock lock(&mu_);
  const auto before = ReadTotals(File("summary.json"));
  // A run that ended before its first episode left nothing to keep.
  if (fs::exists(File("summary.json")) &&
      (!before.ok() || before->episodes > 0 || before->updates > 0)) {
    return absl::FailedPreconditionError(
        absl::StrCat(path_,
                     " holds a run already: continue it with --resume, "
                     "or choose another --run_dir"));
  }
  std::error_code error;
  fs::create_directories(path_, error);
  if (error) return FileError(path_, "make the folder");
  return OpenFiles();
}

absl::Status RunDirectory::Resume() {
  absl::MutexLock lock(&mu_);
  auto totals = ReadTotals(File("summary.json"));
  if (!totals.ok()) return totals.status();
  totals_ = *std::move(totals);
  ++totals_.restarts;
  earlier_seconds_ = totals_.wall_seconds;
  totals_.finished = false;
  return OpenFiles();
}

absl::Status RunDirectory::OpenFiles() {
  const int64_t updates = totals_.all_updates();
  absl::Status status = WriteFile(File("config.json"), config_.dump(2) + "\n");
  if (status.ok()) {
    status = OpenAt(File("episodes.csv"), totals_.episodes + 1,
                    EpisodeCsvHeader(), episodes_);
  }
  if (status.ok()) {
    status = OpenAt(File("evaluations.csv"), totals_.evaluations + 1,
                    EpisodeCsvHeader(), evaluations_);
  }
  if (status.ok()) {
    status =
        OpenAt(File("updates.csv"), updates + 1, UpdateCsvHeader(), updates_);
  }
  if (status.ok()) {
    status = OpenAt(File("steps.jsonl"), totals_.episodes, "", steps_);
  }
  if (status.ok()) status = OpenEvents();
  return status.ok() ? WriteSummary() : status;
}

absl::Status RunDirectory::OpenEvents() {
  const bool resumed = totals_.restarts > 0;
  const std::string path = File(EventFile::kName);
  auto events = resumed ? EventFile::Resume(path, totals_.all_updates())
                        : EventFile::Create(path);
  if (!events.ok()) return events.status();
  events_ = *std::move(events);
  return events_->AddText(totals_.all_updates(), absl::Now(), "config",
                          ConfigMarkdown(config_));
}

absl::Status RunDirectory::AddEpisode(const FinishedEpisode& episode) {
  absl::MutexLock lock(&mu_);
  episodes_ << EpisodeCsvLine(episode, totals_.episodes + 1) << std::flush;
  steps_ << StepsLine(episode) << std::flush;
  if (!episodes_) return FileError(File("episodes.csv"), "write");
  if (!steps_) return FileError(File("steps.jsonl"), "write");
  totals_.Add(episode);
  return WriteSummary();
}

absl::Status RunDirectory::AddEvaluation(
    const std::vector<FinishedEpisode>& episodes) {
  absl::MutexLock lock(&mu_);
  for (const FinishedEpisode& episode : episodes) {
    evaluations_ << EpisodeCsvLine(episode, ++totals_.evaluations);
  }
  evaluations_ << std::flush;
  if (!evaluations_) return FileError(File("evaluations.csv"), "write");
  absl::Status status = events_->AddScalars(totals_.all_updates(), absl::Now(),
                                            EvaluationScalars(episodes));
  return status.ok() ? WriteSummary() : status;
}

absl::Status RunDirectory::AddUpdate(const UpdateReport& update,
                                     int64_t episodes, double collect_seconds,
                                     double update_seconds) {
  absl::MutexLock lock(&mu_);
  totals_.Add(update);
  UpdateRecord record;
  record.number = totals_.all_updates();
  record.episodes = episodes;
  record.mean_return = MeanOfLast(totals_.episode_return, episodes);
  record.mean_host_accuracy = MeanOfLast(totals_.host_accuracy, episodes);
  record.mean_host_accuracy_without_seeds =
      MeanOfLast(totals_.host_accuracy_without_seeds, episodes);
  record.collect_seconds = collect_seconds;
  record.update_seconds = update_seconds;
  updates_ << UpdateCsvLine(update, record) << std::flush;
  if (!updates_) return FileError(File("updates.csv"), "write");
  std::map<std::string, double> scalars = UpdateScalars(update, record);
  scalars["progress/env_steps"] = static_cast<double>(totals_.env_steps);
  scalars["progress/episodes"] = static_cast<double>(totals_.episodes);
  absl::Status status =
      events_->AddScalars(record.number, absl::Now(), scalars);
  return status.ok() ? WriteSummary() : status;
}

RunTotals RunDirectory::totals() const {
  absl::MutexLock lock(&mu_);
  return totals_;
}

absl::Status RunDirectory::WriteSummary() {
  totals_.wall_seconds =
      earlier_seconds_ + absl::ToDoubleSeconds(absl::Now() - opened_);
  nlohmann::ordered_json json = ToJson(totals_);
  json["config"] = config_;
  return WriteFile(File("summary.json"), json.dump(2) + "\n");
}

}  // namespace esper::client
