#include "core/slot/shapley.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "core/error.h"

namespace esper::slot {
namespace {

absl::Status Refuse(const std::string& field, const std::string& message) {
  ErrorDetail detail;
  detail.reason = "BAD_COUNTERFACTUAL";
  detail.field = field;
  return MakeStatus(absl::StatusCode::kInvalidArgument, detail, message);
}

// Uniform in [0, bound). The standard distributions differ between libraries.
uint64_t Uniform(std::mt19937_64& random, uint64_t bound) {
  const uint64_t limit = UINT64_MAX - UINT64_MAX % bound;
  uint64_t x = random();
  while (x >= limit) x = random();
  return x % bound;
}

// A uniform ring, written from player 0 on in the direction in which its
// smaller neighbour comes first.
ShapleySample::Ring DrawRing(std::mt19937_64& random, int players) {
  ShapleySample::Ring ring(players);
  std::iota(ring.begin(), ring.end(), 0);
  for (int i = players - 1; i > 1; --i) {
    std::swap(ring[i], ring[1 + Uniform(random, i)]);
  }
  if (ring[1] > ring.back()) std::reverse(ring.begin() + 1, ring.end());
  return ring;
}

// The mean over the ring's 2n orders of what each player adds.
std::vector<double> ValuesOfRing(const ShapleySample::Ring& ring,
                                 const std::function<double(uint64_t)>& worth) {
  const int n = static_cast<int>(ring.size());
  std::vector<double> values(n, 0.0);
  for (int start = 0; start < n; ++start) {
    for (const int step : {1, n - 1}) {
      uint64_t coalition = 0;
      double before = worth(0);
      for (int i = 0; i < n; ++i) {
        const int player = ring[(start + i * step) % n];
        coalition |= uint64_t{1} << player;
        const double after = worth(coalition);
        values[player] += (after - before) / (2 * n);
        before = after;
      }
    }
  }
  return values;
}

}  // namespace

absl::StatusOr<std::vector<double>> ShapleyValues(
    const std::vector<double>& lattice) {
  const size_t size = lattice.size();
  if (size == 0 || (size & (size - 1)) != 0) {
    return Refuse("lattice",
                  absl::StrCat("A game has 2^n coalitions, not ", size, "."));
  }
  for (size_t mask = 0; mask < size; ++mask) {
    if (!std::isfinite(lattice[mask])) {
      return Refuse("lattice", absl::StrCat("The worth of coalition ", mask,
                                            " is not finite."));
    }
  }
  int n = 0;
  while (size_t{1} << n < size) ++n;
  // weight[s] = s! (n - 1 - s)! / n!: the share of orders of the players in
  // which exactly a given set of s comes before a given player.
  std::vector<double> weight(n);
  for (int s = 0; s < n; ++s) {
    weight[s] = s == 0 ? 1.0 / n : weight[s - 1] * s / (n - s);
  }
  std::vector<double> values(n, 0.0);
  for (size_t mask = 0; mask < size; ++mask) {
    const int members = __builtin_popcountll(mask);
    for (int i = 0; i < n; ++i) {
      if (mask >> i & 1) continue;
      values[i] +=
          weight[members] * (lattice[mask | size_t{1} << i] - lattice[mask]);
    }
  }
  return values;
}

absl::StatusOr<ShapleySample> ShapleySample::Draw(int players, int cycles,
                                                  uint64_t seed) {
  if (players < 3 || players > 63) {
    return Refuse("players", absl::StrCat("Orders are drawn of 3 to 63 ",
                                          "players, not of ", players, "."));
  }
  if (cycles < 0 || cycles > 1000) {
    return Refuse("cycles",
                  absl::StrCat("Cycles are ", cycles, ", outside [0, 1000]."));
  }
  ShapleySample sample;
  sample.population_ = 0.5 * std::tgamma(players);  // (n - 1)! / 2
  const size_t count = static_cast<size_t>(
      std::min(static_cast<double>(cycles), sample.population_));
  std::mt19937_64 random(seed);
  std::set<Ring> drawn;
  while (sample.rings_.size() < count) {
    Ring ring = DrawRing(random, players);
    if (drawn.insert(ring).second) sample.rings_.push_back(std::move(ring));
  }
  return sample;
}

int64_t ShapleySample::orders() const {
  int64_t orders = 0;
  for (const Ring& ring : rings_) orders += 2 * ring.size();
  return orders;
}

std::vector<uint64_t> ShapleySample::Coalitions(int ring) const {
  const Ring& players = rings_[ring];
  const size_t n = players.size();
  std::vector<uint64_t> coalitions = {0};
  for (size_t length = 1; length < n; ++length) {
    for (size_t start = 0; start < n; ++start) {
      uint64_t coalition = 0;
      for (size_t i = 0; i < length; ++i) {
        coalition |= uint64_t{1} << players[(start + i) % n];
      }
      coalitions.push_back(coalition);
    }
  }
  coalitions.push_back((uint64_t{1} << n) - 1);
  return coalitions;
}

ShapleySample ShapleySample::First(int count) const {
  ShapleySample sample = *this;
  if (static_cast<size_t>(count) < rings_.size()) sample.rings_.resize(count);
  return sample;
}

std::vector<ShapleyEstimate> ShapleySample::Estimate(
    const std::function<double(uint64_t coalition)>& worth) const {
  if (rings_.empty()) return {};
  std::vector<std::vector<double>> values;
  for (const Ring& ring : rings_) values.push_back(ValuesOfRing(ring, worth));
  const double count = static_cast<double>(rings_.size());
  std::vector<ShapleyEstimate> estimates(rings_[0].size());
  for (size_t i = 0; i < estimates.size(); ++i) {
    double sum = 0;
    for (const auto& ring : values) sum += ring[i];
    const double mean = sum / count;
    estimates[i].value = mean;
    if (count >= population_) {
      estimates[i].standard_error = 0.0;
    } else if (count > 1) {
      double squares = 0;
      for (const auto& ring : values) {
        squares += (ring[i] - mean) * (ring[i] - mean);
      }
      estimates[i].standard_error =
          std::sqrt(squares / (count - 1) / count * (1 - count / population_));
    }
  }
  return estimates;
}

}  // namespace esper::slot
