#ifndef ESPER_CORE_ENV_DATASET_H_
#define ESPER_CORE_ENV_DATASET_H_

#include <ATen/core/Tensor.h>
#include <c10/util/ArrayRef.h>

#include <cstdint>

namespace esper::env {

// Samples as a host takes them.
struct Batch {
  at::Tensor inputs;  // float32 [B, C, H, W], or int64 [B, T] tokens.
  at::Tensor labels;  // int64 [B], or [B, T]; classes.
};

// One split of a task's data: samples by number, 0..size() - 1.
//
// Thread safety: immutable; any thread may read.
class Dataset {
 public:
  virtual ~Dataset() = default;

  virtual int64_t size() const = 0;

  // The samples `rows` (each in range, at least one) in that order.
  virtual Batch Get(c10::IntArrayRef rows) const = 0;

  // The same as training sees them, augmented if the task does that: a
  // function of `key`, the epoch's stream (StreamPurpose::kAugmentation), and
  // of each sample's number, whatever else is in the batch.
  virtual Batch GetForTraining(c10::IntArrayRef rows, uint64_t key) const {
    static_cast<void>(key);
    return Get(rows);
  }
};

}  // namespace esper::env
#endif  // ESPER_CORE_ENV_DATASET_H_
