#include "client/ctl/recordings.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "nlohmann/json.hpp"

namespace esper::client {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kIdDigits = 32;

// "terminated", or why it is incomplete: "expired".
std::string EndOf(const v1::RecordingInfo& info) {
  const std::string name = v1::EndKind_Name(info.end_kind());
  const std::string cause = v1::IncompleteCause_Name(info.cause());
  return absl::AsciiStrToLower(
      info.state() == v1::RECORDING_STATE_COMPLETE
          ? absl::StripPrefix(name, "END_KIND_")
          : absl::StripPrefix(cause, "INCOMPLETE_CAUSE_"));
}

Json ToJson(const v1::RecordingInfo& info) {
  return {
      {"episode_id", absl::BytesToHexString(info.episode_id())},
      {"complete", info.state() == v1::RECORDING_STATE_COMPLETE},
      {"end", EndOf(info)},
      {"steps", info.steps()},
      {"return", info.episode_return()},
      {"version", info.last_version()},
      {"environment_key", info.environment_key()},
  };
}

}  // namespace

absl::StatusOr<std::string> DescribeRecordings(TrainingClient& training,
                                               bool json) {
  Json array = Json::array();
  std::string table;
  v1::ListRecordingsRequest request;
  do {
    const auto page = training.ListRecordings(request);
    if (!page.ok()) return page.status();
    for (const v1::RecordingInfo& info : page->recordings()) {
      array.push_back(ToJson(info));
      absl::StrAppend(&table, absl::BytesToHexString(info.episode_id()), "  ",
                      info.state() == v1::RECORDING_STATE_COMPLETE
                          ? "complete    "
                          : "incomplete  ",
                      EndOf(info), "  ", info.steps(), " steps  return ",
                      info.episode_return(), "  version ", info.last_version(),
                      "  ", info.environment_key(), "\n");
    }
    request.set_after(page->next());
  } while (request.after() != 0);
  if (!json) return table;
  return array.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

std::optional<std::string> ParseEpisodeId(const std::string& text) {
  const bool is_id =
      text.size() == kIdDigits &&
      std::all_of(text.begin(), text.end(), [](char c) {
        return absl::ascii_isxdigit(static_cast<unsigned char>(c));
      });
  if (!is_id) return std::nullopt;
  return absl::HexStringToBytes(text);
}

}  // namespace esper::client
