#include "client/ctl/commands.h"

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <map>
#include <sstream>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/time.h"
#include "nlohmann/json.hpp"

namespace esper::client {
namespace {

using Json = nlohmann::ordered_json;

constexpr char kUsage[] =
    "commands: status, policy, versions, label LABEL [VERSION], unlabel LABEL "
    "[VERSION], rollback [VERSION|LABEL], checkpoints, save [NAME], restore "
    "[NAME], verify [NAME], export FILE [NAME], import FILE [NAME], "
    "recordings, replay";

std::string Cell(const Json& value) {
  if (value.is_null()) return "-";
  if (value.is_string()) return value.get<std::string>();
  if (!value.is_array()) return value.dump();
  return absl::StrJoin(value, " ", [](std::string* out, const Json& item) {
    absl::StrAppend(out, Cell(item));
  });
}

// One line per member, names left, values aligned; objects are indented.
void AppendTable(const Json& object, const std::string& indent,
                 std::string* out) {
  size_t width = 0;
  for (const auto& [name, value] : object.items()) {
    width = std::max(width, name.size());
  }
  for (const auto& [name, value] : object.items()) {
    if (value.is_object()) {
      absl::StrAppend(out, indent, name, "\n");
      AppendTable(value, indent + "  ", out);
      continue;
    }
    const std::string cell = Cell(value);
    absl::StrAppend(out, indent, name);
    if (!cell.empty()) {
      absl::StrAppend(out, std::string(width - name.size() + 2, ' '), cell);
    }
    absl::StrAppend(out, "\n");
  }
}

// One line per row of equal objects under a line of their names; columns as
// wide as they need to be.
std::string Columns(const Json& rows) {
  if (rows.empty()) return "none\n";
  std::vector<std::vector<std::string>> lines(1);
  for (const auto& [name, value] : rows[0].items()) lines[0].push_back(name);
  for (const Json& row : rows) {
    lines.emplace_back();
    for (const auto& [name, value] : row.items()) {
      const std::string cell = Cell(value);
      lines.back().push_back(cell.empty() ? "-" : cell);
    }
  }
  std::string out;
  for (const std::vector<std::string>& line : lines) {
    for (size_t i = 0; i < line.size(); ++i) {
      absl::StrAppend(&out, line[i]);
      if (i + 1 == line.size()) break;
      size_t width = 0;
      for (const auto& other : lines) width = std::max(width, other[i].size());
      out.append(width + 2 - line[i].size(), ' ');
    }
    out += "\n";
  }
  return out;
}

// RFC 3339, UTC.
std::string Time(const google::protobuf::Timestamp& time) {
  return absl::FormatTime(absl::FromUnixSeconds(time.seconds()),
                          absl::UTCTimeZone());
}

Json ToJson(const v1::CheckpointSummary& checkpoint) {
  return {{"checkpoint", checkpoint.name()},
          {"policy_version", checkpoint.policy_version()},
          {"optimizer_steps", checkpoint.optimizer_steps()},
          {"saved_at", Time(checkpoint.saved_at())},
          {"size_bytes", checkpoint.size_bytes()},
          {"automatic", checkpoint.automatic()},
          {"weights_digest", checkpoint.weights_digest()}};
}

Json ToJson(const v1::VersionSummary& version) {
  return {
      {"policy_version", version.policy_version()},
      {"labels", std::vector<std::string>(version.labels().begin(),
                                          version.labels().end())},
      {"published_at", Time(version.published_at())},
      {"precision",
       version.precision() == v1::INFERENCE_PRECISION_BF16 ? "bf16" : "fp32"},
      {"optimizer_steps", version.optimizer_steps()},
      {"rolled_back_to",
       version.rolled_back_to() > 0 ? Json(version.rolled_back_to()) : Json()},
      {"kept", version.kept()},
      {"weights_digest", version.weights_digest()}};
}

// Empty: 0.
absl::StatusOr<int64_t> ParseVersion(const std::string& text) {
  int64_t version = 0;
  if (text.empty()) return version;
  if (absl::SimpleAtoi(text, &version) && version > 0) return version;
  return absl::InvalidArgumentError(
      absl::StrCat("\"", text, "\" is no policy version."));
}

std::string Format(const Json& object, bool json) {
  if (json) {
    return object.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
  }
  std::string table;
  AppendTable(object, "", &table);
  return table;
}

// "slot 3" per head, if the specification has the usual form.
Json HeadSizes(const Json& spec) {
  Json heads = Json::array();
  const auto found = spec.find("heads");
  if (found == spec.end() || !found->is_array()) return heads;
  for (const Json& head : *found) {
    if (!head.is_object()) continue;
    heads.push_back(absl::StrCat(head.value("name", "?"), ":",
                                 head.value("size", int64_t{0})));
  }
  return heads;
}

}  // namespace

Commands::Commands(PolicyClient& policy, AdminClient& admin, bool json)
    : policy_(policy), admin_(admin), json_(json) {}

absl::StatusOr<std::string> Commands::Run(
    const std::vector<std::string>& arguments) {
  const std::string command = arguments.empty() ? "" : arguments[0];
  const std::string name = arguments.size() > 1 ? arguments[1] : "";
  if (arguments.size() == 1 && command == "status") return Status();
  if (arguments.size() == 1 && command == "policy") return Policy();
  if (arguments.size() <= 2 && command == "save") return Save(name);
  if (arguments.size() <= 2 && command == "restore") return Restore(name);
  if (arguments.size() == 1 && command == "checkpoints") return Checkpoints();
  if (arguments.size() <= 2 && command == "verify") return Verify(name);
  if (arguments.size() == 1 && command == "versions") return Versions();
  if (arguments.size() <= 2 && command == "rollback") return Rollback(name);
  if (arguments.size() == 2 || arguments.size() == 3) {
    const std::string second = arguments.size() > 2 ? arguments[2] : "";
    if (command == "label") return Label(name, second, /*remove=*/false);
    if (command == "unlabel") return Label(name, second, /*remove=*/true);
    if (command == "export") return Export(name, second);
    if (command == "import") return Import(name, second);
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "\"", absl::StrJoin(arguments, " "), "\" is no command; ", kUsage));
}

absl::StatusOr<std::string> Commands::Status() {
  auto status = admin_.GetStatus();
  if (!status.ok()) return status.status();
  Json object = {
      {"server_version", status->server_version()},
      {"uptime_seconds", status->uptime_seconds()},
      {"device", status->device()},
      {"draining", status->draining()},
      {"policy_version", status->header().policy_version()},
      {"spec_digest", status->header().spec_digest()},
      {"open_episodes", status->open_episodes()},
      {"queued_calls", status->queued_calls()},
      {"actions_served", status->actions_served()},
      {"batches_run", status->batches_run()},
      {"learner_holder", status->learner_holder().empty()
                             ? Json()
                             : Json(status->learner_holder())},
      {"transitions_trained", status->transitions_trained()},
      {"optimizer_steps", status->optimizer_steps()},
      {"publishes", status->publishes()},
      {"open_evaluations", status->open_evaluations()},
      {"graph_bytes", status->graph_bytes()},
      {"ratio_check_max", status->ratio_check_max() < 0
                              ? Json()
                              : Json(status->ratio_check_max())},
      {"ratio_alarms", status->ratio_alarms()},
      {"version_lag",
       status->version_lag() < 0 ? Json() : Json(status->version_lag())},
      {"checkpoints", std::vector<std::string>(status->checkpoints().begin(),
                                               status->checkpoints().end())},
      {"recordings",
       {{"open", status->recordings().open()},
        {"complete", status->recordings().complete()},
        {"incomplete", status->recordings().incomplete()},
        {"on_disk", status->recordings().on_disk()},
        {"memory_bytes", status->recordings().memory_bytes()},
        {"max_memory_bytes", status->recordings().max_memory_bytes()},
        {"completed", status->recordings().completed()},
        {"incomplete_causes", Json::object()},
        {"discarded", status->recordings().discarded()},
        {"evicted", status->recordings().evicted()}}},
      {"refusals", Json::object()},
  };
  for (const auto& [cause, count] : std::map<std::string, int64_t>(
           status->recordings().incomplete_causes().begin(),
           status->recordings().incomplete_causes().end())) {
    object["recordings"]["incomplete_causes"][cause] = count;
  }
  for (const auto& [reason, count] : std::map<std::string, int64_t>(
           status->refusals().begin(), status->refusals().end())) {
    object["refusals"][reason] = count;
  }
  return Format(object, json_);
}

absl::StatusOr<std::string> Commands::Policy() {
  auto policy = policy_.GetPolicy();
  if (!policy.ok()) return policy.status();
  const Json spec = Json::parse(policy->spec_json(), nullptr,
                                /*allow_exceptions=*/false);
  const v1::Limits& limits = policy->limits();
  Json object = {
      {"policy_version", policy->header().policy_version()},
      {"spec_digest", policy->header().spec_digest()},
      {"precision", policy->precision()},
      {"device", policy->device()},
      {"limits",
       {{"max_rows_per_call", limits.max_rows_per_call()},
        {"max_episodes", limits.max_episodes()},
        {"max_queued_calls", limits.max_queued_calls()},
        {"max_message_bytes", limits.max_message_bytes()},
        {"episode_lease_seconds", limits.episode_lease().seconds()}}},
  };
  if (json_) {
    object["spec"] = spec.is_discarded() ? Json(policy->spec_json()) : spec;
  } else if (spec.is_object()) {
    object["heads"] = HeadSizes(spec);
  }
  return Format(object, json_);
}

absl::StatusOr<std::string> Commands::Save(const std::string& name) {
  auto saved = admin_.SaveCheckpoint(name);
  if (!saved.ok()) return saved.status();
  return Format({{"checkpoint", saved->name()},
                 {"policy_version", saved->header().policy_version()},
                 {"size_bytes", saved->size_bytes()}},
                json_);
}

absl::StatusOr<std::string> Commands::Restore(const std::string& name) {
  auto restored = admin_.RestoreCheckpoint(name);
  if (!restored.ok()) return restored.status();
  return Format({{"checkpoint", restored->name()},
                 {"policy_version", restored->header().policy_version()},
                 {"optimizer_steps", restored->optimizer_steps()}},
                json_);
}

absl::StatusOr<std::string> Commands::Checkpoints() {
  auto list = admin_.ListCheckpoints();
  if (!list.ok()) return list.status();
  Json rows = Json::array();
  for (const auto& checkpoint : list->checkpoints()) {
    rows.push_back(ToJson(checkpoint));
  }
  return json_ ? Format({{"checkpoints", rows}}, json_) : Columns(rows);
}

absl::StatusOr<std::string> Commands::Verify(const std::string& name) {
  auto verified = admin_.VerifyCheckpoint(name);
  if (!verified.ok()) return verified.status();
  return Format(ToJson(verified->checkpoint()), json_);
}

absl::StatusOr<std::string> Commands::Versions() {
  auto list = admin_.ListVersions();
  if (!list.ok()) return list.status();
  Json rows = Json::array();
  for (const auto& version : list->versions()) rows.push_back(ToJson(version));
  return json_ ? Format({{"versions", rows}}, json_) : Columns(rows);
}

absl::StatusOr<std::string> Commands::Label(const std::string& label,
                                            const std::string& version,
                                            bool remove) {
  const auto number = ParseVersion(version);
  if (!number.ok()) return number.status();
  v1::SetLabelRequest request;
  request.set_label(label);
  request.set_policy_version(*number);
  request.set_remove(remove);
  auto labelled = admin_.SetLabel(request);
  if (!labelled.ok()) return labelled.status();
  return Format(ToJson(labelled->version()), json_);
}

absl::StatusOr<std::string> Commands::Rollback(const std::string& target) {
  v1::RollbackRequest request;
  const auto number = ParseVersion(target);
  if (number.ok()) {
    request.set_policy_version(*number);
  } else {
    request.set_label(target);
  }
  auto rolled_back = admin_.Rollback(request);
  if (!rolled_back.ok()) return rolled_back.status();
  return Format({{"policy_version", rolled_back->header().policy_version()},
                 {"rolled_back_to", rolled_back->rolled_back_to()},
                 {"optimizer_steps", rolled_back->optimizer_steps()}},
                json_);
}

absl::StatusOr<std::string> Commands::Export(const std::string& file,
                                             const std::string& name) {
  auto bytes = admin_.ExportPolicy(name);
  if (!bytes.ok()) return bytes.status();
  // Renamed when it is whole, so that no half of one is taken for a file.
  const std::string partial = file + ".partial";
  std::ofstream out(partial, std::ios::binary | std::ios::trunc);
  out << *bytes;
  out.close();
  if (!out || std::rename(partial.c_str(), file.c_str()) != 0) {
    std::remove(partial.c_str());
    return absl::UnknownError(absl::StrCat("Cannot write ", file, "."));
  }
  return Format({{"file", file}, {"size_bytes", bytes->size()}}, json_);
}

absl::StatusOr<std::string> Commands::Import(const std::string& file,
                                             const std::string& name) {
  std::ifstream in(file, std::ios::binary);
  std::stringstream bytes;
  if (!in || !(bytes << in.rdbuf())) {
    return absl::NotFoundError(absl::StrCat("Cannot read ", file, "."));
  }
  auto imported = admin_.ImportPolicy(name, bytes.str());
  if (!imported.ok()) return imported.status();
  return Format(ToJson(imported->checkpoint()), json_);
}

}  // namespace esper::client
