// Who may call what: the operator's file, and the table of methods.
#include "server/access/access_list.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "esper/v1/policy_admin.pb.h"
#include "esper/v1/policy_inference.pb.h"
#include "esper/v1/policy_training.pb.h"
#include "gmock/gmock.h"
#include "google/protobuf/descriptor.h"
#include "grpc/health/v1/health.pb.h"
#include "gtest/gtest.h"
#include "inference/grpc_service.pb.h"
#include "server/access/role.h"
#include "tests/testing/status_matchers.h"

namespace esper::testing {
namespace {

using server::AccessList;
using server::Caller;
using server::Evidence;
using server::FindMethod;
using server::MethodAccess;
using server::MethodTable;
using server::Role;
using server::Roles;
using ::testing::HasSubstr;

class AccessListTest : public ::testing::Test {
 protected:
  AccessListTest() : folder_(::testing::TempDir() + "/access") {
    std::filesystem::create_directories(folder_);
  }
  std::string Write(const std::string& name, const std::string& text) const {
    const std::string path = folder_ + "/" + name;
    std::ofstream(path, std::ios::trunc) << text;
    return path;
  }
  absl::StatusOr<AccessList> Read(const std::string& callers) const {
    return AccessList::Read(
        Write("access.json", "{\"callers\": [" + callers + "]}"));
  }
  absl::Status Error(const std::string& callers) const {
    return Read(callers).status();
  }

  const std::string folder_;
};

const char* NameOf(const Caller* caller) {
  return caller == nullptr ? "nobody" : caller->name.c_str();
}

TEST_F(AccessListTest, CallersAreFoundByTheirCredentials) {
  const std::string token = Write("token", "  0123456789abcdef\n");
  const auto list = Read(absl::StrCat(
      R"({"name": "actors", "roles": ["inference"],
          "certificate_uris": ["spiffe://c/actor"]},
         {"name": "trainer", "roles": ["training", "inference"],
          "token_files": [")",
      token, R"("]}, {"name": "local", "roles": ["admin"],
          "unix_socket": true})"));
  ASSERT_OK(list.status());
  Evidence evidence;
  EXPECT_STREQ(NameOf(list->Find(evidence)), "nobody");
  evidence.unix_socket = true;
  EXPECT_STREQ(NameOf(list->Find(evidence)), "local");
  evidence.certificate_uris = {"https://other", "spiffe://c/actor"};
  EXPECT_STREQ(NameOf(list->Find(evidence)), "actors");
  evidence.bearer_token = "0123456789abcdef";
  const Caller* trainer = list->Find(evidence);
  EXPECT_STREQ(NameOf(trainer), "trainer");
  EXPECT_TRUE(trainer->roles.Intersects(Role::kInference));
  EXPECT_FALSE(trainer->roles.Intersects(Role::kAdmin));
  // A wrong token is nobody, whatever else is shown.
  evidence.bearer_token = "0123456789abcdeg";
  EXPECT_STREQ(NameOf(list->Find(evidence)), "nobody");
  // Names are compared whole.
  Evidence prefix;
  prefix.certificate_uris = {"spiffe://c/acto", "spiffe://c/actor/x"};
  EXPECT_STREQ(NameOf(list->Find(prefix)), "nobody");
}

TEST_F(AccessListTest, MistakesAreNamed) {
  EXPECT_THAT(AccessList::Read(folder_ + "/none").status(),
              StatusIs(absl::StatusCode::kNotFound));
  const struct {
    std::string callers;
    std::string message;
  } cases[] = {
      {"", "no caller"},
      {"3", "callers[0] is not an object"},
      {R"({"roles": ["admin"], "unix_socket": true})", "has no name"},
      {R"({"name": "a", "unix_socket": true})", "has no role"},
      {R"({"name": "a", "roles": ["root"], "unix_socket": true})",
       "\"root\" is no role"},
      {R"({"name": "a", "roles": ["admin"]})", "has no credential"},
      {R"({"name": "a", "roles": ["admin"], "unix_sockets": true})",
       "callers[0].unix_sockets"},
      {R"({"name": "a", "roles": ["admin"], "unix_socket": "yes"})",
       "callers[0].unix_socket"},
      {R"({"name": "a", "roles": ["admin"], "unix_socket": true},
          {"name": "a", "roles": ["admin"], "certificate_uris": ["x"]})",
       "the name \"a\" comes twice"},
      {R"({"name": "a", "roles": ["admin"], "unix_socket": true},
          {"name": "b", "roles": ["admin"], "unix_socket": true})",
       "another caller has it"},
      {R"({"name": "a", "roles": ["admin"], "certificate_uris": ["x", "x"]})",
       "x comes twice"},
  };
  for (const auto& [callers, message] : cases) {
    const absl::Status error = Error(callers);
    EXPECT_THAT(error, StatusIs(absl::StatusCode::kInvalidArgument)) << callers;
    EXPECT_THAT(error.message(), HasSubstr(message)) << callers;
  }
}

TEST_F(AccessListTest, TokensThatAreWeakOrSharedAreRefused) {
  const auto with = [&](const std::string& token) {
    return Error(absl::StrCat(R"({"name": "a", "roles": ["admin"],
                                  "token_files": [")",
                              Write("token", token), "\"]}"));
  };
  EXPECT_OK(with("0123456789abcdef"));
  EXPECT_THAT(with("0123456789abcde\n").message(), HasSubstr("shorter than"));
  EXPECT_THAT(with("0123456789 abcdef").message(), HasSubstr("not printable"));
  const std::string token = Write("token", "0123456789abcdef");
  EXPECT_THAT(
      Error(
          absl::StrCat(R"({"name": "a", "roles": ["admin"], "token_files": [")",
                       token, R"("]}, {"name": "b", "roles": ["admin"],
                         "token_files": [")",
                       token, "\"]}"))
          .message(),
      HasSubstr("comes twice"));
}

TEST_F(AccessListTest, TheDigestChangesWithEveryFile) {
  const std::string entry =
      absl::StrCat(R"({"name": "a", "roles": ["admin"], "token_files": [")",
                   Write("token", "0123456789abcdef"), "\"]}");
  const std::string before = Read(entry)->digest();
  EXPECT_EQ(Read(entry)->digest(), before);
  Write("token", "0123456789abcdeg");
  EXPECT_NE(Read(entry)->digest(), before);
}

// Every RPC of a file's services.
std::vector<std::string> MethodsOf(
    const google::protobuf::FileDescriptor* file) {
  std::vector<std::string> methods;
  for (int i = 0; i < file->service_count(); ++i) {
    const auto* service = file->service(i);
    for (int j = 0; j < service->method_count(); ++j) {
      methods.push_back(absl::StrCat("/", service->full_name(), "/",
                                     service->method(j)->name()));
    }
  }
  return methods;
}

TEST(MethodTableTest, EveryRpcIsListedAndNothingElse) {
  std::vector<std::string> served;
  for (const auto* file :
       {v1::GetPolicyRequest::descriptor()->file(),
        v1::OptimStepRequest::descriptor()->file(),
        v1::GetStatusRequest::descriptor()->file(),
        inference::ServerLiveRequest::descriptor()->file(),
        grpc::health::v1::HealthCheckRequest::descriptor()->file()}) {
    const auto methods = MethodsOf(file);
    EXPECT_FALSE(methods.empty()) << file->name();
    served.insert(served.end(), methods.begin(), methods.end());
  }
  for (const std::string& method : served) {
    EXPECT_NE(FindMethod(method), nullptr)
        << method << " has no row in server/access/role.cc";
  }
  for (const MethodAccess& row : MethodTable()) {
    if (row.path.find("/grpc.reflection") == 0 ||
        row.path.find("/grpc.channelz") == 0) {
      continue;
    }
    EXPECT_THAT(served, ::testing::Contains(row.path));
  }
  EXPECT_EQ(FindMethod("/esper.v1.PolicyAdmin/NoSuchCall"), nullptr);
}

TEST(MethodTableTest, OnlyHealthIsForEverybody) {
  for (const MethodAccess& row : MethodTable()) {
    EXPECT_EQ(row.everybody, row.path.find("/grpc.health.v1.Health/") == 0)
        << row.path;
    EXPECT_EQ(row.everybody, row.roles.empty()) << row.path;
  }
}

TEST(MethodTableTest, AnActorCannotTrainAndATrainerCannotOperate) {
  const auto may = [](const char* method, Role role) {
    return FindMethod(method)->roles.Intersects(role);
  };
  EXPECT_FALSE(may("/esper.v1.PolicyTraining/OptimStep", Role::kInference));
  EXPECT_FALSE(may("/esper.v1.PolicyTraining/OptimStep", Role::kAdmin));
  EXPECT_FALSE(may("/esper.v1.PolicyAdmin/RestoreCheckpoint", Role::kTraining));
  EXPECT_FALSE(may("/esper.v1.PolicyInference/GetAction", Role::kTraining));
  EXPECT_TRUE(may("/esper.v1.PolicyInference/GetPolicy", Role::kTraining));
}

}  // namespace
}  // namespace esper::testing
