#include "server/access/access_list.h"

#include <fstream>
#include <set>
#include <sstream>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "openssl/crypto.h"
#include "openssl/sha.h"

namespace esper::server {
namespace {

using nlohmann::json;

constexpr size_t kMinTokenBytes = 16;

absl::StatusOr<std::string> ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream text;
  if (!file || !(text << file.rdbuf())) {
    return absl::NotFoundError(absl::StrCat("Cannot read ", path, "."));
  }
  return text.str();
}

std::array<unsigned char, 32> Sha256(absl::string_view text) {
  std::array<unsigned char, 32> digest;
  SHA256(reinterpret_cast<const unsigned char*>(text.data()), text.size(),
         digest.data());
  return digest;
}

}  // namespace

// Builds a list out of its file, field by field.
class AccessListReader {
 public:
  explicit AccessListReader(const std::string& path) : path_(path) {}

  absl::StatusOr<AccessList> Read() {
    const auto text = ReadFile(path_);
    if (!text.ok()) return text.status();
    absl::StrAppend(&contents_, *text);
    const json file = json::parse(*text, nullptr, /*allow_exceptions=*/false,
                                  /*ignore_comments=*/true);
    if (!file.is_object() || file.size() != 1 || !file.contains("callers") ||
        !file["callers"].is_array()) {
      return Bad(
          "it must be a JSON object with the one field \"callers\", an "
          "array");
    }
    for (const json& entry : file["callers"]) {
      const absl::Status added = AddCaller(entry);
      if (!added.ok()) return added;
    }
    if (list_.callers_.empty()) return Bad("it names no caller");
    const auto digest = Sha256(contents_);
    list_.digest_.assign(digest.begin(), digest.end());
    return std::move(list_);
  }

 private:
  absl::Status Bad(const std::string& what) const {
    return absl::InvalidArgumentError(
        absl::StrCat("Access file ", path_, ": ", what, "."));
  }

  absl::Status AddCaller(const json& entry) {
    const std::string where =
        absl::StrCat("callers[", list_.callers_.size(), "]");
    if (!entry.is_object()) return Bad(where + " is not an object");
    Caller caller;
    for (const auto& [field, value] : entry.items()) {
      if (field == "name" && value.is_string()) {
        caller.name = value.get<std::string>();
      } else if (field == "roles" && IsStrings(value)) {
        for (const json& name : value) {
          const auto role = ParseRole(name.get<std::string>());
          if (!role.ok()) {
            return Bad(
                absl::StrCat(where, ".roles: ", role.status().message()));
          }
          caller.roles = caller.roles | Roles(*role);
        }
      } else if ((field != "certificate_uris" && field != "token_files" &&
                  field != "unix_socket") ||
                 (field == "unix_socket" ? !value.is_boolean()
                                         : !IsStrings(value))) {
        return Bad(absl::StrCat(where, ".", field,
                                " is no field of a caller, or not of its type: "
                                "name (string), roles, certificate_uris, "
                                "token_files (arrays of strings), unix_socket "
                                "(true or false)"));
      }
    }
    if (caller.name.empty()) return Bad(where + " has no name");
    if (caller.roles.empty()) return Bad(where + " has no role");
    if (!names_.insert(caller.name).second) {
      return Bad(absl::StrCat("the name \"", caller.name, "\" comes twice"));
    }
    list_.callers_.push_back(std::move(caller));
    return AddCredentials(entry, where);
  }

  absl::Status AddCredentials(const json& entry, const std::string& where) {
    const size_t caller = list_.callers_.size() - 1;
    bool any = false;
    for (const json& uri : entry.value("certificate_uris", json::array())) {
      if (!seen_.insert(absl::StrCat("uri ", uri.get<std::string>())).second) {
        return Bad(absl::StrCat(where, ".certificate_uris: ",
                                uri.get<std::string>(), " comes twice"));
      }
      list_.uris_.push_back({uri.get<std::string>(), caller});
      any = true;
    }
    for (const json& file : entry.value("token_files", json::array())) {
      const absl::Status added =
          AddToken(file.get<std::string>(), caller, where);
      if (!added.ok()) return added;
      any = true;
    }
    if (entry.value("unix_socket", false)) {
      if (list_.unix_caller_ >= 0) {
        return Bad(where + ".unix_socket: another caller has it already");
      }
      list_.unix_caller_ = static_cast<int64_t>(caller);
      any = true;
    }
    if (!any) {
      return Bad(where +
                 " has no credential: certificate_uris, token_files or "
                 "unix_socket");
    }
    return absl::OkStatus();
  }

  absl::Status AddToken(const std::string& file, size_t caller,
                        const std::string& where) {
    const auto text = ReadFile(file);
    if (!text.ok()) return text.status();
    absl::StrAppend(&contents_, "\n", *text);
    const absl::string_view token = absl::StripAsciiWhitespace(*text);
    if (token.size() < kMinTokenBytes) {
      return Bad(absl::StrCat(where, ".token_files: the token in ", file,
                              " is shorter than ", kMinTokenBytes, " bytes"));
    }
    for (const char c : token) {
      if (!absl::ascii_isgraph(c)) {
        return Bad(absl::StrCat(where, ".token_files: the token in ", file,
                                " has a byte that is not printable"));
      }
    }
    const auto digest = Sha256(token);
    const std::string key(digest.begin(), digest.end());
    if (!seen_.insert(absl::StrCat("token ", key)).second) {
      return Bad(absl::StrCat(where, ".token_files: the token in ", file,
                              " comes twice"));
    }
    list_.tokens_.push_back({digest, caller});
    return absl::OkStatus();
  }

  static bool IsStrings(const json& value) {
    if (!value.is_array()) return false;
    for (const json& item : value) {
      if (!item.is_string() || item.get<std::string>().empty()) return false;
    }
    return true;
  }

  const std::string path_;
  std::string contents_;  // Of all files read.
  std::set<std::string> names_, seen_;
  AccessList list_;
};

absl::StatusOr<AccessList> AccessList::Read(const std::string& path) {
  return AccessListReader(path).Read();
}

const Caller* AccessList::Find(const Evidence& evidence) const {
  if (!evidence.bearer_token.empty()) {
    const TokenDigest digest = Sha256(evidence.bearer_token);
    const Caller* found = nullptr;
    for (const Token& token : tokens_) {  // All of them: in constant time.
      if (CRYPTO_memcmp(token.digest.data(), digest.data(), digest.size()) ==
          0) {
        found = &callers_[token.caller];
      }
    }
    return found;
  }
  for (const std::string& uri : evidence.certificate_uris) {
    for (const CertificateUri& known : uris_) {
      if (known.uri == uri) return &callers_[known.caller];
    }
  }
  if (evidence.unix_socket && unix_caller_ >= 0) return &callers_[unix_caller_];
  return nullptr;
}

}  // namespace esper::server
