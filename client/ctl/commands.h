#ifndef ESPER_CLIENT_CTL_COMMANDS_H_
#define ESPER_CLIENT_CTL_COMMANDS_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "client/admin_client.h"
#include "client/policy_client.h"

namespace esper::client {

// What esperctl can do. Each returns the text to print: a table for people, or
// one JSON object if `json`; errors are the server's.
class Commands {
 public:
  // Both must outlive this.
  Commands(PolicyClient& policy, AdminClient& admin, bool json);

  // Runs `arguments`: "status", "policy", "save [NAME]", ... as `esperctl
  // --help` lists them. INVALID_ARGUMENT, listing the commands, for anything
  // else.
  absl::StatusOr<std::string> Run(const std::vector<std::string>& arguments);

 private:
  absl::StatusOr<std::string> Status();
  absl::StatusOr<std::string> Policy();
  absl::StatusOr<std::string> Save(const std::string& name);
  absl::StatusOr<std::string> Restore(const std::string& name);
  absl::StatusOr<std::string> Checkpoints();
  absl::StatusOr<std::string> Verify(const std::string& name);
  absl::StatusOr<std::string> Versions();
  absl::StatusOr<std::string> Label(const std::string& label,
                                    const std::string& version, bool remove);
  absl::StatusOr<std::string> Rollback(const std::string& target);
  absl::StatusOr<std::string> Export(const std::string& file,
                                     const std::string& name);
  absl::StatusOr<std::string> Import(const std::string& file,
                                     const std::string& name);

  PolicyClient& policy_;
  AdminClient& admin_;
  const bool json_;
};

}  // namespace esper::client
#endif  // ESPER_CLIENT_CTL_COMMANDS_H_
