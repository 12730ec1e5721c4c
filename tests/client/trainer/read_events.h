#ifndef ESPER_TESTS_CLIENT_TRAINER_READ_EVENTS_H_
#define ESPER_TESTS_CLIENT_TRAINER_READ_EVENTS_H_

#include <gtest/gtest.h>
#include <stdio.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "nlohmann/json.hpp"

namespace esper::client::testing {

// What tests/client/trainer/read_events.py finds in an event file.
inline std::vector<nlohmann::json> ReadEvents(const std::string& path) {
  const std::string command = absl::StrCat(
      "/usr/bin/python3 tests/client/trainer/read_events.py '", path, "'");
  FILE* pipe = popen(command.c_str(), "r");
  std::string output;
  char buffer[4096];
  while (const size_t size = fread(buffer, 1, sizeof(buffer), pipe)) {
    output.append(buffer, size);
  }
  EXPECT_EQ(pclose(pipe), 0);
  std::vector<nlohmann::json> events;
  for (const auto line : absl::StrSplit(output, '\n', absl::SkipEmpty())) {
    events.push_back(nlohmann::json::parse(std::string(line)));
  }
  return events;
}

}  // namespace esper::client::testing
#endif  // ESPER_TESTS_CLIENT_TRAINER_READ_EVENTS_H_
