#include "client/main_util.h"

#include <unistd.h>

#include <cstdio>
#include <cstdlib>

#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "absl/flags/usage_config.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "spdlog/sinks/stdout_sinks.h"
#include "spdlog/spdlog.h"

namespace esper::client {

std::vector<std::string> ParseFlags(int argc, char** argv,
                                    const std::string& usage,
                                    bool allow_arguments) {
  absl::SetProgramUsageMessage(usage);
  // Our own flags, wherever they are defined, and not those of libraries.
  absl::FlagsUsageConfig config;
  config.contains_help_flags = [](auto file) {
    return absl::StrContains(file, "client/");
  };
  config.contains_helpshort_flags = config.contains_help_flags;
  absl::SetFlagsUsageConfig(config);
  const std::vector<char*> rest = absl::ParseCommandLine(argc, argv);
  if (rest.size() > 1 && !allow_arguments) {
    std::fprintf(stderr, "%s: unexpected argument \"%s\"; see --help\n",
                 argv[0], rest[1]);
    std::exit(2);
  }
  return {rest.begin() + 1, rest.end()};
}

absl::Status SetUpLog(const std::string& level, bool clear_line) {
  const auto parsed = spdlog::level::from_str(level);
  if (parsed == spdlog::level::off && level != "off") {
    return absl::InvalidArgumentError(
        absl::StrCat("--log_level=", level,
                     " is none of trace, debug, info, "
                     "warning, error, critical, off"));
  }
  auto logger = spdlog::stderr_logger_mt("esper");
  logger->set_pattern(clear_line ? "\r\033[K%H:%M:%S %l %v"
                                 : "%Y-%m-%dT%H:%M:%S.%e %l %v");
  logger->set_level(parsed);
  logger->flush_on(spdlog::level::info);
  spdlog::set_default_logger(std::move(logger));
  return absl::OkStatus();
}

bool IsTerminal() { return isatty(STDERR_FILENO) == 1; }

}  // namespace esper::client
