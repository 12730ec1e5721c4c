#include <cmath>
#include <utility>

#include "ATen/TensorOperators.h"
#include "ATen/ops/empty.h"
#include "ATen/ops/where.h"
#include "ATen/ops/zeros.h"
#include "absl/strings/str_cat.h"
#include "c10/core/GradMode.h"
#include "core/error.h"
#include "core/policy/loss_builder.h"
#include "core/ppo/learner_core.h"
#include "core/tensor/checks.h"

namespace esper::ppo {
namespace {

at::Tensor Copy(const policy::BehaviourTensor& numbers) {
  if (!numbers.defined()) return at::Tensor();
  at::Tensor copy = at::empty(numbers.sizes(), at::kFloat);
  numbers.CopyTo(copy);
  return copy;
}

at::Tensor Copy(const policy::DifferentiableTensor& x) {
  return x.defined() ? x.tensor().detach().clone() : at::Tensor();
}

// What `Learner::Evaluate` returns.
class KeptEvaluation : public OpenEvaluation {
 public:
  EvaluationNumbers Numbers() const override { return numbers; }
  bool differentiable() const override { return open; }

  EvaluationNumbers numbers;
  policy::Evaluation graph;
  bool open = false;
  uint64_t learner = 0;     // Identity of the learner...
  uint64_t generation = 0;  // ... and of its weights at the time.
};

// A cotangent made safe to multiply with: padding zeroed, checked.
at::Tensor Checked(const at::Tensor& cotangent, const std::string& name,
                   const policy::DifferentiableTensor& output,
                   const at::Tensor& valid) {
  if (!output.defined()) {
    throw ShapeError(name, "absent: the policy has no such output",
                     tensor::Describe(cotangent));
  }
  const at::Tensor& shape = output.tensor();
  if (cotangent.scalar_type() != at::kFloat ||
      cotangent.sizes() != shape.sizes()) {
    throw ShapeError(name, tensor::Describe(shape.detach()),
                     tensor::Describe(cotangent));
  }
  const at::Tensor mask = shape.dim() == 3 ? valid.unsqueeze(2) : valid;
  const at::Tensor masked =
      at::where(mask, cotangent.detach(), at::zeros({}, at::kFloat))
          .contiguous();
  tensor::CheckFinite(masked, name, /*row_dim=*/0, /*step_dim=*/1);
  return masked;
}

// A frozen head cannot follow its cotangents: they must be zero.
void CheckTrainable(const at::Tensor& cotangent, const std::string& name,
                    const std::vector<bool>& trainable,
                    const policy::PolicySpec& spec) {
  for (size_t k = 0; k < trainable.size(); ++k) {
    if (trainable[k] ||
        !cotangent.select(2, static_cast<int64_t>(k)).any().item<bool>()) {
      continue;
    }
    ErrorDetail detail;
    detail.reason = "UNTRAINED_OUTPUT";
    detail.field = spec.heads[k].name;
    detail.tensor = name;
    detail.hint = "Send zeros for frozen heads, or thaw them.";
    throw InvalidArgumentError(
        detail,
        absl::StrCat("Head ", detail.field, " is frozen, but its cotangent of ",
                     name, " is not zero."));
  }
}

}  // namespace

std::unique_ptr<OpenEvaluation> LearnerCore::Evaluate(
    absl::Span<const Trajectory> trajectories, bool keep_graph) {
  const c10::AutoGradMode grad_mode(true);
  const PreparedBatch prepared = Prepare(trajectories);
  auto kept = std::make_unique<KeptEvaluation>();
  kept->learner = identity;
  kept->generation = generation;
  EvaluationNumbers& numbers = kept->numbers;
  numbers.valid = prepared.batch.valid;
  numbers.trainable = at::zeros({spec.num_heads()}, at::kBool);
  for (int64_t k = 0; k < spec.num_heads(); ++k) {
    bool trains = false;
    for (const at::Tensor& parameter :
         network->HeadParameters(spec.heads[k].name)) {
      trains = trains || parameter.requires_grad();
    }
    numbers.trainable[k].fill_(trains);
  }
  const auto fill = [&numbers](const auto& evaluation) {
    numbers.log_probs = Copy(evaluation.log_probs);
    numbers.entropies = Copy(evaluation.entropies);
    numbers.values = Copy(evaluation.values);
    numbers.q_values = Copy(evaluation.q_values);
    numbers.contributions = Copy(evaluation.contributions);
  };
  if (!keep_graph) {
    fill(policy::EvaluateReference(*network, prepared.inputs, Evaluating()));
    return kept;
  }
  // A stream of its own: whoever evaluates does not change what training draws.
  SeedDropout(~evaluations_++);
  kept->graph =
      policy::EvaluateActions(*network, prepared.inputs, Evaluating());
  kept->open = true;
  fill(kept->graph);
  return kept;
}

double LearnerCore::AccumulateGradients(OpenEvaluation& evaluation,
                                        const Cotangents& cotangents) {
  auto* kept = dynamic_cast<KeptEvaluation*>(&evaluation);
  if (kept == nullptr || !kept->open || kept->learner != identity) {
    RefuseCall("NOT_DIFFERENTIABLE", "evaluation_id",
               "This evaluation has no graph: it was made without one, has "
               "been used, or belongs to another learner.",
               "Evaluate again with keep_graph, and send cotangents once.");
  }
  if (kept->generation != generation) {
    RefuseCall("EVALUATION_EXPIRED", "evaluation_id",
               "The weights have moved since this evaluation was made.",
               "Send cotangents before the optimiser step.");
  }
  if (cotangents.trains_policy && !cotangents.log_probs.defined()) {
    RefuseCall("POLICY_TERM_MISSING", "log_probs",
               "The loss is declared to train the policy, but no cotangent of "
               "the log-probabilities came with it.",
               "Differentiate with respect to the evaluated log-probabilities, "
               "not those that GetAction returned.");
  }
  const policy::Evaluation& graph = kept->graph;
  struct Term {
    const char* name;
    const at::Tensor* cotangent;
    const policy::DifferentiableTensor* output;
  };
  const Term all[] = {
      {"log_probs", &cotangents.log_probs, &graph.log_probs},
      {"entropies", &cotangents.entropies, &graph.entropies},
      {"values", &cotangents.values, &graph.values},
      {"q_values", &cotangents.q_values, &graph.q_values},
      {"contributions", &cotangents.contributions, &graph.contributions}};
  std::vector<std::string> heads;
  for (const policy::HeadSpec& head : spec.heads) heads.push_back(head.name);

  const c10::AutoGradMode grad_mode(true);
  policy::LossBuilder builder(*network);
  bool any = false;
  for (const Term& term : all) {
    if (!term.cotangent->defined()) continue;
    any = true;
    const at::Tensor weights =
        Checked(*term.cotangent, term.name, *term.output, kept->numbers.valid);
    if (weights.dim() == 3 && term.cotangent != &cotangents.contributions) {
      CheckTrainable(weights, term.name, graph.trainable, spec);
    }
    const at::Tensor loss = (weights * term.output->tensor()).sum();
    if (term.cotangent == &cotangents.log_probs && cotangents.trains_policy) {
      builder.AddPolicyTerm(term.name, loss, heads);
    } else {
      builder.AddTerm(term.name, loss);
    }
  }
  if (!any) {
    RefuseCall("MALFORMED_REQUEST", "cotangents", "There is no cotangent.",
               "Send the gradient of at least one output.");
  }
  const std::vector<at::Tensor> earlier = TakeGradients();
  kept->open = false;
  double norm = 0;
  try {
    builder.Backward();
    norm = GradientNorm();
    if (!std::isfinite(norm)) {
      throw NonFiniteError::Input(
          absl::StrCat("gradient of ", FirstNonFiniteGradient()));
    }
  } catch (...) {
    PutGradients(earlier);
    kept->graph = policy::Evaluation();
    throw;
  }
  kept->graph = policy::Evaluation();
  bool alone = true;
  for (const at::Tensor& gradient : earlier) {
    alone = alone && !gradient.defined();
  }
  if (alone) return norm;
  AddGradients(earlier);
  return GradientNorm();
}

double LearnerCore::GradientNorm() const {
  std::vector<at::Tensor> gradients;
  for (const at::Tensor& parameter : parameters) {
    gradients.push_back(parameter.grad());
  }
  return GlobalNorm(gradients);
}

}  // namespace esper::ppo
