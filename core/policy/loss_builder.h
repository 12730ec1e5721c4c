#ifndef ESPER_CORE_POLICY_LOSS_BUILDER_H_
#define ESPER_CORE_POLICY_LOSS_BUILDER_H_

#include <cstdint>
#include <string>
#include <vector>

#include "ATen/core/Tensor.h"

namespace esper::policy {

class RecurrentPolicy;

// Adds named loss terms and runs the backward pass, refusing a loss that would
// train nothing of what it says it trains: the classic silent mistake of a
// policy term made from acting-time log-probabilities.
//
// One use. Not thread-safe; the network must outlive it.
class LossBuilder {
 public:
  struct Report {
    double loss = 0;
    // Heads whose gradient is all zero: legal (forced steps, no advantage), but
    // worth a look if it lasts.
    std::vector<std::string> zero_gradient_heads;
  };

  explicit LossBuilder(RecurrentPolicy& network);

  // A term that trains the network: scalar, multiplied by `weight`.
  LossBuilder& AddTerm(const std::string& name, const at::Tensor& term,
                       double weight = 1.0);
  // The same for a policy term: it must reach the parameters of `heads`
  // (by name; frozen heads are exempt).
  LossBuilder& AddPolicyTerm(const std::string& name, const at::Tensor& term,
                             const std::vector<std::string>& heads,
                             double weight = 1.0);

  // Adds the gradient of the sum to each parameter's. Throws, with every
  // gradient as it was:
  //   GradientContractError  NOT_DIFFERENTIABLE: a term without a gradient
  //                          function, named; POLICY_TERM_MISSING: heads that
  //                          the backward pass did not reach, named;
  //   ShapeError             a term that is not a scalar.
  // An all-zero gradient is counted, and logged once per network and head.
  Report Backward();

 private:
  struct Term {
    std::string name;
    at::Tensor value;
    double weight;
    std::vector<std::string> heads;
  };

  RecurrentPolicy& network_;
  std::vector<Term> terms_;
};

}  // namespace esper::policy
#endif  // ESPER_CORE_POLICY_LOSS_BUILDER_H_
