#include "core/policy/head_layout.h"

#include <algorithm>

#include "ATen/ops/cat.h"
#include "ATen/ops/full.h"
#include "ATen/ops/ones.h"
#include "ATen/ops/tensor.h"
#include "ATen/ops/where.h"
#include "ATen/ops/zeros.h"
#include "absl/strings/str_cat.h"
#include "core/error.h"
#include "core/policy/masked_categorical.h"

namespace esper::policy {
namespace {

// Entry 0 of a row of `size`, bool [1, size].
at::Tensor FirstEntry(int64_t size) {
  at::Tensor entry = at::zeros({1, size}, at::kBool);
  entry.mutable_data_ptr<bool>()[0] = true;
  return entry;
}

// The first true entry of each row, or entry 0 if there is none.
at::Tensor FirstAllowed(const at::Tensor& mask) {
  const at::Tensor first = mask.logical_and(mask.cumsum(1).eq(1));
  const at::Tensor none = mask.any(1, /*keepdim=*/true).logical_not();
  return first.logical_or(none.logical_and(FirstEntry(mask.size(1))));
}

}  // namespace

HeadLayout::HeadLayout(const PolicySpec& spec) {
  for (int64_t k = 0; k < spec.num_heads(); ++k) {
    const HeadSpec& head = spec.heads[k];
    const bool gaussian = head.kind == HeadKind::kGaussian;
    sizes_.push_back(gaussian ? 0 : head.size);
    offsets_.push_back(width_);
    width_ += sizes_.back();
    dimensions_.push_back(gaussian ? head.size : 0);
    continuous_offsets_.push_back(continuous_width_);
    continuous_width_ += dimensions_.back();
    if (gaussian) gaussian_.push_back(k);
    drivers_.push_back(spec.DriverOf(k));
    placeholders_.push_back(head.placeholder.value_or(-1));
    relevant_.emplace_back();
    if (drivers_.back() < 0) continue;
    relevant_.back().assign(spec.heads[drivers_.back()].size, false);
    for (const int64_t choice : head.relevant_when) {
      relevant_.back()[choice] = true;
    }
    if (!gaussian && !head.placeholder.has_value()) {
      first_allowed_heads_.push_back(k);
    }
  }
  for (const std::string& name : spec.sampling_order) {
    order_.push_back(spec.HeadIndex(name));
  }
  conditional_head_ = spec.ConditionalHead();
  BuildLevels();
  BuildTables();
}

void HeadLayout::BuildLevels() {
  std::vector<int64_t> depth(num_heads(), 0);
  int64_t levels = 0;
  for (const int64_t k : order_) {  // Drivers come first.
    if (is_gaussian(k)) continue;
    if (drivers_[k] >= 0) depth[k] = depth[drivers_[k]] + 1;
    levels = std::max(levels, depth[k] + 1);
  }
  levels_.resize(levels);
  for (int64_t k = 0; k < num_heads(); ++k) {
    if (is_gaussian(k)) continue;
    HeadLevel& level = levels_[depth[k]];
    level.heads.push_back(k);
    level.width = std::max(level.width, sizes_[k]);
  }
  std::vector<int64_t> position(num_heads());
  int64_t next = 0;
  bool in_order = true;
  for (HeadLevel& level : levels_) {
    const int64_t heads = static_cast<int64_t>(level.heads.size());
    level.columns = at::zeros({heads * level.width}, at::kLong);
    level.fill = at::full({heads, level.width}, kPaddingLogit, at::kFloat);
    at::Tensor cells = at::zeros({heads, level.width}, at::kBool);
    bool pads = false;
    for (int64_t i = 0; i < heads; ++i) {
      const int64_t k = level.heads[i];
      for (int64_t j = 0; j < sizes_[k]; ++j) {
        const int64_t cell = i * level.width + j;
        level.columns.mutable_data_ptr<int64_t>()[cell] = offsets_[k] + j;
        level.fill.mutable_data_ptr<float>()[cell] =
            static_cast<float>(kMaskedLogit);
        cells.mutable_data_ptr<bool>()[cell] = true;
      }
      pads = pads || sizes_[k] < level.width;
      in_order = in_order && k == next;
      position[k] = next++;
    }
    if (pads) level.cells = cells;
    level.head_index = at::tensor(level.heads, at::kLong);
  }
  for (const int64_t k : gaussian_) {
    in_order = in_order && k == next;
    position[k] = next++;
  }
  if (!in_order) from_levels_ = at::tensor(position, at::kLong);
}

void HeadLayout::BuildTables() {
  for (int64_t driver = 0; driver < num_heads(); ++driver) {
    if (std::count(drivers_.begin(), drivers_.end(), driver) == 0) continue;
    DriverTables tables;
    tables.head = driver;
    const int64_t choices = sizes_[driver];
    tables.keep = at::ones({choices, width_}, at::kBool);
    tables.force = at::zeros({choices, width_}, at::kBool);
    tables.relevant = at::ones({choices, num_heads()}, at::kBool);
    tables.driven = at::zeros({num_heads()}, at::kBool);
    for (int64_t k = 0; k < num_heads(); ++k) {
      tables.driven.mutable_data_ptr<bool>()[k] = drivers_[k] == driver;
    }
    bool* keep = tables.keep.mutable_data_ptr<bool>();
    bool* force = tables.force.mutable_data_ptr<bool>();
    bool* relevant = tables.relevant.mutable_data_ptr<bool>();
    for (int64_t choice = 0; choice < choices; ++choice) {
      for (int64_t k = 0; k < num_heads(); ++k) {
        if (drivers_[k] != driver || Relevant(k, choice)) continue;
        relevant[choice * num_heads() + k] = false;
        if (placeholders_[k] < 0) continue;  // Depends on the mask.
        const int64_t begin = choice * width_ + offsets_[k];
        std::fill_n(keep + begin, sizes_[k], false);
        force[begin + placeholders_[k]] = true;
      }
    }
    tables_.push_back(std::move(tables));
  }
}

bool HeadLayout::Relevant(int64_t head, int64_t driver_choice) const {
  return drivers_[head] < 0 || relevant_[head][driver_choice];
}

at::Tensor HeadLayout::ToBlock(const HeadLevel& level,
                               const at::Tensor& x) const {
  const int64_t heads = static_cast<int64_t>(level.heads.size());
  if (heads == 1) {
    return x.narrow(1, offsets_[level.heads[0]], level.width).unsqueeze(1);
  }
  return x.index_select(1, level.columns).view({x.size(0), heads, level.width});
}

at::Tensor HeadLayout::MaskBlock(const HeadLevel& level,
                                 const at::Tensor& masks) const {
  const at::Tensor block = ToBlock(level, masks);
  return level.cells.defined() ? block.logical_and(level.cells) : block;
}

at::Tensor HeadLayout::Gather(const std::vector<at::Tensor>& per_level) const {
  const at::Tensor joined =
      per_level.size() == 1 ? per_level[0] : at::cat(per_level, 1);
  return from_levels_.defined() ? joined.index_select(1, from_levels_) : joined;
}

std::vector<at::Tensor> HeadLayout::FloorTensors(
    const FloorSettings& settings) const {
  const auto bad = [](const std::string& message) {
    ErrorDetail detail;
    detail.reason = "BAD_FLOOR";
    return InvalidArgumentError(detail, message);
  };
  if (static_cast<int64_t>(settings.floors.size()) != num_heads()) {
    throw bad(absl::StrCat("Got ", settings.floors.size(), " floors for ",
                           num_heads(), " heads."));
  }
  for (const int64_t k : gaussian_) {
    if (settings.floors[k] == 0) continue;
    throw bad(absl::StrCat("Head ", k, " is Gaussian: it has no floor."));
  }
  std::vector<at::Tensor> result;
  for (const HeadLevel& level : levels_) {
    std::vector<float> floors;
    bool any = false;
    for (const int64_t k : level.heads) {
      const double floor = settings.floors[k];
      if (!(floor >= 0 && floor < 1)) {
        throw bad(absl::StrCat("The floor of head ", k, " is ", floor,
                               ", outside [0, 1)."));
      }
      any = any || floor > 0;
      floors.push_back(static_cast<float>(floor));
    }
    any = any && settings.mode != FloorMode::kNone;
    result.push_back(any ? at::tensor(floors, at::kFloat) : at::Tensor());
  }
  return result;
}

at::Tensor HeadLayout::EffectiveMasks(const at::Tensor& masks,
                                      const at::Tensor& conditional,
                                      const at::Tensor& actions) const {
  const int64_t rows = actions.size(0);
  at::Tensor effective =
      masks.defined() ? masks : at::ones({rows, width_}, at::kBool);
  // What was allocated here may be written to; the caller's mask may not.
  bool own = !masks.defined();
  if (conditional.defined() && conditional_head_ >= 0) {
    const int64_t k = conditional_head_;
    const at::Tensor choice = actions.select(1, drivers_[k]).view({rows, 1, 1});
    if (!own) effective = effective.clone();
    own = true;
    effective.narrow(1, offsets_[k], sizes_[k])
        .copy_(conditional.gather(1, choice.expand({rows, 1, sizes_[k]}))
                   .squeeze(1));
  }
  for (const DriverTables& tables : tables_) {
    const at::Tensor choice = actions.select(1, tables.head);
    effective = effective.logical_and(tables.keep.index_select(0, choice))
                    .logical_or_(tables.force.index_select(0, choice));
    own = true;
  }
  if (!first_allowed_heads_.empty()) {
    const at::Tensor relevance = Relevance(actions);
    for (const int64_t k : first_allowed_heads_) {
      at::Tensor head = effective.narrow(1, offsets_[k], sizes_[k]);
      head.copy_(
          at::where(relevance.narrow(1, k, 1), head, FirstAllowed(head)));
    }
  }
  return own ? effective : effective.clone();
}

at::Tensor HeadLayout::Relevance(const at::Tensor& actions) const {
  at::Tensor relevance;
  for (const DriverTables& tables : tables_) {
    const at::Tensor rows =
        tables.relevant.index_select(0, actions.select(1, tables.head));
    relevance = relevance.defined() ? relevance.logical_and(rows) : rows;
  }
  return relevance.defined()
             ? relevance
             : at::ones({actions.size(0), num_heads()}, at::kBool);
}

at::Tensor HeadLayout::Availability(const at::Tensor& masks) const {
  at::Tensor available;
  for (const DriverTables& tables : tables_) {
    const at::Tensor allowed =
        masks.narrow(1, offsets_[tables.head], sizes_[tables.head]);
    // [N, choices, 1] and [1, choices, K] -> some choice is both.
    const at::Tensor rows = allowed.unsqueeze(2)
                                .logical_and(tables.relevant.unsqueeze(0))
                                .any(1)
                                .logical_or(tables.driven.logical_not());
    available = available.defined() ? available.logical_and(rows) : rows;
  }
  return available.defined()
             ? available
             : at::ones({masks.size(0), num_heads()}, at::kBool);
}

}  // namespace esper::policy
