#ifndef ESPER_CORE_ENV_HINDSIGHT_H_
#define ESPER_CORE_ENV_HINDSIGHT_H_

#include <cstdint>
#include <string>
#include <vector>

namespace esper::env {

// What a fossilisation pays back to the seeds that helped it grow.
struct HindsightCredit {
  double credit = 0;        // Reward units, in [0, cap].
  int64_t scaffolds = 0;    // Ledger entries that were paid.
  int64_t total_delay = 0;  // Epochs, summed over them.
};

// Which seed lifted which other, and when; settled when the lifted one is
// fossilised. Not thread safe; a value that belongs to one episode.
class HindsightLedger {
 public:
  struct Options {
    double weight = 0.1;
    double cap = 0.2;         // Of one fossilisation.
    double discount = 0.995;  // Per epoch of delay.
  };

  struct Entry {
    std::string scaffold;
    std::string beneficiary;
    double boost = 0;  // Accuracy points.
    int64_t epoch = 0;
  };

  HindsightLedger() = default;
  explicit HindsightLedger(const Options& options) : options_(options) {}

  // A pair's interaction was measured: if positive, each lifted the other.
  void RecordInteraction(const std::string& a, const std::string& b,
                         double interaction, int64_t epoch);
  void Record(const Entry& entry);

  // `slot_id` was fossilised after `total_improvement` accuracy points. Without
  // improvement nothing is paid. Entries of this beneficiary leave the ledger
  // if it improved.
  HindsightCredit Settle(const std::string& slot_id, double total_improvement,
                         int64_t epoch);

  void Reset() { entries_.clear(); }
  const std::vector<Entry>& entries() const { return entries_; }

 private:
  Options options_;
  std::vector<Entry> entries_;
};

// One entry's credit before delay and cap: tanh(boost * improvement / 10) times
// `weight`; 0 unless both are positive.
double ScaffoldCredit(double boost, double improvement, double weight);

}  // namespace esper::env
#endif  // ESPER_CORE_ENV_HINDSIGHT_H_
