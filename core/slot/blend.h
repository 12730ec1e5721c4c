#ifndef ESPER_CORE_SLOT_BLEND_H_
#define ESPER_CORE_SLOT_BLEND_H_

#include <ATen/core/Tensor.h>

// How a seed's features join the host's. Pure functions: they keep no state,
// write to no input, read no tensor data on the host and branch on metadata
// only, so they can be traced and captured.
//
// Common to all of them:
//   host:  floating [B, C, H, W] or [B, T, C]; features h of the host.
//   seed:  same shape and device; features s of the seed.
//   alpha: floating, 0-dim or [B, 1, 1, 1] / [B, 1, 1], same device; blend
//          weight a, clamped to [0, 1].
// The result has host's shape and dtype and never aliases an input. Where the
// effective weight is 0 it equals host even if seed is not finite, and seed
// gets a zero gradient there. Errors: ShapeError or InvalidArgumentError
// (core/error.h) for an undefined tensor or another shape, device or dtype
// kind.
namespace esper::slot {

// h + a (s - h). Gradients: host 1 - a, seed a, alpha sum of (s - h).
at::Tensor BlendAdd(const at::Tensor& host, const at::Tensor& seed,
                    const at::Tensor& alpha);

// BlendAdd under the name that the training of isolated seeds uses: the host's
// gradient is 1 - a because seed was computed from a detached input.
at::Tensor BlendWithIsolation(const at::Tensor& host, const at::Tensor& seed,
                              const at::Tensor& alpha);

// 1 + a tanh(modulation), within [1 - a, 1 + a]. modulation: floating, any
// shape that alpha broadcasts to. Where a is 0 it is exactly 1.
at::Tensor MultiplyValveMultiplier(const at::Tensor& alpha,
                                   const at::Tensor& modulation);

// h (1 + a tanh(s - x)), with x = seed_input: the tensor that the seed was
// given, of host's shape. Passing the detached host keeps the host's gradient
// at the multiplier; passing the attached host adds the coupling through x.
// There is no default, since a wrong guess couples host and seed silently.
// Gradient: seed h a sech^2(s - x).
at::Tensor BlendMultiply(const at::Tensor& host, const at::Tensor& seed,
                         const at::Tensor& alpha, const at::Tensor& seed_input);

// clamp(clamp(a) * clamp(g)) to [0, 1].
at::Tensor GateEffectiveAlpha(const at::Tensor& alpha, const at::Tensor& gate);

// BlendAdd at weight GateEffectiveAlpha. gate: floating [B, 1, 1, 1] or
// [B, 1, 1] or 0-dim, in [0, 1]; gradient sum of a (s - h).
at::Tensor BlendGate(const at::Tensor& host, const at::Tensor& seed,
                     const at::Tensor& alpha, const at::Tensor& gate);

// Straight-through estimator: equals host for every seed; the cotangent goes
// to host unchanged, and to seed where seed is finite (0 elsewhere). Keeps
// host's dtype and memory format.
at::Tensor SteForward(const at::Tensor& host, const at::Tensor& seed);

}  // namespace esper::slot
#endif  // ESPER_CORE_SLOT_BLEND_H_
