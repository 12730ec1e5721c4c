#include <algorithm>

#include "core/policy/policy_spec.h"

namespace esper::policy {
namespace {

constexpr int64_t kWidth = 64;

}  // namespace

HeadSpec HeadSpec::Categorical(const std::string& name, int64_t choices,
                               int64_t hidden) {
  HeadSpec head;
  head.name = name;
  head.size = choices;
  head.hidden = {hidden};
  return head;
}

HeadSpec HeadSpec::Gaussian(const std::string& name, int64_t dimensions,
                            int64_t hidden) {
  HeadSpec head = Categorical(name, dimensions, hidden);
  head.kind = HeadKind::kGaussian;
  head.entropy_coef = 0;
  return head;
}

PolicySpec PolicySpec::Plain(int64_t observation_width,
                             const std::vector<HeadSpec>& heads) {
  PolicySpec spec;
  spec.name = "plain";
  spec.observation = {{"observation", observation_width}};
  spec.heads = heads;
  // Rounds over what is left: a head is ready once its driver is in. What
  // never gets ready stays out, and Validate names it.
  bool progress = true;
  while (progress) {
    progress = false;
    for (const HeadSpec& head : heads) {
      const auto& order = spec.sampling_order;
      const auto sampled = [&order](const std::string& name) {
        return std::find(order.begin(), order.end(), name) != order.end();
      };
      if (sampled(head.name)) continue;
      if (!head.driver.empty() && !sampled(head.driver)) continue;
      spec.sampling_order.push_back(head.name);
      progress = true;
    }
  }
  spec.feature_dim = kWidth;
  spec.hidden_dim = kWidth;
  spec.mask_optional = true;
  return spec;
}

}  // namespace esper::policy
