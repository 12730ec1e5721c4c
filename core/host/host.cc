#include "core/host/host.h"

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/error.h"

namespace esper::host {

Host::Host(std::vector<slot::InjectionSpec> specs,
           std::vector<std::string> execution_order)
    : specs_(std::move(specs)), execution_order_(std::move(execution_order)) {
  for (const slot::InjectionSpec& spec : specs_) {
    channels_[spec.slot_id] = spec.channels;
  }
  for (size_t i = 0; i < execution_order_.size(); ++i) {
    positions_[execution_order_[i]] = static_cast<int>(i);
  }
}

int Host::PositionOf(const std::string& segment) const {
  const auto found = positions_.find(segment);
  if (found == positions_.end()) {
    throw InvalidArgumentError(
        {.reason = "UNKNOWN_SEGMENT", .field = segment},
        absl::StrCat("The host has no point '", segment, "'; it has ",
                     absl::StrJoin(execution_order_, ", "), "."));
  }
  return found->second;
}

at::Tensor Host::Run(int from, int to, const at::Tensor& x) const {
  if (from < kInput || from >= to || to > output()) {
    throw InvalidArgumentError(
        {.reason = "BAD_SEGMENT_ORDER"},
        absl::StrCat("Activations cannot go from position ", from, " to ", to,
                     " of a host with positions ", kInput, " to ", output(),
                     ": they go forward only."));
  }
  return RunChecked(from, to, x);
}

at::Tensor Host::ForwardToSegment(const std::string& target,
                                  const at::Tensor& x) const {
  return Run(kInput, PositionOf(target), x);
}

at::Tensor Host::ForwardToSegment(const std::string& target,
                                  const at::Tensor& x,
                                  const std::string& from) const {
  return Run(PositionOf(from), PositionOf(target), x);
}

at::Tensor Host::ForwardFromSegment(const std::string& from,
                                    const at::Tensor& x) const {
  return Run(PositionOf(from), output(), x);
}

}  // namespace esper::host
