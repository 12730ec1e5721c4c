#include "core/policy/onednn_linear.h"

#include <optional>
#include <string_view>

#include "ATen/core/List.h"
#include "ATen/core/dispatch/Dispatcher.h"
#include "c10/core/Scalar.h"

namespace esper::policy {
namespace {

using Reorder = at::Tensor(const at::Tensor&, std::optional<int64_t>);
using Pointwise = at::Tensor(const at::Tensor&, const at::Tensor&,
                             const std::optional<at::Tensor>&, std::string_view,
                             c10::List<std::optional<at::Scalar>>,
                             std::optional<std::string_view>);

template <typename Signature>
c10::TypedOperatorHandle<Signature> Operator(const char* name) {
  return c10::Dispatcher::singleton()
      .findSchemaOrThrow(name, "")
      .typed<Signature>();
}

}  // namespace

at::Tensor ReorderLinearWeight(const at::Tensor& weight, int64_t rows) {
  static const auto reorder =
      Operator<Reorder>("mkldnn::_reorder_linear_weight");
  return reorder.call(weight, rows);
}

at::Tensor OneDnnLinear(const at::Tensor& x, const at::Tensor& reordered,
                        const at::Tensor& bias, bool relu) {
  static const auto pointwise =
      Operator<Pointwise>("mkldnn::_linear_pointwise");
  return pointwise.call(x, reordered, bias, relu ? "relu" : "none",
                        c10::List<std::optional<at::Scalar>>(), "");
}

}  // namespace esper::policy
