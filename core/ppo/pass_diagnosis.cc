#include "core/ppo/pass_diagnosis.h"

#include <cmath>
#include <string>
#include <utility>

#include "core/ppo/lstm_health.h"
#include "core/ppo/pass_metrics.h"

namespace esper::ppo {
namespace {

void DiagnoseUpdate(const policy::RecurrentPolicy& network,
                    const policy::EvaluationInputs& inputs,
                    const policy::RecurrentState& state,
                    HeadCollapseMonitor* collapse,
                    ForwardBackwardReport* report) {
  AddQMetrics(network, inputs, &report->metrics);
  const LstmHealth health = MeasureLstm(state.h, state.c);
  AddStateMetrics(health, &report->metrics);
  report->anomalies = health.Anomalies();
  const policy::PolicySpec& spec = network.spec();
  for (size_t k = 0; k < spec.heads.size(); ++k) {
    if (report->totals.available_steps[k] == 0) continue;
    const auto name =
        collapse->Update(spec.heads[k].name, report->totals.mean_entropies[k]);
    if (name.has_value()) report->anomalies.push_back(*name);
  }
}

// 0 for what the loss does not measure.
double Find(const Metrics& metrics, const std::string& name) {
  const auto it = metrics.find(name);
  return it == metrics.end() ? 0.0 : it->second;
}

}  // namespace

void Diagnose(const policy::RecurrentPolicy& network,
              const policy::EvaluationInputs& inputs,
              const PassDiagnosis& diagnosis, HeadCollapseMonitor* collapse,
              ForwardBackwardReport* report) {
  if (diagnosis.first_pass) {
    DiagnoseUpdate(network, inputs, diagnosis.state, collapse, report);
  }
  AnomalyInputs numbers;
  if (diagnosis.ratios != nullptr) {
    numbers.ratio_max = diagnosis.ratios->joint_max;
    numbers.ratio_min = diagnosis.ratios->joint_min;
    numbers.kl = diagnosis.ratios->approx_kl;
  }
  for (const auto& [name, value] : report->metrics) {
    if (!std::isfinite(value)) numbers.nonfinite_metric = true;
  }
  numbers.any_unforced = report->totals.unforced_steps > 0;
  numbers.value_loss = Find(report->metrics, "value");
  numbers.bellman_error = Find(report->metrics, "bellman_error");
  numbers.entropy = report->metrics.at("mean_entropy");
  for (std::string& name : DetectAnomalies(numbers)) {
    report->anomalies.push_back(std::move(name));
  }
}

}  // namespace esper::ppo
