#include "server/training_messages.h"

#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "ATen/ops/tensor.h"
#include "absl/strings/str_cat.h"
#include "proto/codec/tensor_codec.h"
#include "proto/config/field_rules.h"
#include "server/loss_messages.h"
#include "server/refusal.h"

namespace esper::server {
namespace {

absl::Status OutOfRange(const std::string& field, double value,
                        const std::string& range) {
  return Refuse("MALFORMED_REQUEST", field,
                absl::StrCat(field, " must be ", range, ", got ", value, "."),
                "Send the totals that the server answered with, merged.");
}

void EncodeDoubles(const std::vector<double>& values, v1::Tensor* message) {
  codec::EncodeTensor(at::tensor(values, at::kDouble), message);
}

absl::Status DecodeDoubles(const v1::Tensor& message, const std::string& field,
                           int64_t size, std::vector<double>* values) {
  codec::TensorSpec spec{field, {size}, {v1::DATA_TYPE_FLOAT64}};
  auto tensor = codec::DecodeTensor(message, spec);
  if (!tensor.ok()) return tensor.status();
  if (absl::Status finite = codec::CheckFinite(*tensor, field); !finite.ok()) {
    return finite;
  }
  const double* data = tensor->const_data_ptr<double>();
  values->assign(data, data + size);
  return absl::OkStatus();
}

void EncodeTotals(const ppo::BatchTotals& totals, v1::BatchTotals* message) {
  EncodeDoubles(totals.head_steps, message->mutable_head_steps());
  EncodeDoubles(totals.available_steps, message->mutable_available_steps());
  EncodeDoubles(totals.mean_entropies, message->mutable_mean_entropies());
  message->set_valid_steps(totals.valid_steps);
  message->set_unforced_steps(totals.unforced_steps);
  message->set_value_weight(totals.value_weight);
  message->set_contribution_entries(totals.contribution_entries);
  message->set_advantage_count(totals.advantage_count);
  message->set_advantage_mean(totals.advantage_mean);
  message->set_advantage_std(totals.advantage_std);
}

}  // namespace

absl::StatusOr<ppo::BatchTotals> DecodeTotals(const v1::BatchTotals& message,
                                              int64_t heads) {
  ppo::BatchTotals totals;
  for (absl::Status status :
       {DecodeDoubles(message.head_steps(), "totals.head_steps", heads,
                      &totals.head_steps),
        DecodeDoubles(message.available_steps(), "totals.available_steps",
                      heads, &totals.available_steps),
        DecodeDoubles(message.mean_entropies(), "totals.mean_entropies", heads,
                      &totals.mean_entropies)}) {
    if (!status.ok()) return status;
  }
  struct Field {
    const char* name;
    double value;
    double* out;
  };
  for (const Field& field : {
           Field{"totals.valid_steps", message.valid_steps(),
                 &totals.valid_steps},
           Field{"totals.unforced_steps", message.unforced_steps(),
                 &totals.unforced_steps},
           Field{"totals.value_weight", message.value_weight(),
                 &totals.value_weight},
           Field{"totals.contribution_entries", message.contribution_entries(),
                 &totals.contribution_entries},
           Field{"totals.advantage_count", message.advantage_count(),
                 &totals.advantage_count},
           Field{"totals.advantage_std", message.advantage_std(),
                 &totals.advantage_std},
       }) {
    if (!std::isfinite(field.value) || field.value < 0) {
      return OutOfRange(field.name, field.value, "finite and not negative");
    }
    *field.out = field.value;
  }
  if (!std::isfinite(message.advantage_mean())) {
    return OutOfRange("totals.advantage_mean", message.advantage_mean(),
                      "finite");
  }
  totals.advantage_mean = message.advantage_mean();
  return totals;
}

absl::StatusOr<ppo::PassOptions> DecodePassOptions(
    const v1::ForwardBackwardRequest& request, int64_t heads) {
  auto options = DecodeLoss(request);
  if (!options.ok()) return options.status();
  ppo::PassScope& scope = ppo::ScopeOf(*options);
  scope.update_statistics = request.first_pass();
  scope.totals_only = request.totals_only();
  scope.minibatch = request.minibatch();
  if (request.has_totals()) {
    auto totals = DecodeTotals(request.totals(), heads);
    if (!totals.ok()) return totals.status();
    scope.totals = *std::move(totals);
  }
  return options;
}

void EncodeReport(const ppo::ForwardBackwardReport& report,
                  const ppo::PassOptions& options,
                  v1::ForwardBackwardResponse* response) {
  response->mutable_metrics()->insert(report.metrics.begin(),
                                      report.metrics.end());
  response->set_transitions(report.transitions);
  if (report.ratio_check_max) {
    response->set_ratio_check_max(*report.ratio_check_max);
  }
  if (report.ratio_check_mean) {
    response->set_ratio_check_mean(*report.ratio_check_mean);
  }
  response->set_approx_kl(report.approx_kl);
  response->set_kl_stop(report.kl_stop);
  response->set_nonfinite_term(report.nonfinite_term);
  response->set_rolled_back(report.rolled_back);
  *response->mutable_anomalies() = {report.anomalies.begin(),
                                    report.anomalies.end()};
  EncodeTotals(report.totals, response->mutable_totals());
  EncodeEffective(options, report.effective, response);
}

void EncodeStep(const ppo::OptimStepReport& report,
                v1::OptimStepResponse* response) {
  response->set_stepped(report.stepped);
  response->set_gradient_norm_before_clip(report.gradient_norm_before_clip);
  response->set_weights_change_l2(report.weights_change_l2);
  response->set_optimizer_steps(report.optimizer_steps);
  response->set_nonfinite_tensor(report.nonfinite_tensor);
  response->set_rolled_back(report.rolled_back);
  *response->mutable_anomalies() = {report.anomalies.begin(),
                                    report.anomalies.end()};
}

absl::StatusOr<ppo::OptimStepOptions> DecodeOptimStep(
    const v1::OptimStepRequest& request) {
  absl::Status valid = config::CheckFields(request, "");
  if (!valid.ok()) return valid;
  ppo::OptimStepOptions options;
  if (request.has_max_grad_norm()) {
    options.max_grad_norm = request.max_grad_norm();
  }
  if (request.has_learning_rate()) {
    options.learning_rate = request.learning_rate();
  }
  return options;
}

absl::StatusOr<ppo::Cotangents> DecodeCotangents(
    const v1::Cotangents& message) {
  ppo::Cotangents cotangents;
  cotangents.trains_policy = message.trains_policy();
  struct Field {
    const char* name;
    const v1::Tensor& message;
    int64_t axes;
    at::Tensor* out;
  };
  for (const Field& field : {
           Field{"cotangents.log_probs", message.log_probs(), 3,
                 &cotangents.log_probs},
           Field{"cotangents.entropies", message.entropies(), 3,
                 &cotangents.entropies},
           Field{"cotangents.values", message.values(), 2, &cotangents.values},
           Field{"cotangents.q_values", message.q_values(), 2,
                 &cotangents.q_values},
           Field{"cotangents.contributions", message.contributions(), 3,
                 &cotangents.contributions},
       }) {
    if (codec::IsAbsent(field.message)) continue;
    codec::TensorSpec spec;
    spec.field = field.name;
    spec.shape.assign(field.axes, -1);
    spec.dtypes = {v1::DATA_TYPE_FLOAT32};
    auto tensor = codec::DecodeTensor(field.message, spec);
    if (!tensor.ok()) return tensor.status();
    *field.out = *std::move(tensor);
  }
  return cotangents;
}

}  // namespace esper::server
