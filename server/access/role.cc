#include "server/access/role.h"

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace esper::server {
namespace {

constexpr std::pair<const char*, Role> kNames[] = {
    {"inference", Role::kInference},
    {"training", Role::kTraining},
    {"admin", Role::kAdmin},
};

std::vector<MethodAccess> MakeTable() {
  std::vector<MethodAccess> table;
  const auto add = [&table](const char* service,
                            std::initializer_list<const char*> methods,
                            Roles roles) {
    for (const char* method : methods) {
      table.push_back({absl::StrCat("/", service, "/", method), roles,
                       /*everybody=*/roles.empty()});
    }
  };
  constexpr Roles kEverybody;

  add("esper.v1.PolicyInference", {"GetPolicy"}, Roles::All());
  add("esper.v1.PolicyInference",
      {"OpenEpisodes", "GetAction", "StreamActions", "CloseEpisodes"},
      Role::kInference);

  add("esper.v1.PolicyTraining",
      {"AcquireLearner", "RenewLearner", "ReleaseLearner", "EvaluateActions",
       "ForwardBackward", "OptimStep", "UpdatePolicy", "WatchPolicy",
       "ListRecordings", "GetRecording", "DiscardRecordings"},
      Role::kTraining);

  add("esper.v1.PolicyAdmin", {"GetStatus"}, Roles::All());
  add("esper.v1.PolicyAdmin",
      {"SaveCheckpoint", "ListCheckpoints", "VerifyCheckpoint", "ListVersions"},
      Role::kTraining | Role::kAdmin);
  add("esper.v1.PolicyAdmin",
      {"RestoreCheckpoint", "SetLabel", "Rollback", "ExportPolicy",
       "ImportPolicy"},
      Role::kAdmin);

  add("inference.GRPCInferenceService",
      {"ServerLive", "ServerReady", "ModelReady", "ServerMetadata",
       "ModelMetadata"},
      Roles::All());
  add("inference.GRPCInferenceService", {"ModelInfer", "ModelStreamInfer"},
      Role::kInference);

  add("grpc.health.v1.Health", {"Check", "Watch"}, kEverybody);
  add("grpc.reflection.v1alpha.ServerReflection", {"ServerReflectionInfo"},
      Role::kAdmin);
  add("grpc.channelz.v1.Channelz",
      {"GetTopChannels", "GetServers", "GetServer", "GetServerSockets",
       "GetChannel", "GetSubchannel", "GetSocket"},
      Role::kAdmin);

  std::sort(table.begin(), table.end(),
            [](const MethodAccess& a, const MethodAccess& b) {
              return a.path < b.path;
            });
  return table;
}

}  // namespace

std::string Roles::ToString() const {
  std::vector<const char*> names;
  for (const auto& [name, role] : kNames) {
    if (Intersects(role)) names.push_back(name);
  }
  return names.empty() ? "none" : absl::StrJoin(names, ", ");
}

absl::StatusOr<Role> ParseRole(absl::string_view name) {
  for (const auto& [known, role] : kNames) {
    if (name == known) return role;
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "\"", name, "\" is no role; there are inference, training and admin."));
}

const std::vector<MethodAccess>& MethodTable() {
  static const auto* const table = new std::vector<MethodAccess>(MakeTable());
  return *table;
}

const MethodAccess* FindMethod(absl::string_view path) {
  const std::vector<MethodAccess>& table = MethodTable();
  const auto found =
      std::lower_bound(table.begin(), table.end(), path,
                       [](const MethodAccess& row, absl::string_view wanted) {
                         return row.path < wanted;
                       });
  return found != table.end() && found->path == path ? &*found : nullptr;
}

}  // namespace esper::server
