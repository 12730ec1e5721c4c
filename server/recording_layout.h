#ifndef ESPER_SERVER_RECORDING_LAYOUT_H_
#define ESPER_SERVER_RECORDING_LAYOUT_H_

#include <cstdint>

#include "core/policy/policy_spec.h"
#include "esper/v1/tensor.pb.h"

namespace esper::server {

// Where the parts of one step lie in a recording: one after another, without
// padding, in the types that uploads have. D, S, M, K, C as in
// esper.v1.Trajectory; P outputs of the contribution predictor.
//
// Immutable.
struct RecordingLayout {
  explicit RecordingLayout(const policy::PolicySpec& spec);

  // A part of every step; absent if it has no elements.
  struct Column {
    v1::DataType dtype = v1::DATA_TYPE_UNSPECIFIED;
    int64_t count = 0;   // Elements per step.
    int64_t offset = 0;  // Bytes from the beginning of the step.
    int64_t bytes = 0;   // Of all elements.
    // False: one element per step is a list of numbers, not of rows.
    bool rows = true;
  };
  Column observations;      // float32 [D].
  Column categorical;       // int8 [S], or int64 if it has many values.
  Column masks;             // uint8 [M], packed.
  Column actions;           // uint8 [K], or int64 if a head is wide.
  Column continuous;        // float32 [C].
  Column log_probs;         // float32 [K].
  Column value;             // float32.
  Column version;           // int64.
  Column reward;            // float32.
  Column effective_choice;  // As `actions`; absent without a driver head.
  Column forced;            // bool.
  Column targets;           // float32 [P].
  Column targets_measured;  // bool [P].
  int64_t step_bytes = 0;
};

}  // namespace esper::server
#endif  // ESPER_SERVER_RECORDING_LAYOUT_H_
