#include "server/policy_store.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "core/policy/inference_policy.h"
#include "core/policy/packed_policy.h"

namespace esper::server {

PolicyStore::PolicyStore(policy::PolicySpec spec, const Options& options)
    : spec_(std::move(spec)), spec_digest_(spec_.Digest()), options_(options) {}

absl::Status PolicyStore::Publish(const ppo::PolicySnapshot& snapshot) {
  auto policy =
      policy::InferencePolicy::Create(spec_, snapshot.weights, snapshot.version,
                                      {}, snapshot.floors, options_.precision);
  if (!policy.ok()) {
    return absl::InternalError(
        absl::StrCat("Version ", snapshot.version,
                     " cannot act: ", std::string(policy.status().message())));
  }
  (*policy)->packed().WarmUp(options_.warm_up_rows);
  auto published = std::make_shared<PublishedPolicy>();
  published->version = snapshot.version;
  published->precision = policy::PrecisionName(options_.precision);
  published->policy = *std::move(policy);
  published->scaler = snapshot.scaler;

  absl::MutexLock lock(&mu_);
  while (!versions_.empty() && versions_.back()->version >= snapshot.version) {
    versions_.pop_back();
  }
  versions_.push_back(std::move(published));
  while (versions_.size() > options_.keep) versions_.pop_front();
  return absl::OkStatus();
}

std::shared_ptr<const PublishedPolicy> PolicyStore::Current() const {
  absl::MutexLock lock(&mu_);
  return versions_.empty() ? nullptr : versions_.back();
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
  header->set_precision(options_.precision == policy::InferencePrecision::kBf16
                            ? v1::INFERENCE_PRECISION_BF16
                            : v1::INFERENCE_PRECISION_FP32);
}

void PolicyStore::FillHeader(v1::ResponseHeader* header) const {
  FillHeader(version(), header);
}

}  // namespace esper::server
