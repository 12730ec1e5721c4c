#ifndef ESPER_CORE_HOST_CNN_BLUEPRINTS_H_
#define ESPER_CORE_HOST_CNN_BLUEPRINTS_H_

#include <cstdint>
#include <vector>

#include "core/slot/blueprint.h"

namespace esper::host {

// The seeds for convolutional hosts, features [B, C, H, W] to the same shape:
// noop, norm, attention, conv_small, bottleneck, depthwise, conv_light,
// conv_heavy. Convolutions are without bias, 3x3 ones padded by 1.
//
// With the `kLive` profile every parameter tensor gets a gradient on the first
// backward pass, and seeds that promise the identity at birth are near it: the
// scale of their last group norm starts at 1e-3 instead of a zero convolution
// in front of it. `kUpstream` has the reference's zero convolutions.
std::vector<slot::Blueprint> CnnBlueprints();

// The registry of all blueprints of this library. Built once; immutable.
const slot::BlueprintRegistry& DefaultBlueprints();

// Groups of a group norm over C channels: the first of 32, 16, 8, 4, 2, 1 that
// divides C into groups of at least 16. Below 16 channels none does: then one
// group (kLive), or the first that divides C (kUpstream).
int64_t GroupNormGroups(int64_t channels, slot::InitProfile profile);

}  // namespace esper::host
#endif  // ESPER_CORE_HOST_CNN_BLUEPRINTS_H_
