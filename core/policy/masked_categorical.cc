#include "core/policy/masked_categorical.h"

#include <cmath>

#include "ATen/ops/log_softmax.h"
#include "ATen/ops/minimum.h"
#include "ATen/ops/softmax.h"
#include "ATen/ops/where.h"

namespace esper::policy {
namespace {

// Keeps logarithms and quotients finite.
constexpr double kTiny = 1e-8;

}  // namespace

MaskedCategorical::MaskedCategorical(const at::Tensor& logits,
                                     const at::Tensor& allowed,
                                     const at::Tensor& fill, FloorMode mode,
                                     const at::Tensor& floors)
    : allowed_(allowed), fill_(fill), count_(allowed.sum(-1)) {
  const at::Tensor raw = logits.to(at::kFloat);
  masked_ = fill_.defined() ? at::where(allowed_, raw, fill_)
                            : at::where(allowed_, raw, kMaskedLogit);
  z_ = masked_;
  if (mode != FloorMode::kNone && floors.defined()) {
    const at::Tensor n = count_.clamp_min(1).to(at::kFloat);
    // [N, K, 1]: the floor in force.
    const at::Tensor floor =
        at::minimum(floors, n.reciprocal().mul_(kFloorCap)).unsqueeze(-1);
    const at::Tensor p = at::softmax(masked_, -1);
    const at::Tensor floored = Floored(mode, p, floor);
    const at::Tensor use = allowed_.logical_and(floors.gt(0).unsqueeze(-1));
    z_ = at::where(use, floored, masked_);
  }
  log_probs_ = at::log_softmax(z_, -1);
}

at::Tensor MaskedCategorical::Floored(FloorMode mode, const at::Tensor& p,
                                      const at::Tensor& floor) const {
  if (mode == FloorMode::kMixture) return MixtureFloor(p, floor);
  // Which entries are clipped is a constant to the gradient.
  const at::Tensor constant = p.detach();
  return ClippedFloor(p, floor,
                      mode == FloorMode::kExact
                          ? ExactUnder(constant, floor)
                          : allowed_.logical_and(constant.lt(floor)));
}

at::Tensor MaskedCategorical::ClippedScale(const at::Tensor& p,
                                           const at::Tensor& floor,
                                           const at::Tensor& under) const {
  const at::Tensor over = allowed_.logical_and(under.logical_not());
  const at::Tensor need = under.sum(-1, /*keepdim=*/true).mul(floor);
  const at::Tensor rest = need.neg().add_(1).clamp_min_(kTiny);
  const at::Tensor mass =
      p.mul(over).sum(-1, /*keepdim=*/true).clamp_min(kTiny);
  return rest.div(mass);
}

at::Tensor MaskedCategorical::ClippedFloor(const at::Tensor& p,
                                           const at::Tensor& floor,
                                           const at::Tensor& under) const {
  return at::where(under, floor, p.mul(ClippedScale(p, floor, under)))
      .clamp_min(kTiny)
      .log();
}

at::Tensor MaskedCategorical::ExactUnder(const at::Tensor& p,
                                         const at::Tensor& floor) const {
  at::Tensor under = allowed_.logical_and(p.lt(floor));
  // Each pass clips at least one more entry or changes nothing, and one entry
  // is never clipped. The number of passes does not depend on the data.
  for (int64_t pass = 2; pass < p.size(-1); ++pass) {
    const at::Tensor scaled = p.mul(ClippedScale(p, floor, under));
    under = under.logical_or(allowed_.logical_and(scaled.lt(floor)));
  }
  return under;
}

at::Tensor MaskedCategorical::MixtureFloor(const at::Tensor& p,
                                           const at::Tensor& floor) const {
  const at::Tensor n = count_.unsqueeze(-1);
  const at::Tensor mixed = p.mul(n.mul(floor).neg_().add_(1)).add(floor);
  return mixed.clamp_min(kTiny).log();
}

at::Tensor MaskedCategorical::Probs() const { return at::softmax(z_, -1); }

at::Tensor MaskedCategorical::LogProb(const at::Tensor& choices) const {
  return log_probs_.gather(-1, choices.unsqueeze(-1)).squeeze(-1);
}

at::Tensor MaskedCategorical::Entropy() const {
  const at::Tensor h =
      at::where(allowed_, Probs().mul(log_probs_), 0.0f).sum(-1).neg();
  const at::Tensor many = count_.gt(1);
  const at::Tensor most = count_.clamp_min(2).to(at::kFloat).log();
  return at::where(many, h.div(most), 0.0f);
}

at::Tensor MaskedCategorical::ArgMax() const { return z_.argmax(-1); }

at::Tensor MaskedCategorical::Sample(const at::Tensor& noise,
                                     const at::Tensor& deterministic) const {
  const at::Tensor race = Probs().div(noise);
  if (!deterministic.defined()) return race.argmax(-1);
  return at::where(deterministic.view({-1, 1, 1}), z_, race).argmax(-1);
}

}  // namespace esper::policy
