#ifndef ESPER_TESTS_SERVER_STEP_ROWS_H_
#define ESPER_TESTS_SERVER_STEP_ROWS_H_

#include "client/policy_client.h"
#include "esper/v1/tensor.pb.h"
#include "proto/codec/mask_codec.h"
#include "proto/codec/tensor_codec.h"
#include "tests/server/service_fixture.h"

namespace esper::testing {

// What a client shows the policy for a step of the service tests; the caller
// names the episode.
inline client::StepRow RowOf(const StepInputs& inputs,
                             const codec::MaskCodec& masks) {
  client::StepRow row;
  const float* observation = inputs.observations.const_data_ptr<float>();
  row.input.observation.assign(observation,
                               observation + inputs.observations.numel());
  const int64_t* categorical = inputs.categorical.const_data_ptr<int64_t>();
  row.input.categorical.assign(categorical,
                               categorical + inputs.categorical.numel());
  v1::Tensor packed;
  masks.Encode(inputs.masks, &packed);
  row.input.packed_mask.assign(packed.data().begin(), packed.data().end());
  return row;
}

}  // namespace esper::testing
#endif  // ESPER_TESTS_SERVER_STEP_ROWS_H_
