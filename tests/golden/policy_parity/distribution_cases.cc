#include <map>
#include <set>

#include "ATen/ops/full.h"
#include "ATen/ops/where.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "core/policy/masked_categorical.h"
#include "tests/golden/policy_parity/golden_network.h"
#include "torch/csrc/autograd/autograd.h"

namespace esper::testing {
namespace {

using policy::FloorMode;
using policy::MaskedCategorical;

// "none,f05=0.05,..." -> tag and floor.
std::map<std::string, double> Floors(const GoldenFile& file) {
  std::map<std::string, double> floors;
  const std::vector<std::string> items =
      absl::StrSplit(file.Text("floors"), ',');
  for (const std::string& item : items) {
    const std::vector<std::string> parts = absl::StrSplit(item, '=');
    floors[parts[0]] = parts.size() > 1 ? std::stod(parts[1]) : 0.0;
  }
  return floors;
}

MaskedCategorical Distribution(const at::Tensor& logits, const at::Tensor& mask,
                               double floor) {
  return MaskedCategorical(
      logits.unsqueeze(1), mask.unsqueeze(1), /*fill=*/{}, FloorMode::kUpstream,
      floor > 0 ? at::full({1}, floor, at::kFloat) : at::Tensor());
}

void CompareTag(GoldenFile& file, const std::string& size,
                const std::string& tag, double floor,
                GoldenReport::Case& test) {
  const std::string prefix = absl::StrCat(size, ".", tag, ".");
  const at::Tensor mask = file.Take(size + ".mask");
  const at::Tensor logits =
      file.Take(size + ".logits").clone().requires_grad_(true);
  const MaskedCategorical choices = Distribution(logits, mask, floor);
  const auto compare = [&](const std::string& name, const at::Tensor& actual) {
    CompareOutput(test, name, actual.squeeze(1), file.Take(prefix + name));
  };
  compare("masked_logits", choices.logits());
  compare("log_probs", choices.log_probs());
  compare("probs", choices.Probs());
  compare("entropy", choices.Entropy());
  compare("argmax", choices.ArgMax());
  const at::Tensor loss =
      at::where(
          mask,
          file.Take(prefix + "w_log_prob").mul(choices.log_probs().squeeze(1)),
          0.0f)
          .sum()
          .add(file.Take(prefix + "w_entropy")
                   .mul(choices.Entropy().squeeze(1))
                   .sum());
  const auto gradient = torch::autograd::grad({loss}, {logits});
  CompareGradient(test, "d_logits", gradient[0],
                  file.Take(prefix + "d_logits"));
}

}  // namespace

void CheckDistribution(GoldenFile& file, GoldenReport* report) {
  std::set<std::string> sizes;
  for (const std::string& name : file.Names()) {
    const std::string size = name.substr(0, name.find('.'));
    if (size != "empty") sizes.insert(size);
  }
  RunCase(report, "distribution/empty", [&](GoldenReport::Case& test) {
    const at::Tensor logits = file.Take("empty.logits");
    const MaskedCategorical choices =
        Distribution(logits, at::full(logits.sizes(), false, at::kBool), 0);
    CompareOutput(test, "masked_logits", choices.logits().squeeze(1),
                  file.Take("empty.masked_logits"));
    CompareOutput(test, "probs", choices.Probs().squeeze(1),
                  file.Take("empty.probs"));
    CompareOutput(test, "entropy", choices.Entropy().squeeze(1),
                  file.Take("empty.entropy"));
  });
  for (const std::string& size : sizes) {
    for (const auto& [tag, floor] : Floors(file)) {
      const std::string name = tag;
      const double value = floor;
      RunCase(report, absl::StrCat("distribution/", size, ".", name),
              [&](GoldenReport::Case& test) {
                CompareTag(file, size, name, value, test);
              });
    }
  }
}

}  // namespace esper::testing
