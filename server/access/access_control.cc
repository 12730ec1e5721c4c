#include "server/access/access_control.h"

#include <map>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "grpcpp/security/auth_context.h"
#include "spdlog/spdlog.h"

namespace esper::server {
namespace {

using Metadata = std::multimap<grpc::string_ref, grpc::string_ref>;

absl::string_view View(const grpc::string_ref& text) {
  return {text.data(), text.size()};
}

// Of the metadata "authorization: Bearer TOKEN"; empty: none. Another kind of
// authorization is a token that nobody has.
absl::string_view BearerToken(const Metadata& metadata) {
  const auto found = metadata.find("authorization");
  if (found == metadata.end()) return {};
  absl::string_view value = View(found->second);
  if (absl::StartsWithIgnoreCase(value, "bearer ")) {
    value.remove_prefix(sizeof("bearer ") - 1);
  }
  return value;
}

Evidence Collect(const grpc::AuthContext* connection, const Metadata& metadata,
                 bool unix_socket) {
  Evidence evidence;
  evidence.bearer_token = BearerToken(metadata);
  evidence.unix_socket = unix_socket;
  if (connection != nullptr) {
    for (const auto& uri : connection->FindPropertyValues("peer_uri")) {
      evidence.certificate_uris.emplace_back(uri.data(), uri.size());
    }
  }
  return evidence;
}

class CallProcessor final : public grpc::AuthMetadataProcessor {
 public:
  CallProcessor(const AccessControl* access, bool unix_socket)
      : access_(access), unix_socket_(unix_socket) {}

  // Judging takes microseconds.
  bool IsBlocking() const override { return false; }

  grpc::Status Process(const InputMetadata& metadata,
                       grpc::AuthContext* connection, OutputMetadata*,
                       OutputMetadata*) override {
    const auto path = metadata.find(":path");
    const absl::Status status =
        access_->Authorize(path == metadata.end() ? "" : View(path->second),
                           Collect(connection, metadata, unix_socket_));
    return {static_cast<grpc::StatusCode>(status.code()),
            std::string(status.message())};
  }

 private:
  const AccessControl* const access_;
  const bool unix_socket_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<AccessControl>> AccessControl::Create(
    const std::string& file, absl::Duration interval) {
  auto list = AccessList::Read(file);
  if (!list.ok()) return list.status();
  std::unique_ptr<AccessControl> access(
      new AccessControl(file, *std::move(list)));
  access->watcher_ = std::thread(
      [control = access.get(), interval] { control->Watch(interval); });
  return access;
}

AccessControl::AccessControl(const std::string& file, AccessList list)
    : file_(file), list_(std::make_shared<AccessList>(std::move(list))) {}

AccessControl::~AccessControl() {
  stop_.Notify();
  watcher_.join();
}

std::shared_ptr<const AccessList> AccessControl::List() const {
  absl::MutexLock lock(&mu_);
  return list_;
}

void AccessControl::Watch(absl::Duration interval) {
  absl::Status last_error;
  while (!stop_.WaitForNotificationWithTimeout(interval)) {
    auto list = AccessList::Read(file_);
    if (!list.ok()) {
      if (list.status() != last_error) {
        spdlog::error("{} The list read before stays in force.",
                      std::string(list.status().message()));
      }
      last_error = list.status();
      continue;
    }
    last_error = absl::OkStatus();
    absl::MutexLock lock(&mu_);
    if (list->digest() == list_->digest()) continue;
    spdlog::info("access list read again: {} callers", list->size());
    list_ = std::make_shared<AccessList>(*std::move(list));
  }
}

absl::Status AccessControl::Authorize(absl::string_view method,
                                      const Evidence& evidence) const {
  const MethodAccess* row = FindMethod(method);
  if (row != nullptr && row->everybody) return absl::OkStatus();
  const auto list = List();
  const Caller* caller = list->Find(evidence);
  if (caller != nullptr && row != nullptr &&
      caller->roles.Intersects(row->roles)) {
    return absl::OkStatus();
  }
  ++refused_;
  if (caller == nullptr) {
    return absl::UnauthenticatedError(
        "The server does not know this caller. Show a client certificate or a "
        "bearer token that its access file lists.");
  }
  if (row == nullptr) {
    return absl::PermissionDeniedError(
        absl::StrCat("Nobody may call ", method, "."));
  }
  return absl::PermissionDeniedError(absl::StrCat(
      "Caller ", caller->name, " has the roles ", caller->roles.ToString(),
      "; ", method, " needs one of ", row->roles.ToString(), "."));
}

std::shared_ptr<grpc::AuthMetadataProcessor> AccessControl::Processor(
    bool unix_socket) {
  return std::make_shared<CallProcessor>(this, unix_socket);
}

std::string AccessControl::CallerName(
    const grpc::ServerContextBase& context) const {
  const auto connection = context.auth_context();
  const auto list = List();
  const Caller* caller =
      list->Find(Collect(connection.get(), context.client_metadata(),
                         absl::StartsWith(context.peer(), "unix:")));
  return caller == nullptr ? "" : caller->name;
}

}  // namespace esper::server
