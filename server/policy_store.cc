#include "server/policy_store.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "core/policy/inference_policy.h"
#include "core/policy/packed_policy.h"
#include "server/refusal.h"

namespace esper::server {

PolicyStore::PolicyStore(policy::PolicySpec spec, const Options& options)
    : spec_(std::move(spec)), spec_digest_(spec_.Digest()), options_(options) {}

absl::Status PolicyStore::Publish(
    const ppo::PolicySnapshot& snapshot,
    std::optional<policy::InferencePrecision> precision) {
  const policy::InferencePrecision used =
      precision.value_or(options_.precision);
  auto policy = policy::InferencePolicy::Create(
      spec_, snapshot.weights, snapshot.version, {}, snapshot.floors, used);
  if (!policy.ok()) {
    return absl::InternalError(
        absl::StrCat("Version ", snapshot.version,
                     " cannot act: ", std::string(policy.status().message())));
  }
  (*policy)->packed().WarmUp(options_.warm_up_rows);
  auto published = std::make_shared<PublishedPolicy>();
  published->version = snapshot.version;
  published->precision = policy::PrecisionName(used);
  published->policy = *std::move(policy);
  published->scaler = snapshot.scaler;
  published->snapshot = snapshot;
  {
    absl::MutexLock lock(&mu_);
    while (!versions_.empty() &&
           versions_.back()->version >= snapshot.version) {
      versions_.pop_back();
    }
    versions_.push_back(std::move(published));
    while (versions_.size() > options_.keep) versions_.pop_front();
  }
  absl::MutexLock lock(&listener_mu_);
  if (listener_) listener_();
  return absl::OkStatus();
}

void PolicyStore::SetListener(std::function<void()> listener) {
  absl::MutexLock lock(&listener_mu_);
  listener_ = std::move(listener);
}

std::shared_ptr<const PublishedPolicy> PolicyStore::Current() const {
  absl::MutexLock lock(&mu_);
  return versions_.empty() ? nullptr : versions_.back();
}

absl::StatusOr<std::shared_ptr<const PublishedPolicy>> PolicyStore::Acting()
    const {
  auto current = Current();
  if (current != nullptr) return current;
  return Refuse("NOT_READY", "",
                "The server waits for the first version of its policy.",
                "Retry later, or on another server.");
}

std::shared_ptr<const PublishedPolicy> PolicyStore::Find(
    int64_t version) const {
  absl::MutexLock lock(&mu_);
  for (const auto& published : versions_) {
    if (published->version == version) return published;
  }
  return nullptr;
}

int64_t PolicyStore::version() const {
  const auto current = Current();
  return current == nullptr ? 0 : current->version;
}

void PolicyStore::FillHeader(int64_t version,
                             v1::ResponseHeader* header) const {
  header->set_policy_version(version);
  header->set_spec_digest(spec_digest_);
  const auto published = Find(version);
  const policy::InferencePrecision precision =
      published == nullptr ? options_.precision
                           : published->policy->precision();
  header->set_precision(precision == policy::InferencePrecision::kBf16
                            ? v1::INFERENCE_PRECISION_BF16
                            : v1::INFERENCE_PRECISION_FP32);
}

void PolicyStore::FillHeader(v1::ResponseHeader* header) const {
  FillHeader(version(), header);
}

}  // namespace esper::server
