#ifndef ESPER_CORE_POLICY_HEAD_LAYOUT_H_
#define ESPER_CORE_POLICY_HEAD_LAYOUT_H_

#include <cstdint>
#include <vector>

#include "ATen/core/Tensor.h"
#include "core/policy/policy_spec.h"

namespace esper::policy {

// Categorical heads that can be sampled together, because the drivers of all of
// them are already chosen, as one padded block [N, heads, width].
struct HeadLevel {
  std::vector<int64_t> heads;  // Storage order.
  int64_t width = 0;           // Largest size among them.
  // int64 [heads * width]: packed column of each cell; 0 for padding.
  at::Tensor columns;
  // bool [heads, width]: true where a cell is a choice, false where it pads;
  // undefined if no cell pads.
  at::Tensor cells;
  // float32 [heads, width]: the logit of a cell that is not allowed.
  at::Tensor fill;
  // int64 [heads]: `heads` as a tensor.
  at::Tensor head_index;
};

// Where each categorical head lies on the packed axis of A = sum of their
// sizes, and each Gaussian head on the axis of C = sum of theirs, both in
// storage order, and the rules between heads as constant tables over A:
//
//   effective = (mask & keep[driver choice]) | force[driver choice]
//
// keep is false over an irrelevant head, force true at its fixed placeholder. A
// head whose placeholder is "first allowed" is reduced to the first entry of
// its mask instead (to entry 0 if there is none).
//
// Immutable; safe from any thread. Tensors are host constants without gradient.
class HeadLayout {
 public:
  // `spec` must be valid.
  explicit HeadLayout(const PolicySpec& spec);

  int64_t num_heads() const { return static_cast<int64_t>(sizes_.size()); }
  int64_t width() const { return width_; }  // A.
  // Entries on the packed axis: the choices; 0 for a Gaussian head.
  int64_t size(int64_t head) const { return sizes_[head]; }
  int64_t offset(int64_t head) const { return offsets_[head]; }
  int64_t driver(int64_t head) const { return drivers_[head]; }  // -1: none.
  int64_t conditional_head() const { return conditional_head_; }
  // -1: first allowed.
  int64_t placeholder(int64_t head) const { return placeholders_[head]; }

  // Storage positions of the Gaussian heads, which no level holds.
  const std::vector<int64_t>& gaussian_heads() const { return gaussian_; }
  bool is_gaussian(int64_t head) const { return dimensions_[head] > 0; }
  int64_t continuous_width() const { return continuous_width_; }  // C.
  // Real numbers of a Gaussian head; 0 for a categorical one.
  int64_t dimensions(int64_t head) const { return dimensions_[head]; }
  // Where they begin on the axis of C.
  int64_t continuous_offset(int64_t head) const {
    return continuous_offsets_[head];
  }

  // Storage positions in sampling order.
  const std::vector<int64_t>& sampling_order() const { return order_; }
  // In sampling order: the drivers of a level lie in earlier levels. Empty
  // without categorical heads.
  const std::vector<HeadLevel>& levels() const { return levels_; }

  // Whether `head` matters under this choice of its driver; true without one.
  bool Relevant(int64_t head, int64_t driver_choice) const;

  // x: [N, A] -> [N, heads of the level, width of the level]. Padding cells
  // repeat column 0. Differentiable.
  at::Tensor ToBlock(const HeadLevel& level, const at::Tensor& x) const;
  // Masks bool [N, A] -> bool [N, heads of the level, width of the level],
  // false in padding.
  at::Tensor MaskBlock(const HeadLevel& level, const at::Tensor& masks) const;
  // One tensor [N, heads of the level] per level, then, if there are Gaussian
  // heads, one of them all -> [N, K] in storage order. Differentiable.
  at::Tensor Gather(const std::vector<at::Tensor>& per_level) const;
  // Floors per level, float32 [heads of the level]; undefined where none is
  // above 0. INVALID_ARGUMENT (BAD_FLOOR) thrown for a wrong number of floors,
  // one outside [0, 1), or one above 0 for a Gaussian head.
  std::vector<at::Tensor> FloorTensors(const FloorSettings& settings) const;

  // The masks in force, bool [N, A], given the choices of all drivers.
  //   masks:       bool [N, A]; undefined: all true.
  //   conditional: bool [N, driver size, size] of the conditional head; its row
  //                of the driver's choice replaces that head's mask; undefined:
  //                the mask stays.
  //   actions:     int64 [N, K]; only the columns of drivers are read, and must
  //                be in range.
  // Inputs are neither changed nor returned.
  at::Tensor EffectiveMasks(const at::Tensor& masks,
                            const at::Tensor& conditional,
                            const at::Tensor& actions) const;

  // Which heads matter: bool [N, K] from actions int64 [N, K].
  at::Tensor Relevance(const at::Tensor& actions) const;
  // Which heads some allowed driver choice would use: bool [N, K] from base
  // masks bool [N, A].
  at::Tensor Availability(const at::Tensor& masks) const;

 private:
  struct DriverTables {
    int64_t head = 0;
    at::Tensor keep;      // bool [driver size, A].
    at::Tensor force;     // bool [driver size, A].
    at::Tensor relevant;  // bool [driver size, K].
    at::Tensor driven;    // bool [K]: heads of this driver.
  };

  void BuildLevels();
  void BuildTables();

  int64_t width_ = 0;
  int64_t conditional_head_ = -1;
  std::vector<int64_t> sizes_, offsets_, drivers_, placeholders_, order_;
  int64_t continuous_width_ = 0;
  std::vector<int64_t> dimensions_, continuous_offsets_, gaussian_;
  // Heads with a driver whose placeholder is the first allowed entry.
  std::vector<int64_t> first_allowed_heads_;
  std::vector<std::vector<bool>> relevant_;  // [head][driver choice].
  std::vector<HeadLevel> levels_;
  // int64 [K]: position of each head in the levels one after another, then the
  // Gaussian heads; undefined if that is the storage order.
  at::Tensor from_levels_;
  std::vector<DriverTables> tables_;
};

}  // namespace esper::policy
#endif  // ESPER_CORE_POLICY_HEAD_LAYOUT_H_
