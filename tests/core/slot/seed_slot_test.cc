#include "core/slot/seed_slot.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/full.h>
#include <ATen/ops/sin.h>
#include <ATen/ops/tanh.h>
#include <ATen/ops/zeros.h>
#include <c10/core/InferenceMode.h>

#include <array>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "core/error.h"
#include "core/slot/slot_lifecycle.h"
#include "gtest/gtest.h"
#include "tests/core/slot/test_seeds.h"
#include "tests/testing/status_matchers.h"

namespace esper::slot {
namespace {

using at::Tensor;
using ::esper::testing::GrowTo;
using ::esper::testing::HealthyReading;
using ::esper::testing::IsOk;
using ::esper::testing::MakeLifecycle;
using ::esper::testing::MakeSlot;
using ::esper::testing::Refused;
using ::esper::testing::StatusIs;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

Tensor Features(Topology topology = Topology::kCnn, double phase = 0) {
  const std::vector<int64_t> shape = topology == Topology::kCnn
                                         ? std::vector<int64_t>{2, 4, 3, 3}
                                         : std::vector<int64_t>{2, 5, 4};
  return at::sin(at::arange(topology == Topology::kCnn ? 72 : 40)
                     .mul(0.7)
                     .add(phase))
      .reshape(shape);
}

Tensor Leaf(const Tensor& t) { return t.clone().set_requires_grad(true); }

void ExpectEqual(const Tensor& a, const Tensor& b) {
  ASSERT_EQ(a.sizes(), b.sizes());
  EXPECT_TRUE(a.eq(b).all().item<bool>());
}

void ExpectNear(const Tensor& a, const Tensor& b, double tolerance = 1e-6) {
  ASSERT_EQ(a.sizes(), b.sizes());
  EXPECT_LE(a.sub(b).abs().max().item<double>(), tolerance);
}

GerminateRequest Request(const std::string& blueprint,
                         AlphaAlgorithm algorithm = AlphaAlgorithm::kAdd) {
  GerminateRequest request;
  request.blueprint_id = blueprint;
  request.algorithm = algorithm;
  if (algorithm == AlphaAlgorithm::kGate) request.blend_id = "gated";
  return request;
}

TEST(SeedSlotTest, CreateRefusesBadOptions) {
  SeedSlot::Options options;
  options.slot_id = "early";
  options.channels = 4;
  EXPECT_THAT(SeedSlot::Create(options),
              Refused(absl::StatusCode::kInvalidArgument, "BAD_SLOT_ID"));
  options.slot_id = "r0c0";
  options.channels = 0;
  EXPECT_THAT(SeedSlot::Create(options),
              StatusIs(absl::StatusCode::kInvalidArgument));
  options.channels = 4;
  options.dtype = at::kLong;
  EXPECT_THAT(SeedSlot::Create(options),
              StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST(SeedSlotTest, WithoutActiveSeedReturnsTheVeryHost) {
  const auto lifecycle = MakeLifecycle();
  const auto slot = MakeSlot();
  const Tensor host = Features();
  EXPECT_TRUE(slot->forward(host).is_same(host));
  ASSERT_OK(lifecycle.Germinate(*slot, Request("norm")).status());
  EXPECT_TRUE(slot->forward(host).is_same(host));
  EXPECT_TRUE(slot->forward(host, SlotView{at::full({}, 0.5)}).is_same(host));
  ASSERT_OK(lifecycle.Prune(*slot, "test").status());
  EXPECT_TRUE(slot->forward(host).is_same(host));
}

TEST(SeedSlotTest, TrainingSeedLearnsBehindTheHost) {
  for (const Topology topology : {Topology::kCnn, Topology::kTransformer}) {
    const auto lifecycle = MakeLifecycle();
    const auto slot = MakeSlot(topology);
    GrowTo(lifecycle, *slot, SeedStage::kTraining);
    const Tensor host = Leaf(Features(topology));
    const Tensor out = slot->forward(host);
    ExpectEqual(out, host);
    const Tensor cotangent = Features(topology, 1);
    out.backward(cotangent);
    // Isolated: the host's gradient is that of a model without the seed.
    ExpectEqual(host.grad(), cotangent);
    for (const Tensor& parameter : slot->SeedParameters()) {
      ASSERT_TRUE(parameter.grad().defined());
      EXPECT_GT(parameter.grad().abs().max().item<double>(), 0);
    }
  }
}

// gradient of sum(out * cotangent) to the host, per topology and operator,
// against the seed's closed form y = x + k (w x + b), dy/dx = 1 + k w.
TEST(SeedSlotTest, BlendedSeedReachesTheHostOnlyWhereCoupled) {
  for (const Topology topology : {Topology::kCnn, Topology::kTransformer}) {
    for (const AlphaAlgorithm algorithm :
         {AlphaAlgorithm::kAdd, AlphaAlgorithm::kMultiply,
          AlphaAlgorithm::kGate}) {
      const auto lifecycle = MakeLifecycle();
      const auto slot = MakeSlot(topology);
      GrowTo(lifecycle, *slot, SeedStage::kBlending,
             Request("norm", algorithm));
      ASSERT_OK(lifecycle.SetAlpha(*slot, 0.4).status());
      const bool isolated = topology == Topology::kCnn;
      EXPECT_EQ(slot->Report()->isolated, isolated);

      const auto plan = slot->plan();
      const Tensor host = Leaf(Features(topology));
      const Tensor g = Features(topology, 1);
      slot->forward(host).backward(g);

      const Tensor x = host.detach();
      const auto parameters = plan->seed->named_parameters();
      const Tensor slope =
          at::tanh(parameters["gain"]).mul(parameters["weight"]).detach();
      const Tensor s = x.add(x.mul(slope));
      const Tensor dsdx = slope.add(1);
      Tensor expected;
      if (algorithm == AlphaAlgorithm::kMultiply) {
        const Tensor t = at::tanh(s.sub(x));
        expected = g.mul(t.mul(0.4).add(1));
        if (!isolated) {
          expected = expected.add(
              g.mul(x).mul(t.mul(t).mul(-1).add(1)).mul(0.4).mul(slope));
        }
        ExpectNear(host.grad(), expected);
        continue;
      }
      Tensor gate = at::full({}, 1.0);
      if (algorithm == AlphaAlgorithm::kGate) gate = plan->gate->forward(x);
      if (algorithm == AlphaAlgorithm::kGate && !isolated) {
        // Through the gate network too: compare with the expression itself.
        const Tensor twin = Leaf(x);
        const Tensor a = plan->gate->forward(twin).mul(0.4);
        const Tensor ts = twin.add(twin.mul(slope));
        twin.add(a.mul(ts.sub(twin))).backward(g);
        ExpectNear(host.grad(), twin.grad());
        continue;
      }
      const Tensor a = gate.detach().mul(0.4);
      expected = g.mul(a.mul(-1).add(1));
      if (!isolated) expected = expected.add(g.mul(a).mul(dsdx));
      ExpectNear(host.grad(), expected);
    }
  }
}

TEST(SeedSlotTest, OverrideActsOnThisCallOnly) {
  const auto lifecycle = MakeLifecycle();
  for (const AlphaAlgorithm algorithm :
       {AlphaAlgorithm::kAdd, AlphaAlgorithm::kMultiply,
        AlphaAlgorithm::kGate}) {
    const auto slot = MakeSlot();
    GrowTo(lifecycle, *slot, SeedStage::kHolding, Request("norm", algorithm));
    const Tensor host = Features();
    const Tensor before = slot->forward(host);
    const Tensor off = slot->forward(host, SlotView{at::full({}, 0.0)});
    ExpectEqual(off, host);
    ExpectEqual(slot->forward(host, SlotView{at::full({}, 1.0)}), before);

    // Per sample: the first off, the second as it is.
    Tensor rows = at::zeros({2, 1, 1, 1});
    rows[1].fill_(1.0);
    const Tensor mixed = slot->forward(host, SlotView{rows});
    ExpectEqual(mixed[0], host[0]);
    ExpectEqual(mixed[1], before[1]);
    EXPECT_EQ(slot->alpha(), 1.0);
    ExpectEqual(slot->forward(host), before);
  }
}

TEST(SeedSlotTest, OverrideOfZeroHidesASeedThatMakesNan) {
  const auto lifecycle = MakeLifecycle();
  for (const AlphaAlgorithm algorithm :
       {AlphaAlgorithm::kAdd, AlphaAlgorithm::kMultiply,
        AlphaAlgorithm::kGate}) {
    const auto slot = MakeSlot();
    GrowTo(lifecycle, *slot, SeedStage::kBlending, Request("nan", algorithm));
    ASSERT_OK(lifecycle.SetAlpha(*slot, 0.5).status());
    const Tensor host = Features();
    EXPECT_TRUE(slot->forward(host).isnan().any().item<bool>());
    ExpectEqual(slot->forward(host, SlotView{at::full({}, 0.0)}), host);
  }
}

TEST(SeedSlotTest, RefusesOverridesOfAnotherShapeOrKind) {
  const auto lifecycle = MakeLifecycle();
  const auto slot = MakeSlot();
  GrowTo(lifecycle, *slot, SeedStage::kBlending);
  const Tensor host = Features();
  for (const Tensor& bad :
       {at::full({2}, 0.5), at::full({3, 1, 1, 1}, 0.5),
        at::full({2, 4, 1, 1}, 0.5), at::full({}, 1, at::kLong),
        at::full({2, 1, 1, 1}, 1, at::kLong)}) {
    EXPECT_THROW(slot->forward(host, SlotView{bad}), ShapeError);
  }
}

TEST(SeedSlotTest, SkipsASeedWhoseResultIsNotNeeded) {
  const auto lifecycle = MakeLifecycle();
  const auto slot = MakeSlot();
  GrowTo(lifecycle, *slot, SeedStage::kTraining);
  const Tensor host = Features();
  {
    const at::NoGradGuard no_grad;
    EXPECT_TRUE(slot->forward(host).is_same(host));
    SlotView off{at::full({}, 0.0)};
    EXPECT_FALSE(slot->forward(host, off).is_same(host));
    off.override_is_zero = true;
    EXPECT_TRUE(slot->forward(host, off).is_same(host));
  }
  const c10::InferenceMode inference;
  EXPECT_TRUE(slot->forward(host).is_same(host));
}

// y = 2 x, counting its calls.
class CountingSeed : public SeedModule {
 public:
  CountingSeed() : SeedModule("counting") {}
  Tensor forward(const Tensor& x) override {
    ++calls;
    return x.add(x);
  }
  int calls = 0;
};

TEST(SeedSlotTest, RunsTheSeedOnlyWhereItsResultShows) {
  const auto seed = std::make_shared<CountingSeed>();
  const Tensor host = Features();
  const auto probe = std::make_shared<HealthProbe>();
  const auto calls = [&](SeedStage stage, double alpha, const SlotView& view) {
    ForwardPlan plan = *[&] {
      const auto slot = MakeSlot();
      GrowTo(MakeLifecycle(), *slot, stage);
      return slot->plan();
    }();
    plan.seed = seed;
    plan.probe = probe;
    plan.alpha_value = alpha;
    plan.alpha = at::full({}, alpha);
    seed->calls = 0;
    RunForwardPlan(plan, host, view, /*training=*/false);
    return seed->calls;
  };
  SlotView off{at::full({}, 0.0)};
  off.override_is_zero = true;
  SlotView forced;
  forced.forced_alpha = 0;
  forced.forced_seed = probe;
  // A gradient may be wanted.
  EXPECT_EQ(calls(SeedStage::kTraining, 0, {}), 1);
  EXPECT_EQ(calls(SeedStage::kHolding, 1, off), 1);
  const at::NoGradGuard no_grad;
  EXPECT_EQ(calls(SeedStage::kTraining, 0, {}), 0);
  EXPECT_EQ(calls(SeedStage::kBlending, 0, {}), 0);
  EXPECT_EQ(calls(SeedStage::kHolding, 1, off), 0);
  EXPECT_EQ(calls(SeedStage::kHolding, 1, forced), 0);
  EXPECT_EQ(calls(SeedStage::kHolding, 1, {}), 1);
  EXPECT_EQ(calls(SeedStage::kTraining, 0, SlotView{at::full({}, 0.5)}), 1);
}

// What reaches an observation is plain numbers.
TEST(SeedSlotTest, ReportsKeepNoGraphAndNoNetworkAlive) {
  const auto lifecycle = MakeLifecycle();
  const auto slot = MakeSlot(Topology::kTransformer);
  GrowTo(lifecycle, *slot, SeedStage::kHolding);
  std::optional<SlotReport> report;
  std::array<double, kTelemetryFeatures> features;
  c10::weak_intrusive_ptr<at::TensorImpl> parameter(
      slot->SeedParameters()[0].getIntrusivePtr());
  {
    const Tensor host = Leaf(Features(Topology::kTransformer));
    const Tensor out = slot->forward(host);  // A graph that is alive.
    report = slot->Report();
    features = report->telemetry.Features();
    ASSERT_OK(lifecycle.Prune(*slot, "test").status());
    EXPECT_FALSE(parameter.expired());  // The graph holds it.
  }
  EXPECT_TRUE(parameter.expired());
  EXPECT_EQ(report->stage, SeedStage::kHolding);
  EXPECT_EQ(features[17], 1);
}

TEST(SeedSlotTest, AnUnhealthySeedIsNotMadePermanent) {
  const auto lifecycle = MakeLifecycle();
  const auto slot = MakeSlot();
  GrowTo(lifecycle, *slot, SeedStage::kHolding);
  ASSERT_OK(slot->RecordContribution(5));
  ASSERT_OK(slot->RecordGradients(HealthOf({kNan})));
  EXPECT_EQ(lifecycle.Fossilize(*slot).refusal(), Refusal::kGateFailed);
  ASSERT_OK(slot->RecordGradients(HealthyReading()));
  EXPECT_OK(lifecycle.Fossilize(*slot).status());
}

TEST(SeedSlotTest, AlphaIsRoundedOnceFromItsExactValue) {
  const auto lifecycle = MakeLifecycle();
  const auto slot = MakeSlot();
  GrowTo(lifecycle, *slot, SeedStage::kBlending, Request("noop"));
  ASSERT_OK(lifecycle.SetAlpha(*slot, 0.7).status());
  // noop gives s = h, so look at the plan and at a double host.
  EXPECT_EQ(slot->plan()->alpha.scalar_type(), at::kFloat);
  EXPECT_EQ(slot->plan()->alpha.item<double>(), double(0.7f));

  const auto wide = MakeSlot();
  GrowTo(lifecycle, *wide, SeedStage::kBlending);
  ASSERT_OK(lifecycle.SetAlpha(*wide, 0.7).status());
  wide->to(at::kDouble);
  const Tensor host = Features().to(at::kDouble);
  const Tensor s = wide->plan()->seed->forward(host);
  ExpectNear(wide->forward(host), host.add(s.sub(host).mul(0.7)), 1e-15);
}

TEST(SeedSlotTest, AlphaSetUnderInferenceModeStillTrains) {
  const auto lifecycle = MakeLifecycle();
  const auto slot = MakeSlot();
  {
    const c10::InferenceMode inference;
    GrowTo(lifecycle, *slot, SeedStage::kBlending,
           Request("norm", AlphaAlgorithm::kGate));
    ASSERT_OK(lifecycle.SetAlpha(*slot, 0.5).status());
  }
  slot->forward(Leaf(Features())).sum().backward();
  for (const Tensor& parameter : slot->SeedParameters()) {
    EXPECT_TRUE(parameter.requires_grad());
    EXPECT_TRUE(parameter.grad().defined());
  }
}

TEST(SeedSlotTest, AFirstNormalisationGetsAContiguousIsolatedInput) {
  const auto lifecycle = MakeLifecycle();
  for (const SeedStage stage : {SeedStage::kTraining, SeedStage::kHolding}) {
    const auto slot = MakeSlot();
    GrowTo(lifecycle, *slot, stage, Request("first_norm"));
    EXPECT_TRUE(slot->plan()->copy_detached_input);
    const Tensor host = Features()
                            .contiguous(at::MemoryFormat::ChannelsLast)
                            .set_requires_grad(true);
    const Tensor out = slot->forward(host);
    EXPECT_TRUE(out.is_contiguous(at::MemoryFormat::ChannelsLast));
    out.sum().backward();
    for (const Tensor& parameter : slot->SeedParameters()) {
      EXPECT_TRUE(parameter.grad().defined());
    }
  }
  const auto slot = MakeSlot();
  GrowTo(lifecycle, *slot, SeedStage::kTraining, Request("conv"));
  EXPECT_FALSE(slot->plan()->copy_detached_input);
}

TEST(SeedSlotTest, AForwardInFlightKeepsAPrunedSeedAlive) {
  const auto lifecycle = MakeLifecycle();
  const auto slot = MakeSlot();
  GrowTo(lifecycle, *slot, SeedStage::kHolding);
  const auto plan = slot->plan();
  const Tensor host = Features();
  const Tensor before = slot->forward(host);
  ASSERT_OK(lifecycle.Prune(*slot, "test").status());
  EXPECT_TRUE(slot->forward(host).is_same(host));
  ExpectEqual(RunForwardPlan(*plan, host, SlotView{}, true), before);
}

TEST(SeedSlotTest, ForwardsRunBesideLifecycleCalls) {
  const auto lifecycle = MakeLifecycle();
  const auto slot = MakeSlot();
  const Tensor host = Features();
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  for (int t = 0; t < 3; ++t) {
    threads.emplace_back([&] {
      const at::NoGradGuard no_grad;
      while (!stop) {
        const Tensor off = slot->forward(host, SlotView{at::full({}, 0.0)});
        EXPECT_TRUE(off.eq(host).all().item<bool>());
      }
    });
  }
  for (int round = 0; round < 20; ++round) {
    GrowTo(lifecycle, *slot, SeedStage::kHolding);
    ASSERT_OK(lifecycle.Prune(*slot, "test").status());
    for (int tick = 0; tick < 7; ++tick) {
      ASSERT_OK(lifecycle.Tick(*slot).status());
    }
  }
  stop = true;
  for (std::thread& thread : threads) thread.join();
}

TEST(SeedSlotTest, MeasuresGradientsAndHealth) {
  const auto lifecycle = MakeLifecycle();
  const auto slot = MakeSlot();
  const GradientSample host = [] {
    Tensor p = at::zeros({16}).set_requires_grad(true);
    p.mutable_grad() = at::full({16}, 0.5);
    return SampleGradients({p});
  }();
  EXPECT_FALSE(slot->CaptureGradients(host));
  EXPECT_FALSE(slot->FinalizeGradients());
  GrowTo(lifecycle, *slot, SeedStage::kGerminated);
  EXPECT_FALSE(slot->CaptureGradients(host));
  ASSERT_OK(lifecycle.Advance(*slot).status());

  slot->forward(Features()).mean().backward();
  EXPECT_TRUE(slot->CaptureGradients(host));
  EXPECT_TRUE(slot->FinalizeGradients());
  EXPECT_FALSE(slot->FinalizeGradients());
  const SlotReport report = *slot->Report();
  EXPECT_TRUE(report.telemetry.gradient_health.has_value());
  EXPECT_GT(*report.telemetry.gradient_norm, 0);
  EXPECT_GT(*report.metrics.gradient_ratio, 0);
  EXPECT_DOUBLE_EQ(report.metrics.gradient_norm_avg,
                   0.1 * *report.telemetry.gradient_norm);
  EXPECT_TRUE(report.is_healthy);
}

TEST(SeedSlotTest, SmoothsTheRatioAndForgetsItWhileUnmeasured) {
  const auto lifecycle = MakeLifecycle();
  const auto slot = MakeSlot();
  GrowTo(lifecycle, *slot, SeedStage::kTraining);
  GradientReading reading = HealthyReading();
  reading.ratio = 2.0;
  ASSERT_OK(slot->RecordGradients(reading));
  EXPECT_DOUBLE_EQ(*slot->Report()->metrics.gradient_ratio, 2.0);
  reading.ratio = 4.0;
  ASSERT_OK(slot->RecordGradients(reading));
  EXPECT_DOUBLE_EQ(*slot->Report()->metrics.gradient_ratio, 2.2);

  // No gradients: nothing is known, and G2 must say so.
  GradientReading nothing;
  nothing.sampled = true;
  ASSERT_OK(slot->RecordGradients(nothing));
  SlotReport report = *slot->Report();
  EXPECT_EQ(report.metrics.gradient_ratio, std::nullopt);
  EXPECT_EQ(report.telemetry.gradient_health, std::nullopt);
  EXPECT_TRUE(report.is_healthy);

  // Not finite: exploding, and the average stays.
  ASSERT_OK(slot->RecordGradients(HealthOf({kNan})));
  report = *slot->Report();
  EXPECT_EQ(report.metrics.gradient_ratio, std::nullopt);
  EXPECT_EQ(report.telemetry.gradient_norm, std::nullopt);
  EXPECT_EQ(report.telemetry.has_exploding, true);
  EXPECT_FALSE(report.is_healthy);
  EXPECT_TRUE(report.needs_attention);

  ASSERT_OK(slot->RecordGradients(reading));
  EXPECT_DOUBLE_EQ(*slot->Report()->metrics.gradient_ratio, 0.9 * 2.2 + 0.4);
  EXPECT_TRUE(slot->Report()->is_healthy);
}

TEST(SeedSlotTest, ASeedThatMakesNanIsUnhealthy) {
  const auto lifecycle = MakeLifecycle();
  const auto slot = MakeSlot();
  GrowTo(lifecycle, *slot, SeedStage::kTraining, Request("nan"));
  const Tensor host = Leaf(Features());
  const Tensor out = slot->forward(host);
  ExpectEqual(out, host);
  EXPECT_TRUE(slot->FinalizeGradients());
  EXPECT_FALSE(slot->Report()->is_healthy);
}

TEST(SeedSlotTest, RecordersNeedASeedAndFiniteNumbers) {
  const auto lifecycle = MakeLifecycle();
  const auto slot = MakeSlot();
  constexpr auto kState = absl::StatusCode::kFailedPrecondition;
  EXPECT_THAT(slot->RecordAccuracy(50), StatusIs(kState));
  EXPECT_THAT(slot->RecordContribution(1), StatusIs(kState));
  EXPECT_THAT(slot->RecordInteractions({}), StatusIs(kState));
  EXPECT_THAT(slot->RecordGradients({}), StatusIs(kState));
  EXPECT_THAT(slot->SyncTelemetry(1, 50), StatusIs(kState));
  GrowTo(lifecycle, *slot, SeedStage::kTraining);
  constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
  EXPECT_THAT(slot->RecordAccuracy(kNan), StatusIs(kInvalid));
  EXPECT_THAT(slot->RecordContribution(kNan), StatusIs(kInvalid));
  EXPECT_THAT(slot->RecordInteractions({kNan, 0, 0, 0}), StatusIs(kInvalid));
  EXPECT_EQ(slot->Report()->metrics.epochs_total, 0);
}

TEST(SeedSlotTest, ReportHoldsWhatWasRecorded) {
  const auto lifecycle = MakeLifecycle();
  const auto slot = MakeSlot();
  GrowTo(lifecycle, *slot, SeedStage::kHolding);
  ASSERT_OK(slot->RecordAccuracy(61));
  ASSERT_OK(slot->RecordContribution(2));
  ASSERT_OK(slot->RecordContribution(3));
  ASSERT_OK(slot->RecordInteractions({0.5, 0.25, 0.75, 1.25}));
  ASSERT_OK(slot->SyncTelemetry(17, 50));
  const SlotReport r = *slot->Report();
  EXPECT_EQ(r.slot_id, "r0c0");
  EXPECT_EQ(r.seed_id, "r0c0-norm");
  EXPECT_EQ(r.blueprint_id, "norm");
  EXPECT_EQ(r.blueprint_index, 3);
  EXPECT_EQ(r.stage, SeedStage::kHolding);
  EXPECT_EQ(r.previous_stage, SeedStage::kBlending);
  EXPECT_EQ(r.alpha(), 1);
  EXPECT_EQ(r.metrics.contribution, 3);
  EXPECT_DOUBLE_EQ(r.metrics.contribution_velocity, 0.3);
  EXPECT_EQ(r.metrics.interaction_sum, 0.5);
  EXPECT_EQ(r.metrics.boost_received, 0.25);
  EXPECT_EQ(r.metrics.upstream_alpha_sum, 0.75);
  EXPECT_EQ(r.metrics.downstream_alpha_sum, 1.25);
  EXPECT_EQ(r.metrics.seed_param_count, 9);
  EXPECT_EQ(r.telemetry.epoch, 17);
  EXPECT_EQ(r.telemetry.max_epochs, 50);
  EXPECT_EQ(r.telemetry.tempo, 5);
  EXPECT_EQ(r.telemetry.accuracy, 61);
  EXPECT_TRUE(r.trainable);
  EXPECT_TRUE(r.is_improving);
}

TEST(SeedSlotTest, AFrozenTrainingSeedIsNoticedAndCountsAsUnmeasured) {
  const auto lifecycle = MakeLifecycle();
  const auto slot = MakeSlot();
  GrowTo(lifecycle, *slot, SeedStage::kTraining);
  for (Tensor parameter : slot->SeedParameters()) {
    parameter.set_requires_grad(false);
  }
  const Tensor host = Leaf(Features());
  for (int step = 0; step < 100; ++step) ExpectEqual(slot->forward(host), host);
  EXPECT_EQ(slot->Report()->ste_blocked_steps, 100);
  {
    const at::NoGradGuard no_grad;
    slot->forward(host);
  }
  slot->eval();
  slot->forward(host);
  EXPECT_EQ(slot->Report()->ste_blocked_steps, 100);
  EXPECT_TRUE(slot->CaptureGradients({}));
  EXPECT_TRUE(slot->FinalizeGradients());
  for (int epoch = 0; epoch < 10; ++epoch) ASSERT_OK(slot->RecordAccuracy(50));
  const LifecycleResult result = lifecycle.Advance(*slot);
  EXPECT_EQ(result.refusal(), Refusal::kGateFailed);
  EXPECT_EQ(result.gate()->checks_failed,
            std::vector<std::string>{"gradient_health_not_measured"});
}

}  // namespace
}  // namespace esper::slot
