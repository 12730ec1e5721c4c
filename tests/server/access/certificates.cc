#include "tests/server/access/certificates.h"

#include <cstdlib>
#include <fstream>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"

namespace esper::testing {
namespace {

void Run(const std::string& command) {
  ASSERT_EQ(std::system((command + " 2>/dev/null").c_str()), 0) << command;
}

const char kKey[] = " -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";

}  // namespace

Authority::Authority(const std::string& folder, const std::string& name)
    : folder_(folder), name_(name) {
  Run(absl::StrCat("openssl req -x509 -days 1 -subj /CN=", name, kKey,
                   " -keyout ", Path(name), ".key -out ", Path(name), ".pem"));
}

void Authority::Issue(const std::string& name, const std::string& uri) const {
  const std::string file = Path(name);
  std::string names = "subjectAltName=DNS:localhost,IP:127.0.0.1";
  if (!uri.empty()) absl::StrAppend(&names, ",URI:", uri);
  std::ofstream(file + ".ext") << names << "\n";
  Run(absl::StrCat("openssl req -subj /CN=", name, kKey, " -keyout ", file,
                   ".key -out ", file, ".csr"));
  Run(absl::StrCat("openssl x509 -req -days 1 -in ", file, ".csr -CA ",
                   Path(name_), ".pem -CAkey ", Path(name_),
                   ".key -CAcreateserial -extfile ", file, ".ext -out ", file,
                   ".pem"));
}

std::string ReadText(const std::string& path) {
  std::ifstream file(path);
  std::stringstream text;
  EXPECT_TRUE(text << file.rdbuf()) << path;
  return text.str();
}

}  // namespace esper::testing
