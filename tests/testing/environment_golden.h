#ifndef ESPER_TESTS_TESTING_ENVIRONMENT_GOLDEN_H_
#define ESPER_TESTS_TESTING_ENVIRONMENT_GOLDEN_H_

#include "tests/testing/golden_report.h"
#include "tests/testing/golden_tensors.h"

// Checks of the policy's reference files that need no network: features, masks
// and tracker. Slot counts, rows and steps come from the file. One case per
// row (tracker: per sequence). A tensor that is missing throws
// std::out_of_range.
namespace esper::testing {

// "features.safetensors".
void CheckFeatures(const GoldenTensors& file, GoldenReport* report);

// "masks.safetensors"; the wire packing is checked on the same rows.
void CheckMasks(const GoldenTensors& file, GoldenReport* report);

// "tracker.safetensors".
void CheckTracker(const GoldenTensors& file, GoldenReport* report);

}  // namespace esper::testing
#endif  // ESPER_TESTS_TESTING_ENVIRONMENT_GOLDEN_H_
