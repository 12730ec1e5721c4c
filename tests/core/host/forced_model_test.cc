// ForceAlpha scopes on slots of a whole model.

#include <ATen/ops/arange.h>
#include <ATen/ops/full.h>
#include <ATen/ops/sin.h>
#include <ATen/ops/zeros.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "core/error.h"
#include "core/host/counterfactual_eval.h"
#include "core/host/growable_model.h"
#include "core/slot/force_alpha.h"
#include "core/slot/slot_lifecycle.h"
#include "gtest/gtest.h"
#include "tests/core/host/plain_host.h"
#include "tests/core/slot/test_seeds.h"
#include "tests/testing/status_matchers.h"

namespace esper::host {
namespace {

using ::esper::testing::GrowTo;
using ::esper::testing::IsOk;
using ::esper::testing::MakeLifecycle;
using ::esper::testing::PlainHost;
using ::esper::testing::Refused;
using slot::ForceAlpha;
using slot::ScopedForceAlpha;
using slot::SeedStage;

class ForcedModelTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto model = GrowableModel::Create(host_, {"r0c0", "r0c1"});
    ASSERT_OK(model);
    model_ = *std::move(model);
    for (const auto& slot : model_->slots()) {
      GrowTo(lifecycle_, *slot, SeedStage::kBlending);
      ASSERT_OK(lifecycle_.SetAlpha(*slot, 0.5).status());
    }
    model_->eval();
  }
  slot::SeedSlot& slot(int i) { return *model_->slots()[i]; }
  at::Tensor Forced(double first, double second) {
    return model_->FusedForward(x_, {{"r0c0", at::full({2, 1, 1, 1}, first)},
                                     {"r0c1", at::full({2, 1, 1, 1}, second)}});
  }
  void ExpectEqual(const at::Tensor& a, const at::Tensor& b) {
    ASSERT_EQ(a.sizes(), b.sizes());
    EXPECT_TRUE(a.eq(b).all().item<bool>());
  }

  const slot::SlotLifecycle lifecycle_ = MakeLifecycle();
  const std::shared_ptr<PlainHost> host_ = std::make_shared<PlainHost>();
  std::shared_ptr<GrowableModel> model_;
  const at::Tensor x_ = at::sin(at::arange(72).mul(0.7)).reshape({2, 4, 3, 3});
};

TEST_F(ForcedModelTest, ForwardSeesTheScopesOfItsThread) {
  const at::Tensor before = model_->Forward(x_);
  const at::Tensor expected = Forced(0, 0.5);
  {
    const auto scope = ForceAlpha(slot(0), 0);
    ASSERT_OK(scope);
    ExpectEqual(model_->Forward(x_), expected);
    std::thread([&] { ExpectEqual(model_->Forward(x_), before); }).join();
    const auto both = ForceAlpha(slot(1), 0);
    ASSERT_OK(both);
    ExpectEqual(model_->Forward(x_), x_);
  }
  ExpectEqual(model_->Forward(x_), before);
}

TEST_F(ForcedModelTest, ScopesAreResolvedOnceAtTheStartOfAForward) {
  const at::Tensor expected = Forced(0.5, 0);
  auto scope = std::make_optional(ForceAlpha(slot(1), 0).value());
  // Gone before its slot's turn; the forward that began under it keeps it.
  host_->on_layer = [&](int from) {
    if (from == 0) scope.reset();
  };
  ExpectEqual(model_->Forward(x_), expected);
  EXPECT_FALSE(scope.has_value());
}

TEST_F(ForcedModelTest, RefusesAnOverrideBesideAScope) {
  const auto scope = ForceAlpha(slot(0), 0);
  ASSERT_OK(scope);
  try {
    Forced(1, 1);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_EQ(error.reason(), "OVERRIDE_CONFLICT");
  }
}

TEST_F(ForcedModelTest, CounterfactualsRefuseToMeasureAForcedSlot) {
  ValidationBatch batch;
  batch.inputs = x_;
  batch.labels = at::zeros({2}, at::kLong);
  const auto scope = ForceAlpha(slot(0), 0);
  ASSERT_OK(scope);
  EXPECT_THAT(EvaluateCounterfactuals(*model_, {batch}, {}),
              Refused(absl::StatusCode::kFailedPrecondition, "FORCED_ALPHA"));
}

}  // namespace
}  // namespace esper::host
