#include "server/recording_layout.h"

#include "proto/codec/mask_codec.h"
#include "server/policy_heads.h"

namespace esper::server {
namespace {

constexpr int64_t kWide = sizeof(int64_t);

}  // namespace

RecordingLayout::RecordingLayout(const policy::PolicySpec& spec) {
  const auto add = [this](Column* column, v1::DataType dtype,
                          int64_t element_bytes, int64_t count,
                          bool rows = true) {
    *column = {dtype, count, step_bytes, count * element_bytes, rows};
    step_bytes += column->bytes;
  };
  const bool wide_category =
      spec.categorical.has_value() && spec.categorical->cardinality > 128;
  const bool wide_head = HasWideHead(spec);
  const v1::DataType choice =
      wide_head ? v1::DATA_TYPE_INT64 : v1::DATA_TYPE_UINT8;
  const int64_t choice_bytes = wide_head ? kWide : 1;
  const bool driven = DriverHead(spec) >= 0;
  add(&observations, v1::DATA_TYPE_FLOAT32, sizeof(float),
      spec.observation_width());
  add(&categorical, wide_category ? v1::DATA_TYPE_INT64 : v1::DATA_TYPE_INT8,
      wide_category ? kWide : 1, spec.categorical_count());
  add(&masks, v1::DATA_TYPE_UINT8, 1, codec::MaskCodec(spec).row_bytes());
  add(&actions, choice, choice_bytes, spec.num_heads());
  add(&continuous, v1::DATA_TYPE_FLOAT32, sizeof(float),
      spec.continuous_width());
  add(&log_probs, v1::DATA_TYPE_FLOAT32, sizeof(float), spec.num_heads());
  add(&value, v1::DATA_TYPE_FLOAT32, sizeof(float), 1, /*rows=*/false);
  add(&version, v1::DATA_TYPE_INT64, kWide, 1, /*rows=*/false);
  add(&reward, v1::DATA_TYPE_FLOAT32, sizeof(float), 1, /*rows=*/false);
  add(&effective_choice, choice, choice_bytes, driven ? 1 : 0, /*rows=*/false);
  add(&forced, v1::DATA_TYPE_BOOL, 1, 1, /*rows=*/false);
  add(&targets, v1::DATA_TYPE_FLOAT32, sizeof(float),
      spec.contribution_outputs);
  add(&targets_measured, v1::DATA_TYPE_BOOL, 1, spec.contribution_outputs);
}

}  // namespace esper::server
