#ifndef ESPER_CORE_SLOT_RANK_EXCHANGE_H_
#define ESPER_CORE_SLOT_RANK_EXCHANGE_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "core/dist/communicator.h"
#include "core/slot/gate_synchronizer.h"
#include "core/slot/gates.h"

namespace esper::slot {

// Takes lifecycle decisions together with the other ranks of a group.
//
// First all ranks exchange a fingerprint of the decision and what they make of
// it; then, if a gate has to open, rank 0's verdict is everybody's, and a rank
// that thought otherwise notes so in the message. All ranks act alike or fail
// with the same error, within the timeout of the group:
//   FAILED_PRECONDITION (RANKS_DISAGREE)  decisions, stages, seeds, requests,
//       policies or refusals differ;
//   the error of the lowest rank that met one, with "Rank n: " before it, or
//       each rank's own if all met the same;
//   the group's own (core/dist/communicator.h): a rank is late or gone.
//
// Thread safety: any thread, but ranks must call in the same order.
class RankExchange : public GateSynchronizer {
 public:
  explicit RankExchange(dist::Communicator* group) : group_(group) {}

  absl::StatusOr<std::optional<GateResult>> Agree(
      const DecisionKey& key, const LocalOutcome& local) override
      ABSL_LOCKS_EXCLUDED(mu_);

 private:
  absl::Mutex mu_;
  dist::Communicator* const group_ ABSL_PT_GUARDED_BY(mu_);
};

// A decision and one rank's view of it, in kFingerprintBytes:
//   0 slot id, 24 bytes, padded with zeros | 24 sequence u64
//   32 generation u64 | 40 config hash u64 | 48 decision u8 | 49 from u8
//   50 target u8 | 51 refusal u8 | 52 whether a gate has to open, u8
//   53 status code u8 | 54 zeros
inline constexpr size_t kFingerprintBytes = 64;
std::string Fingerprint(const DecisionKey& key, const LocalOutcome& local);

// A verdict without its time: level u8, passed u8, score f64, message, then the
// passed and the failed checks, each list with its count u32.
std::string EncodeVerdict(const GateResult& verdict);
// DATA_LOSS for anything else.
absl::StatusOr<GateResult> DecodeVerdict(const std::string& bytes);

}  // namespace esper::slot
#endif  // ESPER_CORE_SLOT_RANK_EXCHANGE_H_
