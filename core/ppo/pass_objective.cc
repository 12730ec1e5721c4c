#include "core/ppo/pass_objective.h"

#include "core/ppo/behaviour_cloning.h"
#include "core/ppo/importance_sampling.h"
#include "core/ppo/ppo_objective.h"

namespace esper::ppo {
namespace {

std::unique_ptr<PassObjective> Make(const PpoOptions& options) {
  return std::make_unique<PpoObjective>(options);
}
std::unique_ptr<PassObjective> Make(const ImportanceSamplingOptions& options) {
  return std::make_unique<ImportanceSampling>(options);
}
std::unique_ptr<PassObjective> Make(const BehaviourCloningOptions& options) {
  return std::make_unique<BehaviourCloning>(options);
}

}  // namespace

std::unique_ptr<PassObjective> MakeObjective(const PassOptions& options) {
  return std::visit([](const auto& known) { return Make(known); }, options);
}

std::vector<double> EntropyMultipliers(const policy::PolicySpec& spec) {
  std::vector<double> multipliers;
  for (const policy::HeadSpec& head : spec.heads) {
    multipliers.push_back(head.entropy_coef);
  }
  return multipliers;
}

}  // namespace esper::ppo
