#include "server/log_setup.h"

#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "grpc/support/log.h"
#include "nlohmann/json.hpp"
#include "spdlog/formatter.h"
#include "spdlog/sinks/stdout_color_sinks.h"
#include "spdlog/spdlog.h"

namespace esper::server {
namespace {

class JsonFormatter : public spdlog::formatter {
 public:
  void format(const spdlog::details::log_msg& message,
              spdlog::memory_buf_t& out) override {
    const auto text = [](const spdlog::string_view_t& view) {
      return std::string(view.data(), view.size());
    };
    const nlohmann::ordered_json line = {
        {"time",
         absl::FormatTime(absl::RFC3339_full, absl::FromChrono(message.time),
                          absl::UTCTimeZone())},
        {"level", text(spdlog::level::to_string_view(message.level))},
        {"message", text(message.payload)}};
    // Bytes that are no UTF-8 must not make logging throw.
    const std::string dumped =
        line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) +
        "\n";
    out.append(dumped.data(), dumped.data() + dumped.size());
  }

  std::unique_ptr<spdlog::formatter> clone() const override {
    return std::make_unique<JsonFormatter>();
  }
};

void LogFromGrpc(gpr_log_func_args* args) {
  auto level = spdlog::level::debug;
  if (args->severity == GPR_LOG_SEVERITY_INFO) level = spdlog::level::info;
  if (args->severity == GPR_LOG_SEVERITY_ERROR) level = spdlog::level::warn;
  spdlog::log(level, "grpc: {}", args->message);
}

}  // namespace

absl::Status SetUpLog(const std::string& level, const std::string& format) {
  const auto parsed = spdlog::level::from_str(level);
  if (parsed == spdlog::level::off && level != "off") {
    return absl::InvalidArgumentError(
        absl::StrCat("Unknown --log_level ", level,
                     "; use trace, debug, info, warn, error, critical or "
                     "off."));
  }
  auto logger = spdlog::stderr_color_mt("esper");
  logger->set_pattern("[%Y-%m-%d %H:%M:%S.%e] [%^%l%$] %v");
  if (format == "json") {
    logger->set_formatter(std::make_unique<JsonFormatter>());
  } else if (format != "text") {
    return absl::InvalidArgumentError(
        absl::StrCat("Unknown --log_format ", format, "; use text or json."));
  }
  logger->set_level(parsed);
  spdlog::set_default_logger(std::move(logger));
  gpr_set_log_function(LogFromGrpc);
  return absl::OkStatus();
}

}  // namespace esper::server
