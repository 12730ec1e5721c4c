#include "server/admin_messages.h"

#include <string>

namespace esper::server {
namespace {

void SetTime(int64_t unix_nanos, google::protobuf::Timestamp* time) {
  constexpr int64_t kNanos = 1'000'000'000;
  time->set_seconds(unix_nanos / kNanos);
  time->set_nanos(static_cast<int32_t>(unix_nanos % kNanos));
}

}  // namespace

v1::CheckpointSummary EncodeCheckpoint(const CheckpointInfo& info) {
  v1::CheckpointSummary summary;
  summary.set_name(info.name);
  summary.set_policy_version(info.policy_version);
  summary.set_optimizer_steps(info.optimizer_steps);
  summary.set_spec_digest(info.spec_digest);
  summary.set_lease_token(info.lease_token);
  SetTime(info.saved_at_nanos, summary.mutable_saved_at());
  summary.set_size_bytes(info.size_bytes);
  summary.set_automatic(info.automatic);
  summary.set_weights_digest(info.weights_digest);
  return summary;
}

v1::VersionSummary EncodeVersion(const VersionHistory::State& state,
                                 const std::set<int64_t>& kept,
                                 int64_t version) {
  v1::VersionSummary summary;
  summary.set_policy_version(version);
  for (const std::string& label : state.LabelsOf(version)) {
    summary.add_labels(label);
  }
  summary.set_kept(kept.count(version) > 0);
  const auto it = state.records.find(version);
  if (it == state.records.end()) return summary;
  const VersionRecord& record = it->second;
  SetTime(record.published_at_nanos, summary.mutable_published_at());
  summary.set_precision(record.bf16 ? v1::INFERENCE_PRECISION_BF16
                                    : v1::INFERENCE_PRECISION_FP32);
  summary.set_optimizer_steps(record.optimizer_steps);
  summary.set_weights_digest(record.weights_digest);
  summary.set_rolled_back_to(record.rolled_back_to);
  return summary;
}

}  // namespace esper::server
