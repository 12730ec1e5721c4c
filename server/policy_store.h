#ifndef ESPER_SERVER_POLICY_STORE_H_
#define ESPER_SERVER_POLICY_STORE_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "core/policy/inference_precision.h"
#include "core/policy/policy_spec.h"
#include "core/ppo/learner.h"
#include "core/ppo/normalizer.h"
#include "esper/v1/policy.pb.h"

namespace esper::policy {
class InferencePolicy;
}  // namespace esper::policy

namespace esper::server {

// One published version, ready to act. Immutable and shared: a batch runs on
// the version it started with, whatever is published meanwhile.
struct PublishedPolicy {
  int64_t version = 0;
  std::string precision;  // "fp32" or "bf16": of the products.
  std::shared_ptr<const policy::InferencePolicy> policy;
  ppo::ObservationScaler scaler;  // Raw observations to network input.
  ppo::PolicySnapshot snapshot;   // What it was made of.
};

// The published versions of the one policy that this server serves: the newest,
// which acts, and some before it.
//
// Thread safety: any thread may call any method; `Current` is a pointer copy.
class PolicyStore {
 public:
  struct Options {
    int keep = 4;  // Versions kept, the newest included; >= 1.
    // Of the products of every version published here.
    policy::InferencePrecision precision = policy::InferencePrecision::kFp32;
    // Rows of the largest batch that a version is warmed up for; >= 1.
    int64_t warm_up_rows = 256;
  };

  PolicyStore(policy::PolicySpec spec, const Options& options);

  // Makes `snapshot` the version that acts from the next batch on, after it
  // has been packed and warmed up on the calling thread. Versions
  // above it, which a restored checkpoint leaves behind, are dropped.
  // `precision`: of its products; absent: that of the options.
  // INTERNAL if its weights do not fit the specification; nothing changes then.
  absl::Status Publish(const ppo::PolicySnapshot& snapshot,
                       std::optional<policy::InferencePrecision> precision =
                           std::nullopt) ABSL_LOCKS_EXCLUDED(mu_, listener_mu_);

  // Calls `listener` after each change of `Current`, on the thread that made
  // it; it must return soon and not publish. Null: nobody, and none is running
  // when this returns.
  void SetListener(std::function<void()> listener)
      ABSL_LOCKS_EXCLUDED(listener_mu_);

  // The version that acts; null before the first `Publish`.
  std::shared_ptr<const PublishedPolicy> Current() const
      ABSL_LOCKS_EXCLUDED(mu_);
  // The same for who must act: UNAVAILABLE (NOT_READY) before the first.
  absl::StatusOr<std::shared_ptr<const PublishedPolicy>> Acting() const
      ABSL_LOCKS_EXCLUDED(mu_);
  // A version by number; null if it is not kept.
  std::shared_ptr<const PublishedPolicy> Find(int64_t version) const
      ABSL_LOCKS_EXCLUDED(mu_);

  const policy::PolicySpec& spec() const { return spec_; }
  const std::string& spec_digest() const { return spec_digest_; }
  policy::InferencePrecision precision() const { return options_.precision; }
  // Version of `Current`, 0 before the first.
  int64_t version() const ABSL_LOCKS_EXCLUDED(mu_);

  // Header of a reply that `version` answered.
  void FillHeader(int64_t version, v1::ResponseHeader* header) const
      ABSL_LOCKS_EXCLUDED(mu_);
  // Header of a reply that no version in particular answered.
  void FillHeader(v1::ResponseHeader* header) const ABSL_LOCKS_EXCLUDED(mu_);

 private:
  const policy::PolicySpec spec_;
  const std::string spec_digest_;
  const Options options_;

  mutable absl::Mutex mu_;
  // Oldest first.
  std::deque<std::shared_ptr<const PublishedPolicy>> versions_
      ABSL_GUARDED_BY(mu_);

  absl::Mutex listener_mu_;  // Held while the listener runs, never with `mu_`.
  std::function<void()> listener_ ABSL_GUARDED_BY(listener_mu_);
};

}  // namespace esper::server
#endif  // ESPER_SERVER_POLICY_STORE_H_
