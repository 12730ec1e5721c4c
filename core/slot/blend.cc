#include "core/slot/blend.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/bitwise_and.h>
#include <ATen/ops/clamp.h>
#include <ATen/ops/eq.h>
#include <ATen/ops/lerp.h>
#include <ATen/ops/ne.h>
#include <ATen/ops/tanh.h>
#include <ATen/ops/where.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/error.h"

namespace esper::slot {
namespace {

std::string Describe(const at::Tensor& tensor) {
  if (!tensor.defined()) return "an undefined tensor";
  return absl::StrCat(c10::toString(tensor.scalar_type()), " [",
                      absl::StrJoin(tensor.sizes(), ", "), "] on ",
                      tensor.device().str());
}

[[noreturn]] void Refuse(const char* name, const std::string& expected,
                         const at::Tensor& actual) {
  throw ShapeError(name, expected, Describe(actual));
}

void CheckFloating(const char* name, const at::Tensor& tensor) {
  if (!tensor.defined() || !tensor.is_floating_point()) {
    Refuse(name, "a floating-point tensor", tensor);
  }
}

void CheckLike(const char* name, const at::Tensor& tensor,
               const at::Tensor& host) {
  CheckFloating(name, tensor);
  if (tensor.sizes() != host.sizes() || tensor.device() != host.device()) {
    Refuse(name, absl::StrCat("shaped and placed as ", Describe(host)), tensor);
  }
}

// 0-dim, or one number per sample: [B, 1, 1(, 1)].
void CheckWeight(const char* name, const at::Tensor& weight,
                 const at::Tensor& host) {
  CheckFloating(name, weight);
  bool fits = weight.dim() == 0 || weight.dim() == host.dim();
  for (int64_t d = 0; fits && d < weight.dim(); ++d) {
    fits = weight.size(d) == 1 || (d == 0 && weight.size(0) == host.size(0));
  }
  if (!fits || weight.device() != host.device()) {
    Refuse(name,
           absl::StrCat("one number, or one per sample of ", Describe(host)),
           weight);
  }
}

at::Tensor Cast(const at::Tensor& tensor, at::ScalarType dtype) {
  return tensor.scalar_type() == dtype ? tensor : tensor.to(dtype);
}

at::Tensor Clamp01(const at::Tensor& tensor) {
  return at::clamp(tensor, 0.0, 1.0);
}

bool NeedsGradient(const at::Tensor& tensor) {
  return at::GradMode::is_enabled() && tensor.requires_grad();
}

// 0 x is NaN exactly where x is not finite.
at::Tensor NotFinite(const at::Tensor& tensor) {
  const at::Tensor zero = tensor.mul(0);
  return at::ne(zero, zero);
}

// lerp(host, seed, weight), but host itself where the weight is 0. All of
// host's dtype.
at::Tensor SelectingLerp(const at::Tensor& host, const at::Tensor& seed,
                         const at::Tensor& weight) {
  const at::Tensor off = at::eq(weight, 0);
  if (!NeedsGradient(weight)) {
    // Neither gradient multiplies by seed or host, so a discarded infinity
    // cannot come back.
    return at::where(off, host, at::lerp(host, seed, weight));
  }
  // The weight's gradient is (seed - host): replace only what would spoil it,
  // so that it stays right for finite features at weight 0.
  const at::Tensor spoilt =
      at::bitwise_and(off, NotFinite(seed.detach().sub(host.detach())));
  return at::where(
      spoilt, host,
      at::lerp(at::where(spoilt, 0, host), at::where(spoilt, 0, seed), weight));
}

at::Tensor Multiplier(const at::Tensor& alpha, const at::Tensor& modulation) {
  at::Tensor unused = at::eq(alpha, 0);
  if (NeedsGradient(alpha)) {
    unused = at::bitwise_and(unused, NotFinite(modulation.detach()));
  }
  return alpha.mul(at::tanh(at::where(unused, 0, modulation))).add(1);
}

}  // namespace

at::Tensor BlendAdd(const at::Tensor& host, const at::Tensor& seed,
                    const at::Tensor& alpha) {
  CheckFloating("host", host);
  CheckLike("seed", seed, host);
  CheckWeight("alpha", alpha, host);
  const at::ScalarType dtype = host.scalar_type();
  return SelectingLerp(host, Cast(seed, dtype), Clamp01(Cast(alpha, dtype)));
}

at::Tensor BlendWithIsolation(const at::Tensor& host, const at::Tensor& seed,
                              const at::Tensor& alpha) {
  return BlendAdd(host, seed, alpha);
}

at::Tensor MultiplyValveMultiplier(const at::Tensor& alpha,
                                   const at::Tensor& modulation) {
  CheckFloating("modulation", modulation);
  CheckWeight("alpha", alpha, modulation);
  return Multiplier(Clamp01(Cast(alpha, modulation.scalar_type())), modulation);
}

at::Tensor BlendMultiply(const at::Tensor& host, const at::Tensor& seed,
                         const at::Tensor& alpha,
                         const at::Tensor& seed_input) {
  CheckFloating("host", host);
  CheckLike("seed", seed, host);
  CheckWeight("alpha", alpha, host);
  CheckLike("seed_input", seed_input, host);
  const at::ScalarType dtype = host.scalar_type();
  return host.mul(Multiplier(Clamp01(Cast(alpha, dtype)),
                             Cast(seed, dtype).sub(Cast(seed_input, dtype))));
}

at::Tensor GateEffectiveAlpha(const at::Tensor& alpha, const at::Tensor& gate) {
  CheckFloating("alpha", alpha);
  CheckFloating("gate", gate);
  return Clamp01(Clamp01(alpha).mul(Clamp01(gate)));
}

at::Tensor BlendGate(const at::Tensor& host, const at::Tensor& seed,
                     const at::Tensor& alpha, const at::Tensor& gate) {
  CheckFloating("host", host);
  CheckLike("seed", seed, host);
  CheckWeight("alpha", alpha, host);
  CheckWeight("gate", gate, host);
  const at::ScalarType dtype = host.scalar_type();
  return SelectingLerp(host, Cast(seed, dtype),
                       Cast(GateEffectiveAlpha(alpha, gate), dtype));
}

at::Tensor SteForward(const at::Tensor& host, const at::Tensor& seed) {
  CheckFloating("host", host);
  CheckLike("seed", seed, host);
  const at::Tensor s = Cast(seed, host.scalar_type());
  // Zero with the seed's gradient attached, or NaN where the seed is not
  // finite, and there the seed has nothing to say.
  const at::Tensor none = s.sub(s.detach());
  return host.add(at::where(at::ne(none, none), 0, none));
}

}  // namespace esper::slot
