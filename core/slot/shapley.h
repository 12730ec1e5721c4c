#ifndef ESPER_CORE_SLOT_SHAPLEY_H_
#define ESPER_CORE_SLOT_SHAPLEY_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"

// How the worth of a coalition is shared among its members (L. S. Shapley,
// 1953): a player's value is what it adds to those before it, averaged over all
// orders of the players. Coalitions are bit masks, players are numbered from 0.
namespace esper::slot {

// Exact values of a game of n players. `lattice[mask]` is the worth of the
// coalition whose members are the bits of `mask`; its size is 2^n. They sum
// to lattice.back() - lattice.front().
// INVALID_ARGUMENT if the size is no power of two or a worth is not finite.
absl::StatusOr<std::vector<double>> ShapleyValues(
    const std::vector<double>& lattice);

// A value from some of the orders.
struct ShapleyEstimate {
  double value = 0;
  // Of the draw of orders alone; what is uncertain about the worths themselves
  // is not in it. 0 if all orders were drawn, absent for a single cycle.
  std::optional<double> standard_error;
};

// Random orders of the players, for games with too many coalitions to measure.
//
// One cycle puts the players in a ring and takes the 2n orders that start at
// any of them and go either way round. So every player comes in every place
// equally often (stratified by place), every order comes with its reverse
// (antithetic), and all 2n orders together need only the arcs of the ring:
// n (n - 1) + 2 coalitions, each player alone, all but one, none and all among
// them. Rings are drawn uniformly without replacement from the (n - 1)! / 2
// that differ, so estimates are unbiased; each order's terms telescope, so they
// sum to worth(all) - worth(none) as exact values do.
//
// An immutable value: the same arguments give the same rings on any machine.
class ShapleySample {
 public:
  using Ring = std::vector<int>;

  ShapleySample() = default;  // No rings, no estimate.

  // At most `cycles` rings, fewer if fewer differ. INVALID_ARGUMENT unless
  // 3 <= players <= 63 and 0 <= cycles <= 1000.
  static absl::StatusOr<ShapleySample> Draw(int players, int cycles,
                                            uint64_t seed);

  const std::vector<Ring>& rings() const { return rings_; }
  int64_t orders() const;  // 2n for each ring.

  // Coalitions of a ring's arcs, each once.
  std::vector<uint64_t> Coalitions(int ring) const;

  // The same without the rings from `count` on.
  ShapleySample First(int count) const;

  // One estimate for each player: the mean over rings, with its standard error
  // from their spread (simple random sampling without replacement: s / sqrt(B)
  // times sqrt(1 - B / N) for B of N rings). Empty without rings. `worth` is
  // asked for coalitions of the rings alone and must know them.
  std::vector<ShapleyEstimate> Estimate(
      const std::function<double(uint64_t coalition)>& worth) const;

 private:
  std::vector<Ring> rings_;
  double population_ = 0;  // Rings that differ.
};

}  // namespace esper::slot
#endif  // ESPER_CORE_SLOT_SHAPLEY_H_
