#ifndef ESPER_SERVER_ACCESS_ROLE_H_
#define ESPER_SERVER_ACCESS_ROLE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace esper::server {

// What a caller may do. None includes another.
enum class Role : uint8_t {
  kInference = 1,  // Opens episodes and asks for actions.
  kTraining = 2,   // Improves the policy, reads weights, saves checkpoints.
  kAdmin = 4,      // Operates the server.
};

// A set of roles.
class Roles {
 public:
  constexpr Roles() = default;
  constexpr Roles(Role role) : bits_(static_cast<uint8_t>(role)) {}
  static constexpr Roles All() { return Roles(uint8_t{7}); }

  constexpr Roles operator|(Roles other) const {
    return Roles(static_cast<uint8_t>(bits_ | other.bits_));
  }
  constexpr bool Intersects(Roles other) const {
    return (bits_ & other.bits_) != 0;
  }
  constexpr bool empty() const { return bits_ == 0; }

  // "inference, admin"; "none".
  std::string ToString() const;

 private:
  explicit constexpr Roles(uint8_t bits) : bits_(bits) {}

  uint8_t bits_ = 0;
};

constexpr Roles operator|(Role a, Role b) { return Roles(a) | Roles(b); }

// "inference", "training" or "admin"; INVALID_ARGUMENT for another word.
absl::StatusOr<Role> ParseRole(absl::string_view name);

// Who may call one RPC.
struct MethodAccess {
  std::string path;  // "/package.Service/Method".
  Roles roles;       // Any of them is enough.
  // Everybody who reaches the server, known or not.
  bool everybody = false;
};

// Of every RPC that this server can serve. One that is not in it is refused:
// whoever adds an RPC decides here who may call it.
const std::vector<MethodAccess>& MethodTable();

// Row of the table; null for a method that it does not list.
const MethodAccess* FindMethod(absl::string_view path);

}  // namespace esper::server
#endif  // ESPER_SERVER_ACCESS_ROLE_H_
