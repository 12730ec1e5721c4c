#ifndef ESPER_CORE_HOST_TRANSFORMER_BLUEPRINTS_H_
#define ESPER_CORE_HOST_TRANSFORMER_BLUEPRINTS_H_

#include <vector>

#include "core/slot/blueprint.h"

namespace esper::host {

// The seeds for transformer hosts, features [B, T, d] to the same shape: noop,
// norm, lora, lora_large, attention, flex_attention, mlp_small, mlp.
//
// All of them are exactly the identity at birth, in both init profiles and
// under every blend: the last linear layer (norm: its scale) is zero, and no
// normalisation stands behind it. That layer gets a gradient on the first
// backward pass, those in front of it from the second on.
//
// Options: attention and flex_attention have n_head, by default 4, which must
// divide d. The two share one implementation, so that equal weights give equal
// results; both names stay because a policy chooses between them. mlp_small
// and mlp have checkpoint, 0 (default) or 1: in training, if the input requires
// a gradient, backward computes the wide activations anew instead of keeping
// them.
std::vector<slot::Blueprint> TransformerBlueprints();

}  // namespace esper::host
#endif  // ESPER_CORE_HOST_TRANSFORMER_BLUEPRINTS_H_
