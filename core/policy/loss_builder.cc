#include "core/policy/loss_builder.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "c10/core/GradMode.h"
#include "core/error.h"
#include "core/log.h"
#include "core/policy/recurrent_policy.h"
#include "core/tensor/checks.h"
#include "torch/csrc/autograd/autograd.h"

namespace esper::policy {
namespace {

// What one head got from the backward pass.
enum class Reached { kFrozen, kNo, kZero, kYes };

// Whether nobody else can see or write the memory of `x`.
bool IsAlone(const at::Tensor& x) {
  return x.use_count() == 1 && x.storage().use_count() == 1 &&
         x.is_contiguous() &&
         x.storage().nbytes() == static_cast<size_t>(x.nbytes());
}

}  // namespace

LossBuilder::LossBuilder(RecurrentPolicy& network) : network_(network) {}

LossBuilder& LossBuilder::AddTerm(const std::string& name,
                                  const at::Tensor& term, double weight) {
  terms_.push_back({name, term, weight, {}});
  return *this;
}

LossBuilder& LossBuilder::AddPolicyTerm(const std::string& name,
                                        const at::Tensor& term,
                                        const std::vector<std::string>& heads,
                                        double weight) {
  terms_.push_back({name, term, weight, heads});
  return *this;
}

LossBuilder::Report LossBuilder::Backward() {
  at::Tensor loss;
  for (const Term& term : terms_) {
    if (!term.value.defined() || term.value.numel() != 1) {
      throw ShapeError(absl::StrCat("loss term ", term.name), "a scalar",
                       tensor::Describe(term.value));
    }
    // A leaf that was made to require a gradient has no gradient function.
    if (!term.value.requires_grad() || term.value.is_leaf()) {
      ErrorDetail detail;
      detail.reason = "NOT_DIFFERENTIABLE";
      detail.field = term.name;
      detail.hint = "Build it from what EvaluateActions returned.";
      throw GradientContractError(
          detail, absl::StrCat("The loss term ", term.name,
                               " has no gradient function: it would train "
                               "nothing."));
    }
    const at::Tensor weighted = term.value.reshape({}).mul(term.weight);
    loss = loss.defined() ? loss.add(weighted) : weighted;
  }
  if (!loss.defined()) throw ShapeError("loss", "at least one term", "none");

  std::vector<at::Tensor> parameters;
  for (const at::Tensor& parameter : network_.parameters()) {
    if (parameter.requires_grad()) parameters.push_back(parameter);
  }
  // Gradients apart from those accumulated, so that a refusal changes nothing
  // and a parameter that was not reached shows on every call.
  std::vector<at::Tensor> gradients = torch::autograd::grad(
      {loss}, parameters, /*grad_outputs=*/{}, /*retain_graph=*/std::nullopt,
      /*create_graph=*/false, /*allow_unused=*/true);

  // A head is judged by its output layer.
  const auto reached = [&](const std::string& head) {
    const std::vector<at::Tensor> own = network_.HeadParameters(head);
    const auto gradient_of = [&](const at::Tensor& parameter) {
      for (size_t i = 0; i < parameters.size(); ++i) {
        if (parameters[i].is_same(parameter)) return gradients[i];
      }
      return at::Tensor();
    };
    const at::Tensor& output_bias = own.back();
    const at::Tensor& output_weight = own[own.size() - 2];
    bool trains = false;
    for (const at::Tensor& parameter : own) {
      trains = trains || parameter.requires_grad();
    }
    if (!trains) return Reached::kFrozen;
    // Smallest first: the output bias nearly always settles it.
    for (auto parameter = own.rbegin(); parameter != own.rend(); ++parameter) {
      const at::Tensor gradient = gradient_of(*parameter);
      if (gradient.defined() && gradient.any().item<bool>()) {
        return Reached::kYes;
      }
    }
    for (const at::Tensor& output : {output_weight, output_bias}) {
      if (output.requires_grad() && !gradient_of(output).defined()) {
        return Reached::kNo;
      }
    }
    return Reached::kZero;
  };
  Report report;
  report.loss = loss.item<double>();
  std::vector<std::string> missing;
  std::string terms;
  for (const Term& term : terms_) {
    for (const std::string& head : term.heads) {
      const Reached got = reached(head);
      if (got == Reached::kNo) {
        missing.push_back(head);
        terms = term.name;
      } else if (got == Reached::kZero) {
        report.zero_gradient_heads.push_back(head);
      }
    }
  }
  if (!missing.empty()) {
    ErrorDetail detail;
    detail.reason = "POLICY_TERM_MISSING";
    detail.field = missing[0];
    detail.hint =
        "Build the policy term from the log-probabilities that EvaluateActions "
        "returned, not from a copy of what GetAction returned.";
    throw GradientContractError(
        detail, absl::StrCat("The loss term ", terms,
                             " gave no gradient to the heads it should train: ",
                             absl::StrJoin(missing, ", "), "."));
  }
  for (const std::string& head : report.zero_gradient_heads) {
    if (network_.FirstZeroGradientWarning(network_.spec().HeadIndex(head))) {
      spdlog::warn("The gradient of head {} is all zero.", head);
    }
  }
  const c10::NoGradGuard no_grad;
  for (size_t i = 0; i < parameters.size(); ++i) {
    if (!gradients[i].defined()) continue;
    at::Tensor& grad = parameters[i].mutable_grad();
    if (grad.defined()) {
      grad.add_(gradients[i]);
    } else if (IsAlone(gradients[i])) {
      grad = std::move(gradients[i]);
    } else {
      grad = gradients[i].clone(at::MemoryFormat::Contiguous);
    }
  }
  return report;
}

}  // namespace esper::policy
