// What a scrape of the metrics says, over real HTTP.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <map>
#include <regex>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "gtest/gtest.h"
#include "server/server.h"
#include "tests/server/service_fixture.h"
#include "tests/testing/status_matchers.h"

namespace esper::testing {
namespace {

// Body of GET `path` from 127.0.0.1, empty unless it is found.
std::string Get(int port, const std::string& path) {
  const int socket = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in name = {};
  name.sin_family = AF_INET;
  name.sin_port = htons(port);
  name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  EXPECT_EQ(connect(socket, reinterpret_cast<sockaddr*>(&name), sizeof(name)),
            0);
  const std::string request =
      absl::StrCat("GET ", path, " HTTP/1.0\r\nHost: localhost\r\n\r\n");
  EXPECT_EQ(send(socket, request.data(), request.size(), 0),
            static_cast<ssize_t>(request.size()));
  std::string response;
  char buffer[4096];
  for (ssize_t n; (n = recv(socket, buffer, sizeof(buffer), 0)) > 0;) {
    response.append(buffer, n);
  }
  close(socket);
  const size_t body = response.find("\r\n\r\n");
  return absl::StrContains(response.substr(0, 16), "200")
             ? response.substr(body + 4)
             : "";
}

class ServerMetricsTest : public ServiceTest {
 protected:
  void SetUp() override {
    server::ServerOptions options = Options();
    options.metrics_address = "127.0.0.1:0";
    Start(options);
  }
  std::string Scrape() const {
    return Get(server_->metrics_port(), "/metrics");
  }
  // Values by series, as written: name{label="value"}.
  std::map<std::string, double> Values() const {
    std::map<std::string, double> values;
    for (const absl::string_view line : absl::StrSplit(Scrape(), '\n')) {
      const size_t space = line.rfind(' ');
      double value = 0;
      if (line.empty() || line[0] == '#' || space == line.npos) continue;
      EXPECT_TRUE(absl::SimpleAtod(line.substr(space + 1), &value)) << line;
      values[std::string(line.substr(0, space))] = value;
    }
    return values;
  }
};

TEST_F(ServerMetricsTest, CountsWhatHappened) {
  const std::string id = Open("env");
  Play(id, /*environment=*/0, /*steps=*/5);
  EXPECT_OK(Act(Request(id, 4)).status());  // Again.
  EXPECT_FALSE(Act(Request(id, 17)).ok());
  Open("env", /*seed=*/0, /*incarnation=*/2);
  const auto values = Values();
  EXPECT_EQ(values.at("esper_actions_total"), 5);
  EXPECT_EQ(values.at("esper_steps_repeated_total"), 1);
  EXPECT_EQ(values.at("esper_refusals_total{reason=\"STEP_OUT_OF_ORDER\"}"), 1);
  EXPECT_EQ(values.at("esper_open_episodes"), 1);
  EXPECT_EQ(values.at("esper_episodes_ended_total{cause=\"superseded\"}"), 1);
  EXPECT_EQ(values.at("esper_policy_version"), 1);
  EXPECT_EQ(values.at("esper_unpublished_steps"), 0);
  EXPECT_EQ(values.at("esper_batch_rows_count"), 5);
  EXPECT_EQ(values.at("esper_batch_rows_sum"), 5);
  // Repeated and refused calls wait in the queue, too.
  EXPECT_EQ(values.at("esper_action_queue_seconds_count"), 7);
  EXPECT_GT(values.at("esper_action_compute_seconds_sum"), 0);
}

TEST_F(ServerMetricsTest, EveryFamilyIsWellNamedAndExplained) {
  const std::string text = Scrape();
  std::map<std::string, std::string> types;
  std::set<std::string> explained;
  for (const absl::string_view line : absl::StrSplit(text, '\n')) {
    const std::vector<std::string> words = absl::StrSplit(line, ' ');
    if (words.size() < 4 || words[0] != "#") continue;
    if (words[1] == "TYPE") types[words[2]] = words[3];
    if (words[1] == "HELP") explained.insert(words[2]);
  }
  EXPECT_GT(types.size(), 15);
  for (const auto& [name, type] : types) {
    if (!absl::StartsWith(name, "esper_")) continue;  // The exposer's own.
    EXPECT_EQ(explained.count(name), 1) << name;
    EXPECT_TRUE(std::regex_match(name, std::regex("[a-z_]+"))) << name;
    EXPECT_EQ(type == "counter", absl::EndsWith(name, "_total")) << name;
  }
}

TEST_F(ServerMetricsTest, SeriesDoNotGrowWithEpisodes) {
  Open("first");
  const size_t before = Values().size();
  for (int i = 0; i < 50; ++i) Open(absl::StrCat("env", i));
  EXPECT_EQ(Values().size(), before);
}

TEST_F(ServerMetricsTest, AnAddressInUseIsRefused) {
  server::ServerOptions options = Options();
  options.metrics_address = absl::StrCat("127.0.0.1:", server_->metrics_port());
  EXPECT_THAT(server::Server::Create(options).status(),
              StatusIs(absl::StatusCode::kUnavailable));
}

}  // namespace
}  // namespace esper::testing
