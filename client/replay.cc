#include "client/replay.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <random>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/policy_messages.h"
#include "client/recording_records.h"
#include "nlohmann/json.hpp"

namespace esper::client {
namespace {

constexpr double kTolerance = 1e-3;
constexpr double kBf16Tolerance = 5e-2;

bool IsBf16(const v1::ResponseHeader& header) {
  return header.precision() == v1::INFERENCE_PRECISION_BF16;
}

// Names of the heads in storage order, and the sizes of the Gaussian ones; 0
// for the others. Empty for a specification that does not parse.
struct Heads {
  std::vector<std::string> names;
  std::vector<int64_t> continuous;
};

Heads HeadsOf(const std::string& spec_json) {
  Heads heads;
  const auto spec = nlohmann::json::parse(spec_json, nullptr,
                                          /*allow_exceptions=*/false);
  if (!spec.is_object() || !spec.contains("heads")) return heads;
  for (const auto& head : spec["heads"]) {
    if (!head.is_object()) return {};
    heads.names.push_back(head.value("name", "?"));
    heads.continuous.push_back(head.value("kind", "") == "gaussian"
                                   ? head.value("size", int64_t{1})
                                   : 0);
  }
  return heads;
}

// An episode of the log in the replay.
struct Episode {
  std::string name;
  EpisodeHandle handle;
  int64_t steps = 0;  // Taken.
};

class Replayer {
 public:
  Replayer(PolicyClient& client, const Heads& heads, double tolerance,
           ReplayReport* report)
      : client_(client),
        heads_(heads),
        tolerance_(tolerance),
        report_(report),
        prefix_(absl::StrCat("replay-", std::random_device()())) {}

  absl::Status Open(const log::OpenRecord& record) {
    std::vector<EpisodeStart> starts;
    for (const v1::EpisodeStart& start : record.request().episodes()) {
      starts.push_back({absl::StrCat(prefix_, "/", opened_++), 1, start.seed(),
                        start.deterministic()});
    }
    if (record.response().episode_ids_size() !=
        static_cast<int>(starts.size())) {
      return absl::DataLossError("The log opens episodes that have no ids.");
    }
    auto handles = client_.OpenEpisodes(starts);
    if (!handles.ok()) return handles.status();
    for (size_t i = 0; i < starts.size(); ++i) {
      Episode episode;
      episode.name = record.request().episodes(i).environment_key();
      episode.handle = (*handles)[i];
      episodes_[record.response().episode_ids(i)] = std::move(episode);
    }
    report_->episodes += static_cast<int64_t>(starts.size());
    return absl::OkStatus();
  }

  // Sets report_->difference if there is one.
  absl::Status Step(const log::StepRecord& record) {
    v1::GetActionRequest request = record.request();
    std::vector<std::string> names;
    for (v1::StepRow& row : *request.mutable_rows()) {
      names.push_back(NameOf(row));
      const absl::Status readdressed = Readdress(&row);
      if (!readdressed.ok()) return readdressed;
    }
    const auto response = client_.GetActionMessage(request);
    if (!response.ok()) return response.status();
    const auto recorded = FromResponse(record.response(), request.rows_size());
    if (!recorded.ok()) {
      return absl::DataLossError(std::string(recorded.status().message()));
    }
    const auto replayed = FromResponse(*response, request.rows_size());
    if (!replayed.ok()) return replayed.status();
    for (int i = 0; i < request.rows_size(); ++i) {
      const ActionRow& before = (*recorded)[i];
      const ActionRow& now = (*replayed)[i];
      if (!before.recurrent_state.empty()) {
        states_[before.recurrent_state] = now.recurrent_state;
      }
      Compare(before, now);
      if (report_->difference) {
        report_->difference->episode = names[i];
        report_->difference->step = request.rows(i).step();
        return absl::OkStatus();
      }
      ++report_->steps;
    }
    return absl::OkStatus();
  }

  absl::Status Close(const log::CloseRecord& record) {
    std::vector<std::string> ids;
    for (const v1::EpisodeEnd& end : record.request().episodes()) {
      ids.push_back(end.episode_id());
    }
    return Abandon(ids);
  }

  absl::Status CloseAll() {
    std::vector<std::string> ids;
    for (const auto& [id, episode] : episodes_) ids.push_back(id);
    return Abandon(ids);
  }

 private:
  std::string NameOf(const v1::StepRow& row) const {
    const auto it = episodes_.find(row.episode_id());
    if (it != episodes_.end()) return it->second.name;
    if (!row.has_client_episode()) return "held by the client";
    return absl::StrCat("held by the client, seed ",
                        row.client_episode().seed());
  }

  // Names the replay's episode instead of the log's.
  absl::Status Readdress(v1::StepRow* row) {
    if (row->has_client_episode()) {
      ++report_->episodes;
      return absl::OkStatus();
    }
    if (!row->recurrent_state().empty()) {
      const auto state = states_.find(row->recurrent_state());
      if (state != states_.end()) row->set_recurrent_state(state->second);
      return absl::OkStatus();
    }
    const auto it = episodes_.find(row->episode_id());
    if (it == episodes_.end()) {
      return absl::DataLossError(
          "The log takes a step of an episode that it does not open.");
    }
    row->set_episode_id(it->second.handle.id);
    row->set_incarnation(it->second.handle.incarnation);
    it->second.steps = std::max(it->second.steps, row->step() + 1);
    return absl::OkStatus();
  }

  bool Far(double a, double b) const {
    return !(std::abs(a - b) <= tolerance_ * std::max(1.0, std::abs(a)));
  }

  void Differ(const ActionRow& before, const ActionRow& now,
              const std::string& head, const std::string& recorded,
              const std::string& replayed) {
    ReplayDifference difference;
    difference.head = head;
    difference.recorded = recorded;
    difference.replayed = replayed;
    difference.recorded_version = before.policy_version;
    difference.replayed_version = now.policy_version;
    report_->difference = std::move(difference);
  }

  void Compare(const ActionRow& before, const ActionRow& now) {
    if (before.actions.size() != now.actions.size() ||
        before.continuous.size() != now.continuous.size()) {
      Differ(before, now, "all", absl::StrCat(before.actions.size(), " heads"),
             absl::StrCat(now.actions.size(), " heads"));
      return;
    }
    size_t value = 0;
    for (size_t k = 0; k < before.actions.size(); ++k) {
      const std::string name =
          k < heads_.names.size() ? heads_.names[k] : absl::StrCat(k);
      if (before.actions[k] != now.actions[k]) {
        Differ(before, now, name, absl::StrCat("action ", before.actions[k]),
               absl::StrCat("action ", now.actions[k]));
        return;
      }
      const int64_t width =
          k < heads_.continuous.size() ? heads_.continuous[k] : 0;
      for (int64_t i = 0; i < width && value < before.continuous.size();
           ++i, ++value) {
        if (!Far(before.continuous[value], now.continuous[value])) continue;
        Differ(before, now, name,
               absl::StrCat("value ", before.continuous[value]),
               absl::StrCat("value ", now.continuous[value]));
        return;
      }
      if (Far(before.log_probs[k], now.log_probs[k])) {
        Differ(before, now, name,
               absl::StrCat("log-probability ", before.log_probs[k]),
               absl::StrCat("log-probability ", now.log_probs[k]));
        return;
      }
      report_->largest_log_prob_difference =
          std::max(report_->largest_log_prob_difference,
                   static_cast<double>(
                       std::abs(before.log_probs[k] - now.log_probs[k])));
    }
    if (Far(before.value, now.value)) {
      Differ(before, now, "value", absl::StrCat(before.value),
             absl::StrCat(now.value));
    }
  }

  // Frees the rows of episodes on the server.
  absl::Status Abandon(const std::vector<std::string>& ids) {
    std::vector<EpisodeClose> closes;
    for (const std::string& id : ids) {
      const auto it = episodes_.find(id);
      if (it == episodes_.end()) continue;
      EpisodeClose close;
      close.episode = it->second.handle;
      close.steps = it->second.steps;
      close.end_kind = v1::END_KIND_ABORTED;
      closes.push_back(std::move(close));
      episodes_.erase(it);
    }
    if (closes.empty()) return absl::OkStatus();
    return client_.CloseEpisodes(closes).status();
  }

  PolicyClient& client_;
  const Heads heads_;
  const double tolerance_;
  ReplayReport* const report_;
  const std::string prefix_;
  int64_t opened_ = 0;
  std::map<std::string, Episode> episodes_;  // By the log's id.
  // States that clients hold: the log's to the replay's.
  std::map<std::string, std::string> states_;
};

absl::Status ReplayRecord(const log::ActionLogRecord& record,
                          Replayer* replayer) {
  switch (record.record_case()) {
    case log::ActionLogRecord::kOpened:
      return replayer->Open(record.opened());
    case log::ActionLogRecord::kSteps:
      return replayer->Step(record.steps());
    case log::ActionLogRecord::kClosed:
      return replayer->Close(record.closed());
    case log::ActionLogRecord::kHeader:
    case log::ActionLogRecord::RECORD_NOT_SET:
      break;
  }
  return absl::DataLossError("The log has a header in its middle.");
}

// Replays what `next` gives until it gives nothing. `recorded`: of the first
// answer.
using NextRecord =
    std::function<absl::StatusOr<std::optional<log::ActionLogRecord>>()>;
absl::StatusOr<ReplayReport> ReplayAll(const v1::ResponseHeader& recorded,
                                       const NextRecord& next,
                                       PolicyClient& client, double tolerance) {
  const auto policy = client.GetPolicy();
  if (!policy.ok()) return policy.status();
  ReplayReport report;
  report.recorded = recorded;
  report.served = policy->header();
  if (report.recorded.spec_digest() != report.served.spec_digest()) {
    return absl::FailedPreconditionError(
        absl::StrCat("The policy that was recorded has the specification ",
                     report.recorded.spec_digest(), ", the server's is ",
                     report.served.spec_digest(), "."));
  }
  if (tolerance <= 0) {
    const bool bf16 = IsBf16(report.recorded) || IsBf16(report.served);
    tolerance = bf16 ? kBf16Tolerance : kTolerance;
  }
  Replayer replayer(client, HeadsOf(policy->spec_json()), tolerance, &report);
  absl::Status status;
  while (status.ok() && !report.difference) {
    const auto record = next();
    if (!record.ok()) {
      status = record.status();
    } else if (!record->has_value()) {
      break;
    } else {
      status = ReplayRecord(**record, &replayer);
    }
  }
  const absl::Status closed = replayer.CloseAll();
  if (!status.ok()) return status;
  if (!closed.ok()) return closed;
  return report;
}

}  // namespace

absl::StatusOr<ReplayReport> Replay(ActionLogReader& log, PolicyClient& client,
                                    double tolerance) {
  auto report = ReplayAll(
      log.header().server(), [&log] { return log.Next(); }, client, tolerance);
  if (report.ok()) report->cut_off = log.cut_off();
  return report;
}

absl::StatusOr<ReplayReport> Replay(const v1::Recording& recording,
                                    PolicyClient& client, double tolerance) {
  RecordingRecords records(recording);
  return ReplayAll(
      HeaderOf(recording), [&records] { return records.Next(); }, client,
      tolerance);
}

std::string DescribeReplay(const ReplayReport& report) {
  std::string text;
  if (report.difference) {
    const ReplayDifference& difference = *report.difference;
    text = absl::StrCat("first difference: episode ", difference.episode,
                        ", step ", difference.step, ", head ", difference.head,
                        ": recorded ", difference.recorded, " (version ",
                        difference.recorded_version, "), replayed ",
                        difference.replayed, " (version ",
                        difference.replayed_version, "); ", report.steps,
                        " steps before it identical");
  } else {
    text = absl::StrCat(report.steps, " steps of ", report.episodes,
                        " episodes identical; log-probabilities differ by at "
                        "most ",
                        report.largest_log_prob_difference);
  }
  if (report.cut_off) absl::StrAppend(&text, "; the log's last record is cut");
  return text + "\n";
}

}  // namespace esper::client
