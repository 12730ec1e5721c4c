#include "proto/config/minibatches.h"

#include <algorithm>
#include <numeric>

#include "proto/config/split_mix.h"

namespace esper::config {

std::vector<std::vector<int>> SplitRows(int rows, int parts,
                                        const PassKey& key) {
  parts = std::clamp(parts, 1, std::max(rows, 1));
  const uint64_t stream =
      SplitMix64(SplitMix64(key.seed, key.update), key.pass);
  std::vector<int> order(rows);
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(), [stream](int a, int b) {
    return SplitMix64(stream, a) < SplitMix64(stream, b);
  });
  std::vector<std::vector<int>> split(parts);
  for (int i = 0; i < parts; ++i) {
    const auto begin = order.begin() + int64_t{rows} * i / parts;
    const auto end = order.begin() + int64_t{rows} * (i + 1) / parts;
    split[i].assign(begin, end);
    std::sort(split[i].begin(), split[i].end());
  }
  return split;
}

}  // namespace esper::config
