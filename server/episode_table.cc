#include "server/episode_table.h"

#include <algorithm>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "server/episode_id.h"
#include "server/recording_store.h"
#include "server/refusal.h"

namespace esper::server {
namespace {

constexpr size_t kMaxKeyBytes = 256;

absl::Status OutOfOrder(const std::string& field, int64_t row, int64_t got,
                        int64_t expected) {
  return RefuseRow("STEP_OUT_OF_ORDER", field, row,
                   absl::StrCat("step ", got, " was sent where step ", expected,
                                " is expected."),
                   "Send the expected step, or the one before it to get its "
                   "answer again.",
                   expected);
}

absl::Status WrongIncarnation(const std::string& field, int64_t row,
                              const std::string& message) {
  return RefuseRow("WRONG_INCARNATION", field, row, message,
                   "Open the environment under a higher incarnation.");
}

// Environments of different owners may have the same key.
std::string OwnedKey(const EpisodeStart& start) {
  return absl::StrCat(start.owner, absl::string_view("\0", 1),
                      start.environment_key);
}

bool IsHeld(const StepClaim& claim) { return claim.held != nullptr; }
bool IsHeld(const CloseClaim&) { return false; }

// The step of an episode that the table does not know.
StepTicket HeldTicket(const StepClaim& claim) {
  StepTicket ticket;
  ticket.held = claim.held;
  ticket.seed = claim.held->seed;
  ticket.step = claim.held->step;
  ticket.deterministic = claim.held->deterministic;
  return ticket;
}

// MALFORMED_REQUEST if two claims name the same episode.
template <typename Claim>
absl::Status CheckDistinct(const std::vector<Claim>& claims,
                           const std::string& field) {
  absl::flat_hash_set<std::string> seen;
  for (size_t row = 0; row < claims.size(); ++row) {
    if (IsHeld(claims[row])) continue;
    if (!seen.insert(claims[row].episode_id).second) {
      return RefuseRow("MALFORMED_REQUEST", field, row,
                       "the episode is named twice in one call.",
                       "Name each episode at most once per call.");
    }
  }
  return absl::OkStatus();
}

}  // namespace

EpisodeTable::EpisodeTable(const Options& options, StatePool* pool, Clock clock,
                           RecordingStore* recordings)
    : options_(options),
      pool_(pool),
      clock_(std::move(clock)),
      recordings_(recordings) {}

absl::Status EpisodeTable::CheckStarts(
    const std::vector<EpisodeStart>& starts) const {
  absl::flat_hash_set<std::string> keys;
  int64_t rows_freed = 0;
  int64_t superseded = 0;
  for (size_t row = 0; row < starts.size(); ++row) {
    const EpisodeStart& start = starts[row];
    const std::string& key = start.environment_key;
    if (key.empty() || key.size() > kMaxKeyBytes) {
      return RefuseRow(
          "MALFORMED_REQUEST", "environment_key", row,
          absl::StrCat("the environment key has ", key.size(), " bytes."),
          "Use 1 to 256 bytes.");
    }
    if (start.incarnation == 0) {
      return RefuseRow("MALFORMED_REQUEST", "incarnation", row,
                       "the incarnation is 0.", "Count incarnations from 1.");
    }
    if (start.record && recordings_ == nullptr) {
      return RefuseRow("MALFORMED_REQUEST", "record", row,
                       "episodes are not recorded here.",
                       "Leave `record` unset.");
    }
    if (!keys.insert(OwnedKey(start)).second) {
      return RefuseRow("MALFORMED_REQUEST", "environment_key", row,
                       "the environment key is named twice in one call.",
                       "Name each environment at most once per call.");
    }
    const auto it = by_key_.find(OwnedKey(start));
    if (it == by_key_.end()) continue;
    const Episode& open = *it->second;
    if (start.incarnation <= open.start.incarnation) {
      return WrongIncarnation(
          "incarnation", row,
          absl::StrCat("the environment is open under incarnation ",
                       open.start.incarnation, "."));
    }
    ++superseded;
    if (!open.claimed) ++rows_freed;
  }
  const int64_t wanted = static_cast<int64_t>(starts.size());
  const int64_t open = static_cast<int64_t>(by_id_.size()) - superseded;
  if (open + wanted > options_.max_episodes ||
      pool_->available() + rows_freed < wanted) {
    ErrorDetail detail;
    detail.reason = "BUDGET_EXCEEDED";
    detail.field = "max_episodes";
    detail.hint = "Close episodes, or raise --max_episodes.";
    return MakeStatus(
        absl::StatusCode::kResourceExhausted, detail,
        absl::StrCat("The budget max_episodes of ", options_.max_episodes,
                     " is used up: ", by_id_.size(), " are open and ", wanted,
                     " more were asked for."));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<std::string>> EpisodeTable::Open(
    const std::vector<EpisodeStart>& starts) {
  std::vector<std::string> ids;
  for (size_t i = 0; i < starts.size(); ++i) {
    auto id = NewEpisodeId();
    if (!id.ok()) return id.status();
    ids.push_back(*std::move(id));
  }
  absl::MutexLock lock(&mu_);
  ExpireIdle();
  const absl::Status checked = CheckStarts(starts);
  if (!checked.ok()) return checked;
  std::vector<std::shared_ptr<Recording>> recordings(starts.size());
  if (recordings_ != nullptr) {
    auto opened = recordings_->Open(ids, starts);
    if (!opened.ok()) return opened.status();
    recordings = *std::move(opened);
  }
  for (const EpisodeStart& start : starts) {
    const auto older = by_key_.find(OwnedKey(start));
    if (older == by_key_.end()) continue;
    Ended ended;
    ended.why = Ended::Why::kSuperseded;
    End(older->second, ended);
  }
  for (size_t i = 0; i < starts.size(); ++i) {
    auto episode = std::make_shared<Episode>();
    episode->id = ids[i];
    episode->start = starts[i];
    episode->recording = std::move(recordings[i]);
    episode->state_row = pool_->Allocate().value();  // Checked to be there.
    by_id_[episode->id] = episode;
    by_key_[OwnedKey(starts[i])] = episode;
    episode->lease_position = by_lease_.insert(by_lease_.end(), episode);
    episode->expiry = clock_() + options_.lease;
  }
  return ids;
}

template <typename Claim>
absl::StatusOr<std::shared_ptr<Episode>> EpisodeTable::Find(const Claim& claim,
                                                            int64_t row) const {
  const auto it = by_id_.find(claim.episode_id);
  if (it != by_id_.end() && it->second->start.owner == claim.caller) {
    const uint64_t open = it->second->start.incarnation;
    if (open == claim.incarnation) return it->second;
    return WrongIncarnation(
        "incarnation", row,
        absl::StrCat("the episode was opened under incarnation ", open,
                     ", the call says ", claim.incarnation, "."));
  }
  const auto ended = ended_.find(claim.episode_id);
  const bool known =
      ended != ended_.end() && ended->second.owner == claim.caller;
  if (known) {
    switch (ended->second.why) {
      case Ended::Why::kExpired:
        return RefuseRow(
            "EPISODE_EXPIRED", "episode_id", row,
            "the episode was idle for longer than its lease.",
            "Open a new episode, and call more often than the lease "
            "runs out.");
      case Ended::Why::kSuperseded:
        return WrongIncarnation(
            "episode_id", row,
            "the environment was opened again under a higher incarnation.");
      case Ended::Why::kClosed:
        break;
    }
  }
  return RefuseRow(
      "UNKNOWN_EPISODE", "episode_id", row,
      known ? "the episode is closed." : "there is no such episode.",
      "Open a new episode.");
}

absl::Status EpisodeTable::CheckOutcome(const Episode& episode,
                                        const Outcome& outcome,
                                        int64_t row) const {
  if (options_.driver_head < 0) return absl::OkStatus();
  const int64_t chosen = episode.last_answer.actions[options_.driver_head];
  if (outcome.effective_choice == chosen ||
      (options_.idle_choice >= 0 &&
       outcome.effective_choice == options_.idle_choice)) {
    return absl::OkStatus();
  }
  return RefuseRow(
      "INVALID_ACTION", "effective_choice", row,
      absl::StrCat("the outcome says that driver action ",
                   outcome.effective_choice,
                   " took effect, but the policy chose ", chosen, "."),
      "Report the chosen driver action, or the idle one if the "
      "environment refused it.",
      episode.next_step - 1);
}

absl::StatusOr<StepTicket> EpisodeTable::CheckStep(const StepClaim& claim,
                                                   int64_t row) const {
  auto found = Find(claim, row);
  if (!found.ok()) return found.status();
  StepTicket ticket;
  ticket.episode = *std::move(found);
  const Episode& episode = *ticket.episode;
  ticket.state_row = episode.state_row;
  ticket.seed = episode.start.seed;
  ticket.step = claim.step;
  ticket.deterministic = episode.start.deterministic;
  if (claim.step == episode.next_step - 1 && claim.step >= 0) {
    ticket.repeated = true;
    ticket.answer = episode.last_answer;
    return ticket;
  }
  if (claim.step != episode.next_step) {
    // While a step is being taken the one after it may be on its way too: its
    // turn comes when the claim has ended.
    if (episode.claimed && claim.step == episode.next_step + 1) return ticket;
    return OutOfOrder("step", row, claim.step, episode.next_step);
  }
  if (episode.recording != nullptr && claim.step > 0 &&
      !claim.previous.has_value()) {
    return RefuseRow("MALFORMED_REQUEST", "previous_outcome", row,
                     "the episode is recorded, and the outcome of its last "
                     "step is missing.",
                     "Send previous_outcome with every step but the first.",
                     claim.step);
  }
  if (claim.previous.has_value()) {
    if (claim.step == 0) {
      return RefuseRow("MALFORMED_REQUEST", "previous_outcome", row,
                       "step 0 has no step before it.",
                       "Leave previous_outcome unset at step 0.");
    }
    const absl::Status outcome = CheckOutcome(episode, *claim.previous, row);
    if (!outcome.ok()) return outcome;
    ticket.previous = claim.previous;
  }
  return ticket;
}

template <typename Ticket>
bool EpisodeTable::AnyClaimed(const std::vector<Ticket>& tickets) {
  return std::any_of(tickets.begin(), tickets.end(), [](const Ticket& ticket) {
    return ticket.episode != nullptr && ticket.episode->claimed;
  });
}

absl::Status EpisodeTable::MakeRoom(const std::vector<StepTicket>& tickets) {
  for (size_t row = 0; row < tickets.size(); ++row) {
    const StepTicket& ticket = tickets[row];
    if (ticket.repeated || ticket.episode == nullptr ||
        ticket.episode->recording == nullptr) {
      continue;
    }
    absl::Status room = recordings_->MakeRoom(ticket.episode->recording.get(),
                                              static_cast<int64_t>(row));
    if (!room.ok()) return room;
  }
  return absl::OkStatus();
}

template <typename Ticket>
void EpisodeTable::ClaimAll(const std::vector<Ticket>& tickets) {
  for (const Ticket& ticket : tickets) {
    if (ticket.episode == nullptr) continue;
    ticket.episode->claimed = true;
    Renew(ticket.episode);
  }
}

absl::StatusOr<std::optional<std::vector<StepTicket>>> EpisodeTable::BeginSteps(
    const std::vector<StepClaim>& claims) {
  const absl::Status distinct = CheckDistinct(claims, "rows");
  if (!distinct.ok()) return distinct;
  absl::MutexLock lock(&mu_);
  ExpireIdle();
  std::vector<StepTicket> tickets;
  for (size_t row = 0; row < claims.size(); ++row) {
    if (IsHeld(claims[row])) {
      tickets.push_back(HeldTicket(claims[row]));
      continue;
    }
    auto ticket = CheckStep(claims[row], row);
    if (!ticket.ok()) return ticket.status();
    tickets.push_back(*std::move(ticket));
  }
  if (AnyClaimed(tickets)) return std::optional<std::vector<StepTicket>>();
  const absl::Status room = MakeRoom(tickets);
  if (!room.ok()) {
    // The clients are there, and wait for room.
    for (const StepTicket& ticket : tickets) {
      if (ticket.episode != nullptr) Renew(ticket.episode);
    }
    return room;
  }
  ClaimAll(tickets);
  return std::make_optional(std::move(tickets));
}

void EpisodeTable::CommitSteps(const std::vector<StepTicket>& tickets) {
  absl::MutexLock lock(&mu_);
  for (const StepTicket& ticket : tickets) {
    Episode* episode = ticket.episode.get();
    if (episode == nullptr) continue;
    if (!ticket.repeated) {
      episode->last_answer = ticket.answer;
      ++episode->next_step;
      if (ticket.previous.has_value()) {
        episode->episode_return += ticket.previous->reward;
      }
      if (episode->recording != nullptr) {
        episode->recording->CommitStep(ticket.previous);
      }
    }
    Unclaim(episode);
  }
}

void EpisodeTable::AbortSteps(const std::vector<StepTicket>& tickets) {
  absl::MutexLock lock(&mu_);
  for (const StepTicket& ticket : tickets) {
    if (ticket.episode != nullptr) Unclaim(ticket.episode.get());
  }
}

absl::StatusOr<CloseTicket> EpisodeTable::CheckClose(const CloseClaim& claim,
                                                     int64_t row) const {
  CloseTicket ticket;
  const auto closed = ended_.find(claim.episode_id);
  if (closed != ended_.end() && closed->second.why == Ended::Why::kClosed &&
      closed->second.owner == claim.caller) {
    if (closed->second.incarnation != claim.incarnation) {
      return WrongIncarnation("incarnation", row,
                              "the episode was opened under another "
                              "incarnation.");
    }
    ticket.bootstrap = closed->second.bootstrap;
    ticket.episode_return = closed->second.episode_return;
    return ticket;
  }
  auto found = Find(claim, row);
  if (!found.ok()) return found.status();
  ticket.episode = *std::move(found);
  const Episode& episode = *ticket.episode;
  ticket.state_row = episode.state_row;
  ticket.truncated = claim.truncated;
  ticket.aborted = claim.aborted;
  ticket.episode_return = episode.episode_return;
  // A claimed episode moves before this closing has its turn.
  if (episode.claimed) return ticket;
  if (claim.steps != episode.next_step) {
    return OutOfOrder("steps", row, claim.steps, episode.next_step);
  }
  if (claim.last.has_value() != (claim.steps > 0) &&
      !(claim.aborted && !claim.last.has_value())) {
    return RefuseRow(
        "MALFORMED_REQUEST", "last_outcome", row,
        claim.last.has_value() ? "there is an outcome but no step was taken."
                               : "the outcome of the last step is missing.",
        "Send the outcome of the last step, unless none was taken.");
  }
  if (claim.last.has_value()) {
    const absl::Status outcome = CheckOutcome(episode, *claim.last, row);
    if (!outcome.ok()) return outcome;
    ticket.last = claim.last;
    ticket.episode_return += claim.last->reward;
  }
  return ticket;
}

absl::StatusOr<std::optional<std::vector<CloseTicket>>>
EpisodeTable::BeginClose(const std::vector<CloseClaim>& claims) {
  const absl::Status distinct = CheckDistinct(claims, "episodes");
  if (!distinct.ok()) return distinct;
  absl::MutexLock lock(&mu_);
  ExpireIdle();
  std::vector<CloseTicket> tickets;
  for (size_t row = 0; row < claims.size(); ++row) {
    auto ticket = CheckClose(claims[row], row);
    if (!ticket.ok()) return ticket.status();
    tickets.push_back(*std::move(ticket));
  }
  if (AnyClaimed(tickets)) return std::optional<std::vector<CloseTicket>>();
  ClaimAll(tickets);
  return std::make_optional(std::move(tickets));
}

void EpisodeTable::CommitClose(const std::vector<CloseTicket>& tickets) {
  absl::MutexLock lock(&mu_);
  for (const CloseTicket& ticket : tickets) {
    if (ticket.episode == nullptr) continue;
    if (ticket.episode->recording != nullptr) {
      ticket.episode->recording->CommitEnd(ticket.last);
    }
    // Also of one that was superseded meanwhile: its end was told in time.
    RecordingEnd& end = ticket.episode->recording_end;
    end.why = ticket.aborted     ? RecordingEnd::Why::kAborted
              : ticket.truncated ? RecordingEnd::Why::kTruncated
                                 : RecordingEnd::Why::kTerminated;
    end.bootstrap = ticket.bootstrap;
    if (!ticket.episode->ended) {
      Ended ended;
      ended.bootstrap = ticket.bootstrap;
      ended.episode_return = ticket.episode_return;
      End(ticket.episode, ended);
    }
    Unclaim(ticket.episode.get());
  }
}

void EpisodeTable::AbortClose(const std::vector<CloseTicket>& tickets) {
  absl::MutexLock lock(&mu_);
  for (const CloseTicket& ticket : tickets) {
    if (ticket.episode != nullptr) Unclaim(ticket.episode.get());
  }
}

void EpisodeTable::EndRecordings() {
  absl::MutexLock lock(&mu_);
  ExpireIdle();
  for (const auto& [id, episode] : by_id_) {
    if (episode->recording == nullptr) continue;
    recordings_->Finish(std::exchange(episode->recording, nullptr),
                        {RecordingEnd::Why::kDrained, 0});
  }
}

int64_t EpisodeTable::OpenCount() {
  absl::MutexLock lock(&mu_);
  ExpireIdle();
  return static_cast<int64_t>(by_id_.size());
}

void EpisodeTable::Unclaim(Episode* episode) {
  episode->claimed = false;
  if (episode->ended) Free(episode);
}

void EpisodeTable::Free(Episode* episode) {
  pool_->Free(episode->state_row);
  if (episode->recording == nullptr) return;
  recordings_->Finish(std::exchange(episode->recording, nullptr),
                      episode->recording_end);
}

void EpisodeTable::Renew(const std::shared_ptr<Episode>& episode) {
  episode->expiry = clock_() + options_.lease;
  by_lease_.splice(by_lease_.end(), by_lease_, episode->lease_position);
}

void EpisodeTable::ExpireIdle() {
  const absl::Time now = clock_();
  while (!by_lease_.empty() && by_lease_.front()->expiry <= now) {
    const std::shared_ptr<Episode> episode = by_lease_.front();
    if (episode->claimed) {
      Renew(episode);  // Busy is not idle.
      continue;
    }
    Ended ended;
    ended.why = Ended::Why::kExpired;
    End(episode, ended);
  }
}

std::map<std::string, int64_t> EpisodeTable::EndedByCause() const {
  absl::MutexLock lock(&mu_);
  return ended_by_cause_;
}

const char* EpisodeTable::CauseName(Ended::Why why) {
  switch (why) {
    case Ended::Why::kClosed:
      return "closed";
    case Ended::Why::kExpired:
      return "expired";
    case Ended::Why::kSuperseded:
      return "superseded";
  }
  return "unknown";
}

void EpisodeTable::End(std::shared_ptr<Episode> episode, Ended ended) {
  ++ended_by_cause_[CauseName(ended.why)];
  ended.owner = episode->start.owner;
  ended.incarnation = episode->start.incarnation;
  by_id_.erase(episode->id);
  by_key_.erase(OwnedKey(episode->start));
  by_lease_.erase(episode->lease_position);
  episode->ended = true;
  if (ended.why == Ended::Why::kExpired) {
    episode->recording_end.why = RecordingEnd::Why::kExpired;
  } else if (ended.why == Ended::Why::kSuperseded) {
    episode->recording_end.why = RecordingEnd::Why::kSuperseded;
  }
  if (!episode->claimed) Free(episode.get());
  ended_[episode->id] = ended;
  ended_order_.push_back(episode->id);
  if (ended_order_.size() > options_.remembered) {
    ended_.erase(ended_order_.front());
    ended_order_.pop_front();
  }
}

}  // namespace esper::server
