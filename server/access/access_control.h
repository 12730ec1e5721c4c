#ifndef ESPER_SERVER_ACCESS_ACCESS_CONTROL_H_
#define ESPER_SERVER_ACCESS_ACCESS_CONTROL_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "grpcpp/security/auth_metadata_processor.h"
#include "grpcpp/server_context.h"
#include "server/access/access_list.h"

namespace esper::server {

// Decides who may call what: by the access list, which it reads again when one
// of its files changes, and the table of methods.
//
// Every call is judged before its method sees it. Nothing is allowed that is
// not listed: a method without a row in the table is refused for everybody.
//
// Thread safety: any thread may call any method.
class AccessControl {
 public:
  // The errors of `AccessList::Read`. Changes of the files are looked for every
  // `interval`; a change that cannot be read is logged and leaves the list as
  // it is.
  static absl::StatusOr<std::unique_ptr<AccessControl>> Create(
      const std::string& file, absl::Duration interval = absl::Seconds(1));
  ~AccessControl();

  AccessControl(const AccessControl&) = delete;
  AccessControl& operator=(const AccessControl&) = delete;

  // OK, UNAUTHENTICATED for a caller that is not known, PERMISSION_DENIED for
  // one without the method's role and for a method that nobody may call.
  absl::Status Authorize(absl::string_view method,
                         const Evidence& evidence) const;

  // Judges the calls of one kind of listener; give it to its credentials. This
  // must outlive it.
  std::shared_ptr<grpc::AuthMetadataProcessor> Processor(bool unix_socket);

  // Name of the caller that sent a call; empty if it is not known any more.
  std::string CallerName(const grpc::ServerContextBase& context) const;

  // Calls that were refused since the start.
  int64_t refused() const { return refused_; }

 private:
  AccessControl(const std::string& file, AccessList list);
  std::shared_ptr<const AccessList> List() const ABSL_LOCKS_EXCLUDED(mu_);
  void Watch(absl::Duration interval);

  const std::string file_;
  mutable std::atomic<int64_t> refused_{0};
  mutable absl::Mutex mu_;
  std::shared_ptr<const AccessList> list_ ABSL_GUARDED_BY(mu_);
  absl::Notification stop_;
  std::thread watcher_;
};

// The same; empty if callers are not told apart.
inline std::string CallerName(const AccessControl* access,
                              const grpc::ServerContextBase& context) {
  return access == nullptr ? "" : access->CallerName(context);
}

}  // namespace esper::server
#endif  // ESPER_SERVER_ACCESS_ACCESS_CONTROL_H_
