#ifndef ESPER_TESTS_TESTING_LOG_CAPTURE_H_
#define ESPER_TESTS_TESTING_LOG_CAPTURE_H_

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "spdlog/sinks/ringbuffer_sink.h"
#include "spdlog/spdlog.h"

namespace esper::testing {

// Collects what the default logger is given while this lives, instead of
// printing it: up to 1024 lines "level message". Threads may log; make and
// destroy it while they do not.
class LogCapture {
 public:
  LogCapture()
      : sink_(std::make_shared<spdlog::sinks::ringbuffer_sink_mt>(1024)),
        before_(spdlog::default_logger()) {
    auto logger = std::make_shared<spdlog::logger>("capture", sink_);
    logger->set_level(spdlog::level::trace);
    logger->set_pattern("%l %v");
    spdlog::set_default_logger(std::move(logger));
  }
  ~LogCapture() { spdlog::set_default_logger(before_); }

  LogCapture(const LogCapture&) = delete;
  LogCapture& operator=(const LogCapture&) = delete;

  // Lines that begin with `level`: "warning", "info", "error".
  std::vector<std::string> Lines(const std::string& level) const {
    std::vector<std::string> lines = sink_->last_formatted();
    lines.erase(std::remove_if(lines.begin(), lines.end(),
                               [&](const std::string& line) {
                                 return line.rfind(level + " ", 0) != 0;
                               }),
                lines.end());
    return lines;
  }

 private:
  const std::shared_ptr<spdlog::sinks::ringbuffer_sink_mt> sink_;
  const std::shared_ptr<spdlog::logger> before_;
};

}  // namespace esper::testing
#endif  // ESPER_TESTS_TESTING_LOG_CAPTURE_H_
