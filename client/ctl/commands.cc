#include "client/ctl/commands.h"

#include <algorithm>
#include <map>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "nlohmann/json.hpp"

namespace esper::client {
namespace {

using Json = nlohmann::ordered_json;

constexpr char kUsage[] =
    "commands: status, policy, save [NAME], restore [NAME], replay";

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
      {"ratio_check_max", status->ratio_check_max() < 0
                              ? Json()
                              : Json(status->ratio_check_max())},
      {"checkpoints", std::vector<std::string>(status->checkpoints().begin(),
                                               status->checkpoints().end())},
      {"refusals", Json::object()},
  };
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

}  // namespace esper::client
