#ifndef ESPER_TESTS_CORE_POLICY_NAIVE_POLICY_H_
#define ESPER_TESTS_CORE_POLICY_NAIVE_POLICY_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "ATen/ops/zeros.h"
#include "core/policy/head_layout.h"
#include "core/policy/policy_spec.h"

// The rules of masks and distributions in plain C++, row by row and as they are
// told, for comparison; and random rows to compare on.
namespace esper::policy {

using Mask = std::vector<bool>;

// The mask in force of one head of one row, by the rules as they are told.
inline Mask NaiveMask(const PolicySpec& spec, int64_t k, const Mask& base,
                      const std::vector<int64_t>& actions,
                      const std::vector<Mask>& conditional) {
  const HeadSpec& head = spec.heads[k];
  const int64_t driver = spec.DriverOf(k);
  Mask mask = base;
  if (driver < 0) return mask;
  const int64_t choice = actions[driver];
  if (head.conditional_mask && !conditional.empty()) mask = conditional[choice];
  for (const int64_t relevant : head.relevant_when) {
    if (relevant == choice) return mask;
  }
  int64_t held = 0;
  if (head.placeholder.has_value()) {
    held = *head.placeholder;
  } else {
    for (int64_t j = head.size - 1; j >= 0; --j) {
      if (mask[j]) held = j;
    }
  }
  Mask single(head.size, false);
  single[held] = true;
  return single;
}

struct RandomRows {
  at::Tensor masks, conditional, actions;
};

inline RandomRows MakeRows(const PolicySpec& spec, const HeadLayout& layout,
                           int rows, std::mt19937& random) {
  RandomRows result;
  result.masks = at::zeros({rows, layout.width()}, at::kBool);
  bool* mask = result.masks.mutable_data_ptr<bool>();
  // Sparse, dense and empty rows.
  for (int64_t i = 0; i < result.masks.numel(); ++i) {
    mask[i] = static_cast<int64_t>(random() % 4) < i / layout.width() % 5;
  }
  result.actions = at::zeros({rows, layout.num_heads()}, at::kLong);
  int64_t* action = result.actions.mutable_data_ptr<int64_t>();
  for (int64_t i = 0; i < result.actions.numel(); ++i) {
    action[i] = random() % layout.size(i % layout.num_heads());
  }
  const int64_t k = layout.conditional_head();
  if (k >= 0) {
    result.conditional = at::zeros(
        {rows, layout.size(layout.driver(k)), layout.size(k)}, at::kBool);
    bool* cell = result.conditional.mutable_data_ptr<bool>();
    for (int64_t i = 0; i < result.conditional.numel(); ++i) {
      cell[i] = random() % 3 == 0;
    }
  }
  return result;
}

// A masked, floored distribution in double: one row of one head.
struct Naive {
  std::vector<double> p, log_p;
  double entropy = 0;
};

inline Naive NaiveDistribution(const std::vector<double>& logits,
                               const Mask& allowed, FloorMode mode,
                               double floor) {
  const size_t size = logits.size();
  double n = 0;
  double largest = -1e300;
  for (size_t j = 0; j < size; ++j) {
    n += allowed[j];
    if (allowed[j]) largest = std::max(largest, logits[j]);
  }
  Naive out;
  out.p.assign(size, 0);
  out.log_p.assign(size, 0);
  double total = 0;
  for (size_t j = 0; j < size; ++j) {
    if (allowed[j]) out.p[j] = std::exp(logits[j] - largest);
    total += out.p[j];
  }
  for (double& p : out.p) p /= total;
  const double f = std::min(floor, 0.99 / n);
  if (mode == FloorMode::kMixture && floor > 0) {
    for (size_t j = 0; j < size; ++j) {
      if (allowed[j]) out.p[j] = (1 - n * f) * out.p[j] + f;
    }
  } else if (floor > 0 && mode != FloorMode::kNone) {
    // Clips what lies below the floor and scales the rest: once, or until
    // nothing lies below it.
    Mask clipped(size, false);
    double scale = 1;
    for (bool again = true; again;) {
      again = false;
      double need = 0;
      double mass = 0;
      Mask next = clipped;
      for (size_t j = 0; j < size; ++j) {
        if (!allowed[j]) continue;
        if (!clipped[j] && out.p[j] * scale < f) {
          next[j] = true;
          again = mode == FloorMode::kExact;
        }
        next[j] ? need += f : mass += out.p[j];
      }
      clipped = next;
      scale = std::max(1 - need, 1e-8) / std::max(mass, 1e-8);
    }
    double sum = 0;
    for (size_t j = 0; j < size; ++j) {
      if (!allowed[j]) continue;
      out.p[j] = clipped[j] ? f : out.p[j] * scale;
      sum += out.p[j];
    }
    for (double& p : out.p) p /= sum;
  }
  for (size_t j = 0; j < size; ++j) {
    if (!allowed[j]) continue;
    out.log_p[j] = std::log(out.p[j]);
    out.entropy -= out.p[j] * out.log_p[j];
  }
  out.entropy = n > 1 ? out.entropy / std::log(n) : 0;
  return out;
}

}  // namespace esper::policy
#endif  // ESPER_TESTS_CORE_POLICY_NAIVE_POLICY_H_
