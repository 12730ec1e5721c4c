#include "server/metrics/server_metrics.h"

#include "absl/time/time.h"
#include "server/transport/tls.h"
#include "server/version.h"

namespace esper::server {
namespace {

void AddServing(const ServerMetrics::Sources& from, ScrapedMetrics* metrics) {
  const ServerCounters* counters = from.counters;
  metrics->AddCounter("esper_actions_total",
                      "Steps taken: one action of one episode each.",
                      [counters] { return counters->actions_served.load(); });
  metrics->AddCounter("esper_steps_repeated_total",
                      "Steps answered from memory because they came again.",
                      [counters] { return counters->steps_repeated.load(); });
  metrics->AddCounter("esper_batches_total", "Batches run.",
                      [counters] { return counters->batches_run.load(); });
  metrics->AddCounters("esper_refusals_total", "Calls refused, by reason.",
                       "reason", [counters] { return counters->Refusals(); });
  metrics->AddGauge("esper_open_episodes", "Episodes open.",
                    from.open_episodes);
  metrics->AddCounters("esper_episodes_ended_total",
                       "Episodes that have ended, by cause.", "cause",
                       from.episodes_ended);
  metrics->AddGauge("esper_queued_calls", "GetAction calls that wait.",
                    from.queued_calls);
  metrics->AddGauge("esper_policy_version", "Version that acts.",
                    from.policy_version);
}

void AddTraining(const ServerMetrics::Sources& from, ScrapedMetrics* metrics) {
  LearnerThread* learner = from.learner;
  if (learner == nullptr) return;
  metrics->AddCounter("esper_optimizer_steps_total",
                      "Optimiser steps of the learner, over restarts.",
                      [learner] { return learner->Status().optimizer_steps; });
  metrics->AddCounter(
      "esper_transitions_trained_total", "Steps of first passes.",
      [learner] { return learner->Status().transitions_trained; });
  metrics->AddGauge("esper_unpublished_steps",
                    "Optimiser steps taken since the last publish.",
                    [learner] { return learner->Status().unpublished_steps; });
  metrics->AddGauge(
      "esper_ratio_check_max",
      "Largest |log-prob trained - log-prob acted| of the last update's first "
      "pass, nats; negative before one.",
      [learner] { return learner->Status().ratio_check_max; });
  metrics->AddGauge("esper_open_evaluations",
                    "Evaluations that still hold a graph.",
                    from.open_evaluations);
  metrics->AddGauge("esper_graph_bytes",
                    "Memory budgeted for the graphs of open evaluations.",
                    from.graph_bytes);
  metrics->AddGauge("esper_recording_bytes",
                    "Memory taken by recorded episodes.", from.recording_bytes);
  metrics->AddCounter("esper_ratio_alarms_total",
                      "Passes whose ratio check was above the alarm limit.",
                      [learner] { return learner->Status().ratio_alarms; });
  metrics->AddGauge(
      "esper_policy_lag_versions",
      "Of the last pass: versions that its steps were behind, on average; "
      "negative before one.",
      [learner] { return learner->Status().version_lag; });
}

void AddProcess(const ServerMetrics::Sources& from, ScrapedMetrics* metrics) {
  ConnectionLimit* connections = from.connections;
  metrics->AddGauge("esper_connections", "Connections open.",
                    [connections] { return connections->open(); });
  metrics->AddCounter("esper_connections_refused_total",
                      "Connections closed at once, over --max_connections.",
                      [connections] { return connections->refused(); });
  metrics->AddCounter(
      "esper_accept_shortages_total",
      "Times that accepting waited for want of descriptors or memory.",
      [connections] { return connections->shortages(); });
  metrics->AddInfo("esper_build_info", "Version of the server.", "version",
                   kServerVersion);
  if (from.certificate_file.empty()) return;
  metrics->AddGauge(
      "esper_certificate_expiry_timestamp_seconds",
      "End of the server certificate's validity; 0 if it cannot be read.",
      [file = from.certificate_file] {
        const auto expiry = CertificateExpiry(file);
        return expiry.ok() ? absl::ToDoubleSeconds(*expiry - absl::UnixEpoch())
                           : 0;
      });
}

}  // namespace

absl::Status ServerMetrics::Serve(const std::string& address,
                                  const Sources& sources) {
  AddServing(sources, &scraped_);
  AddTraining(sources, &scraped_);
  AddProcess(sources, &scraped_);
  auto exporter = Exporter::Start(address, {&registry_, &scraped_});
  if (!exporter.ok()) return exporter.status();
  exporter_ = *std::move(exporter);
  return absl::OkStatus();
}

}  // namespace esper::server
