#include "core/env/hindsight.h"

#include <algorithm>
#include <cmath>

namespace esper::env {
namespace {

// Brings boost times improvement, in squared accuracy points, to unit scale.
constexpr double kCreditScale = 0.1;

}  // namespace

double ScaffoldCredit(double boost, double improvement, double weight) {
  if (boost <= 0 || improvement <= 0) return 0;
  return std::tanh(boost * improvement * kCreditScale) * weight;
}

void HindsightLedger::RecordInteraction(const std::string& a,
                                        const std::string& b,
                                        double interaction, int64_t epoch) {
  if (!(interaction > 0)) return;
  Record({a, b, interaction, epoch});
  Record({b, a, interaction, epoch});
}

void HindsightLedger::Record(const Entry& entry) { entries_.push_back(entry); }

HindsightCredit HindsightLedger::Settle(const std::string& slot_id,
                                        double total_improvement,
                                        int64_t epoch) {
  HindsightCredit result;
  if (!(total_improvement > 0)) return result;
  for (const Entry& entry : entries_) {
    if (entry.beneficiary != slot_id || entry.boost <= 0) continue;
    const int64_t delay = epoch - entry.epoch;
    result.credit +=
        ScaffoldCredit(entry.boost, total_improvement, options_.weight) *
        std::pow(options_.discount, static_cast<double>(delay));
    ++result.scaffolds;
    result.total_delay += delay;
  }
  result.credit = std::min(result.credit, options_.cap);
  entries_.erase(std::remove_if(entries_.begin(), entries_.end(),
                                [&slot_id](const Entry& entry) {
                                  return entry.beneficiary == slot_id;
                                }),
                 entries_.end());
  return result;
}

}  // namespace esper::env
