#include "server/recording_store.h"

#include <algorithm>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "server/recording_message.h"
#include "server/refusal.h"
#include "spdlog/spdlog.h"

namespace esper::server {
namespace {

constexpr char kBudget[] = "max_recording_mb";
// Between two attempts to write to a disk that fails.
constexpr absl::Duration kRetryPause = absl::Seconds(1);

void Count(const v1::RecordingInfo& info, bool on_disk, int64_t by,
           v1::RecordingStatus* counts) {
  if (info.state() == v1::RECORDING_STATE_COMPLETE) {
    counts->set_complete(counts->complete() + by);
  } else {
    counts->set_incomplete(counts->incomplete() + by);
  }
  if (on_disk) counts->set_on_disk(counts->on_disk() + by);
}

}  // namespace

absl::StatusOr<RecordingOverflow> ParseRecordingOverflow(
    const std::string& name) {
  if (name == "refuse") return RecordingOverflow::kRefuse;
  if (name == "spill") return RecordingOverflow::kSpill;
  return absl::InvalidArgumentError(absl::StrCat(
      "recording_overflow must be refuse or spill, got ", name, "."));
}

RecordingStore::RecordingStore(const RecordingOptions& options,
                               const policy::PolicySpec& spec,
                               v1::InferencePrecision precision)
    : options_(options),
      layout_(spec),
      spec_digest_(spec.Digest()),
      precision_(precision),
      folder_(options.folder) {}

absl::StatusOr<std::unique_ptr<RecordingStore>> RecordingStore::Create(
    const RecordingOptions& options, const policy::PolicySpec& spec,
    v1::InferencePrecision precision) {
  const bool spills = options.overflow == RecordingOverflow::kSpill;
  if (spills && options.folder.empty()) {
    return absl::InvalidArgumentError(
        "recording_overflow=spill needs a recording_dir to spill to.");
  }
  std::unique_ptr<RecordingStore> store(
      new RecordingStore(options, spec, precision));
  const int64_t smallest =
      Recording::kFixedBytes + Recording::BlockBytes(store->layout_);
  if (options.max_bytes < smallest) {
    return absl::InvalidArgumentError(
        absl::StrCat(kBudget, " must hold at least one recording, which takes ",
                     smallest, " bytes; it is ", options.max_bytes, " bytes."));
  }
  absl::Status found = store->FindOnDisk();
  if (!found.ok()) return found;
  if (spills) {
    store->writer_ = std::thread([raw = store.get()] { raw->WriteLoop(); });
  }
  return store;
}

RecordingStore::~RecordingStore() { Flush(); }

absl::Status RecordingStore::FindOnDisk() {
  auto infos = folder_.Open();
  if (!infos.ok()) return infos.status();
  absl::MutexLock lock(&mu_);
  for (v1::RecordingInfo& info : *infos) {
    Entry entry;
    entry.info = std::move(info);
    entry.on_disk = true;
    AddLocked(std::move(entry));
  }
  if (!infos->empty()) {
    spdlog::info("found {} recordings in {}", infos->size(), folder_.path());
  }
  return absl::OkStatus();
}

absl::Status RecordingStore::TakeLocked(int64_t bytes, int64_t row) {
  while (bytes_ + bytes > options_.max_bytes) {
    if (EvictLocked()) continue;
    if (!to_write_.empty() && !disk_fails_) {
      return RefuseRow("QUEUE_FULL", kBudget, row,
                       "the memory for recordings is full of those that are "
                       "being written to the disk.",
                       "Retry after a short, growing delay.");
    }
    return RefuseRow(
        "BUDGET_EXCEEDED", kBudget, row,
        absl::StrCat("the budget ", kBudget, " of ", options_.max_bytes >> 20,
                     " MiB is used up: ", open_.size(),
                     " episodes are being recorded, ", ended_.size(),
                     " recordings have ended."),
        "Discard recordings that were trained on, raise --max_recording_mb, or "
        "let them go to the disk with --recording_overflow=spill.");
  }
  bytes_ += bytes;
  return absl::OkStatus();
}

bool RecordingStore::EvictLocked() {
  if (evictable_.empty()) return false;
  const auto it = ended_.find(*evictable_.begin());
  Entry& entry = it->second;
  if (entry.on_disk) {
    evictable_.erase(evictable_.begin());
    bytes_ -= entry.memory->bytes();
    entry.memory = nullptr;
    return true;
  }
  spdlog::warn("the incomplete recording {} of {} made room for others",
               absl::BytesToHexString(entry.info.episode_id()),
               entry.info.environment_key());
  counts_.set_evicted(counts_.evicted() + 1);
  EraseLocked(it);
  return true;
}

RecordingStore::Entries::iterator RecordingStore::FindLocked(
    const std::string& id) {
  const auto number = number_of_.find(id);
  return number == number_of_.end() ? ended_.end()
                                    : ended_.find(number->second);
}

int64_t RecordingStore::AddLocked(Entry entry) {
  Count(entry.info, entry.on_disk, 1, &counts_);
  number_of_[entry.info.episode_id()] = ++last_number_;
  ended_[last_number_] = std::move(entry);
  return last_number_;
}

void RecordingStore::EraseLocked(Entries::iterator it) {
  const Entry& entry = it->second;
  if (entry.memory != nullptr) bytes_ -= entry.memory->bytes();
  Count(entry.info, entry.on_disk, -1, &counts_);
  number_of_.erase(entry.info.episode_id());
  evictable_.erase(it->first);
  ended_.erase(it);
}

absl::StatusOr<std::vector<std::shared_ptr<Recording>>> RecordingStore::Open(
    const std::vector<std::string>& ids,
    const std::vector<EpisodeStart>& starts) {
  std::vector<std::shared_ptr<Recording>> recordings(starts.size());
  int64_t bytes = 0;
  int64_t first = -1;
  for (size_t i = 0; i < starts.size(); ++i) {
    if (!starts[i].record) continue;
    if (first < 0) first = static_cast<int64_t>(i);
    recordings[i] = std::make_shared<Recording>(&layout_, ids[i], starts[i]);
    recordings[i]->AddBlock();
    bytes += recordings[i]->bytes();
  }
  if (bytes == 0) return recordings;
  absl::MutexLock lock(&mu_);
  absl::Status taken = TakeLocked(bytes, first);
  if (!taken.ok()) return taken;
  for (const auto& recording : recordings) {
    if (recording != nullptr) open_.insert(recording->id());
  }
  return recordings;
}

absl::Status RecordingStore::MakeRoom(Recording* recording, int64_t row) {
  if (recording->HasRoom()) return absl::OkStatus();
  recording->AddBlock();
  absl::MutexLock lock(&mu_);
  absl::Status taken = TakeLocked(Recording::BlockBytes(layout_), row);
  if (!taken.ok()) recording->RemoveBlock();
  return taken;
}

void RecordingStore::Finish(std::shared_ptr<const Recording> recording,
                            const RecordingEnd& end) {
  Entry entry;
  entry.info = InfoOf(*recording, end, precision_);
  entry.end = end;
  entry.memory = std::move(recording);
  const std::string id = entry.info.episode_id();
  absl::MutexLock lock(&mu_);
  open_.erase(id);
  if (end.complete()) {
    counts_.set_completed(counts_.completed() + 1);
  } else {
    ++(*counts_.mutable_incomplete_causes())[CauseName(entry.info.cause())];
  }
  if (entry.info.steps() == 0) {
    bytes_ -= entry.memory->bytes();
    return;
  }
  const int64_t number = AddLocked(std::move(entry));
  if (options_.overflow == RecordingOverflow::kSpill) {
    to_write_.push_back(id);
  } else if (!end.complete()) {
    evictable_.insert(number);
  }
}

v1::Recording RecordingStore::ToMessage(const Entry& entry) const {
  v1::Recording message;
  *message.mutable_info() = entry.info;
  *message.mutable_trajectory() =
      TrajectoryOf(*entry.memory, entry.end, spec_digest_);
  return message;
}

absl::StatusOr<v1::Recording> RecordingStore::Read(const std::string& id,
                                                   int64_t row) const {
  Entry entry;
  {
    absl::MutexLock lock(&mu_);
    const auto number = number_of_.find(id);
    if (number == number_of_.end()) {
      if (open_.contains(id)) {
        return RefuseRow("INCOMPLETE_RECORDING", "episode_id", row,
                         row < 0 ? "The episode is still being recorded."
                                 : "the episode is still being recorded.",
                         "Close the episode first.");
      }
      return RefuseRow("UNKNOWN_EPISODE", "episode_id", row,
                       row < 0 ? "There is no recording of such an episode."
                               : "there is no recording of such an episode.",
                       "Open episodes with `record`; ListRecordings tells "
                       "which recordings there are.");
    }
    entry = ended_.at(number->second);
  }
  if (entry.memory != nullptr) return ToMessage(entry);
  return folder_.Read(id);
}

RecordingStore::Page RecordingStore::List(v1::RecordingState state,
                                          int64_t after, int limit) const {
  expire_();
  Page page;
  absl::MutexLock lock(&mu_);
  for (auto it = ended_.upper_bound(after); it != ended_.end(); ++it) {
    const v1::RecordingInfo& info = it->second.info;
    if (state != v1::RECORDING_STATE_UNSPECIFIED && info.state() != state) {
      continue;
    }
    if (static_cast<int>(page.recordings.size()) == limit) {
      page.next = after;
      break;
    }
    page.recordings.push_back(info);
    after = it->first;
  }
  return page;
}

absl::StatusOr<int64_t> RecordingStore::Discard(
    const std::vector<std::string>& ids, bool all_incomplete) {
  expire_();
  std::vector<std::string> files;
  int64_t discarded = 0;
  {
    absl::MutexLock lock(&mu_);
    const auto discard = [&](Entries::iterator it) {
      mu_.AssertHeld();
      if (it->second.on_disk) files.push_back(it->second.info.episode_id());
      EraseLocked(it);
      ++discarded;
    };
    for (const std::string& id : ids) {
      const auto it = FindLocked(id);
      if (it != ended_.end()) discard(it);
    }
    for (auto it = ended_.begin(); all_incomplete && it != ended_.end();) {
      const auto next = std::next(it);
      if (it->second.info.state() != v1::RECORDING_STATE_COMPLETE) discard(it);
      it = next;
    }
    counts_.set_discarded(counts_.discarded() + discarded);
  }
  if (!files.empty()) {
    absl::Status removed = folder_.Remove(files);
    if (!removed.ok()) return removed;
  }
  return discarded;
}

bool RecordingStore::WriteOne() {
  Entry entry;
  {
    absl::MutexLock lock(&mu_);
    if (to_write_.empty()) return true;
    const auto it = FindLocked(to_write_.front());
    if (it == ended_.end()) {
      to_write_.pop_front();
      return true;
    }
    entry = it->second;
  }
  const std::string id = entry.info.episode_id();
  const absl::Status written = folder_.Write(ToMessage(entry));
  bool discarded = false;
  {
    absl::MutexLock lock(&mu_);
    to_write_.pop_front();  // Others only add behind it.
    disk_fails_ = !written.ok();
    const auto it = FindLocked(id);
    discarded = it == ended_.end();
    if (!discarded && written.ok()) {
      it->second.on_disk = true;
      counts_.set_on_disk(counts_.on_disk() + 1);
      evictable_.insert(it->first);
    } else if (!discarded) {
      to_write_.push_back(id);  // The others are tried first.
    }
  }
  if (!written.ok()) {
    spdlog::error("a recording stays in memory: {}",
                  std::string(written.message()));
  } else if (discarded) {
    const absl::Status removed = folder_.Remove({id});
    if (!removed.ok()) spdlog::error("{}", std::string(removed.message()));
  }
  return written.ok();
}

void RecordingStore::WriteLoop() {
  while (true) {
    {
      absl::MutexLock lock(&mu_);
      mu_.Await(absl::Condition(this, &RecordingStore::CanWriteOrStop));
      if (stopping_) return;
    }
    if (WriteOne()) continue;
    absl::MutexLock lock(&mu_);
    mu_.AwaitWithTimeout(absl::Condition(&stopping_), kRetryPause);
  }
}

void RecordingStore::StopWriting() {
  {
    absl::MutexLock lock(&mu_);
    stopping_ = true;
  }
  if (writer_.joinable()) writer_.join();
}

void RecordingStore::Flush() {
  StopWriting();
  int64_t left = 0;
  {
    absl::MutexLock lock(&mu_);
    to_write_.clear();
    for (const auto& [number, entry] : ended_) {
      if (!entry.on_disk) to_write_.push_back(entry.info.episode_id());
    }
    left = static_cast<int64_t>(to_write_.size());
    if (!folder_.enabled()) to_write_.clear();
  }
  if (left == 0) return;
  if (!folder_.enabled()) {
    spdlog::warn(
        "{} recordings end with the server: there is no --recording_dir", left);
    return;
  }
  int64_t failed = 0;
  for (int64_t i = 0; i < left; ++i) failed += WriteOne() ? 0 : 1;
  spdlog::info("wrote {} recordings to {}", left - failed, folder_.path());
  if (failed > 0) {
    spdlog::error("{} recordings could not be written and are lost", failed);
  }
}

v1::RecordingStatus RecordingStore::Status() const {
  absl::MutexLock lock(&mu_);
  v1::RecordingStatus status = counts_;
  status.set_open(static_cast<int64_t>(open_.size()));
  status.set_memory_bytes(bytes_);
  status.set_max_memory_bytes(options_.max_bytes);
  return status;
}

}  // namespace esper::server
