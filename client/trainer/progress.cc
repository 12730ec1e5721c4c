#include "client/trainer/progress.h"

#include <algorithm>
#include <cstdio>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "spdlog/spdlog.h"

namespace esper::client {
namespace {

constexpr int kBarWidth = 20;
constexpr size_t kRecentEpisodes = 20;
constexpr absl::Duration kRedraw = absl::Milliseconds(250);

double MeanOfRecent(const std::vector<double>& values) {
  const size_t count = std::min(kRecentEpisodes, values.size());
  double sum = 0;
  for (size_t i = values.size() - count; i < values.size(); ++i) {
    sum += values[i];
  }
  return count == 0 ? 0 : sum / static_cast<double>(count);
}

std::string Bar(double done) {
  if (done < 0) return "";
  done = std::min(done, 1.0);
  const int filled = static_cast<int>(done * kBarWidth);
  return absl::StrFormat("[%s%s] %3.0f%%  ", std::string(filled, '#'),
                         std::string(kBarWidth - filled, '.'), 100 * done);
}

}  // namespace

std::string FormatProgress(const RunTotals& totals,
                           const RunPosition& position) {
  std::string line = absl::StrFormat(
      "%supdate %d  version %d  round %d/%d  episodes %d (%.2f/s)  "
      "steps %.1f/s",
      Bar(position.done), totals.updates, totals.policy_version,
      position.round_episodes, position.round_size, totals.episodes,
      position.episodes_per_second, position.steps_per_second);
  if (totals.episodes > 0) {
    absl::StrAppendFormat(
        &line, "  return %.2f  host accuracy %.1f%% (%.1f%% without seeds)",
        MeanOfRecent(totals.episode_return), MeanOfRecent(totals.host_accuracy),
        MeanOfRecent(totals.host_accuracy_without_seeds));
  }
  return line;
}

Progress::Progress(bool terminal, absl::Duration log_every)
    : terminal_(terminal), log_every_(log_every) {}

bool Progress::IsDue(absl::Time now) const {
  return now - shown_ >= (terminal_ ? kRedraw : log_every_);
}

void Progress::Show(const RunTotals& totals, const RunPosition& position,
                    absl::Time now) {
  shown_ = now;
  const std::string line = FormatProgress(totals, position);
  if (terminal_) {
    std::fprintf(stderr, "\r\033[K%s", line.c_str());
    std::fflush(stderr);
  } else {
    spdlog::info("{}", line);
  }
}

void Progress::Finish() {
  if (terminal_) std::fputs("\n", stderr);
}

}  // namespace esper::client
