#include "core/slot/slot_lifecycle.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/sin.h>

#include <limits>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tests/core/slot/test_seeds.h"
#include "tests/testing/status_matchers.h"

namespace esper::slot {
namespace {

using ::esper::testing::GrowTo;
using ::esper::testing::HealthyReading;
using ::esper::testing::IsOk;
using ::esper::testing::MakeLifecycle;
using ::esper::testing::MakeSlot;
using ::esper::testing::StatusIs;
using S = SeedStage;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

GerminateRequest Norm() {
  GerminateRequest request;
  request.blueprint_id = "norm";
  return request;
}

AlphaTargetRequest To(double target, int64_t steps) {
  AlphaTargetRequest request;
  request.target = target;
  request.steps = steps;
  request.curve = AlphaCurve::kLinear;
  return request;
}

PruneRequest Over(int64_t steps, const std::string& reason = "policy_prune") {
  PruneRequest request;
  request.steps = steps;
  request.curve = AlphaCurve::kLinear;
  request.reason = reason;
  return request;
}

// Remembers events as "stage FROM>TO", "germinated" and so on.
class Recorder : public EventSink {
 public:
  void OnEvent(const SlotEvent& event) noexcept override {
    events.push_back(event);
    struct Name {
      std::string operator()(const SeedGerminated&) { return "germinated"; }
      std::string operator()(const SeedStageChanged& e) {
        return std::string(StageName(e.from)) + ">" + StageName(e.to);
      }
      std::string operator()(const SeedGateEvaluated& e) {
        return std::string(GateLevelName(e.result.level)) +
               (e.result.passed ? "+" : "-");
      }
      std::string operator()(const SeedFossilized&) { return "fossilized"; }
      std::string operator()(const SeedPruned& e) {
        return "pruned " + e.reason;
      }
      std::string operator()(const SeedAlgorithmChanged& e) {
        return std::string(AlphaAlgorithmName(e.from)) + ">" +
               AlphaAlgorithmName(e.to);
      }
    };
    names.push_back(std::visit(Name(), event.payload));
  }
  std::vector<std::string> names;
  std::vector<SlotEvent> events;
};

std::vector<uint8_t> GeneratorState() {
  const at::Tensor state = at::detail::getDefaultCPUGenerator().get_state();
  const uint8_t* data = state.const_data_ptr<uint8_t>();
  return std::vector<uint8_t>(data, data + state.numel());
}

class SlotLifecycleTest : public ::testing::Test {
 protected:
  SlotLifecycleTest() {
    SlotLifecycle::Options options;
    options.events = &recorder_;
    lifecycle_.emplace(MakeLifecycle(options));
  }

  const SlotLifecycle& lifecycle() const { return *lifecycle_; }
  SlotReport report() const { return *slot_->Report(); }

  Recorder recorder_;
  std::optional<SlotLifecycle> lifecycle_;
  std::shared_ptr<SeedSlot> slot_ = MakeSlot();
};

TEST_F(SlotLifecycleTest, NeedsARegistry) {
  EXPECT_THAT(SlotLifecycle::Create({}), StatusIs(kInvalid));
}

TEST_F(SlotLifecycleTest, RunsToFossilizedAndSaysSo) {
  GrowTo(lifecycle(), *slot_, S::kFossilized);
  EXPECT_EQ(slot_->stage(), S::kFossilized);
  EXPECT_EQ(slot_->alpha(), 1);
  EXPECT_EQ(recorder_.names,
            (std::vector<std::string>{
                "germinated", "G1+", "GERMINATED>TRAINING", "G2+",
                "TRAINING>BLENDING", "G3+", "BLENDING>HOLDING", "G5+",
                "HOLDING>FOSSILIZED", "fossilized"}));
  for (const SlotEvent& event : recorder_.events) {
    EXPECT_EQ(event.slot_id, "r0c0");
    EXPECT_EQ(event.seed_id, "r0c0-norm");
  }
  for (int tick = 0; tick < 20; ++tick) {
    ASSERT_OK(lifecycle().Tick(*slot_).status());
  }
  EXPECT_EQ(slot_->stage(), S::kFossilized);
}

TEST_F(SlotLifecycleTest, AFossilIsPermanent) {
  GrowTo(lifecycle(), *slot_, S::kFossilized);
  EXPECT_EQ(lifecycle().Prune(*slot_, "x").refusal(), Refusal::kFossilized);
  EXPECT_EQ(lifecycle().SchedulePrune(*slot_, Over(3)).refusal(),
            Refusal::kFossilized);
  EXPECT_EQ(lifecycle().SetAlphaTarget(*slot_, To(0.5, 3)).refusal(),
            Refusal::kFossilized);
  EXPECT_EQ(lifecycle().Advance(*slot_).refusal(), Refusal::kIllegalTransition);
  EXPECT_EQ(lifecycle().Advance(*slot_).gate()->checks_failed,
            std::vector<std::string>{"no_valid_transition"});
  EXPECT_EQ(lifecycle().Germinate(*slot_, Norm()).refusal(),
            Refusal::kSlotOccupied);
  EXPECT_EQ(slot_->alpha(), 1);
}

TEST_F(SlotLifecycleTest, EmptySlotRefusesEverythingButGermination) {
  EXPECT_EQ(lifecycle().Advance(*slot_).refusal(), Refusal::kNoSeed);
  EXPECT_EQ(lifecycle().Fossilize(*slot_).refusal(), Refusal::kNoSeed);
  EXPECT_EQ(lifecycle().SetAlpha(*slot_, 1).refusal(), Refusal::kNoSeed);
  EXPECT_EQ(lifecycle().SetAlphaTarget(*slot_, To(1, 1)).refusal(),
            Refusal::kNoSeed);
  EXPECT_EQ(lifecycle().SchedulePrune(*slot_, Over(1)).refusal(),
            Refusal::kNoSeed);
  EXPECT_EQ(lifecycle().Prune(*slot_, "x").refusal(), Refusal::kNoSeed);
  EXPECT_OK(lifecycle().Tick(*slot_).status());
  EXPECT_TRUE(slot_->empty());
  EXPECT_TRUE(recorder_.names.empty());
}

TEST_F(SlotLifecycleTest, IsolationFollowsTopologyAndStage) {
  for (const Topology topology : {Topology::kCnn, Topology::kTransformer}) {
    const bool cnn = topology == Topology::kCnn;
    const auto slot = MakeSlot(topology);
    GrowTo(lifecycle(), *slot, S::kGerminated);
    EXPECT_FALSE(slot->Report()->isolated);
    for (const auto& [stage, isolated] :
         std::vector<std::pair<S, bool>>{{S::kTraining, true},
                                         {S::kBlending, cnn},
                                         {S::kHolding, cnn},
                                         {S::kFossilized, cnn}}) {
      const auto grown = MakeSlot(topology);
      GrowTo(lifecycle(), *grown, stage);
      EXPECT_EQ(grown->Report()->isolated, isolated) << StageName(stage);
    }
    const auto pruned = MakeSlot(topology);
    GrowTo(lifecycle(), *pruned, S::kHolding);
    ASSERT_OK(lifecycle().Prune(*pruned, "x").status());
    EXPECT_FALSE(pruned->Report()->isolated);
  }
}

TEST_F(SlotLifecycleTest, CoolsDownForExactlySevenTicks) {
  for (const S stage :
       {S::kGerminated, S::kTraining, S::kBlending, S::kHolding}) {
    recorder_.names.clear();
    GrowTo(lifecycle(), *slot_, stage);
    const uint64_t parameters = slot_->parameter_generation();
    ASSERT_OK(lifecycle().Prune(*slot_, "policy_prune").status());
    EXPECT_NE(slot_->parameter_generation(), parameters);
    EXPECT_TRUE(slot_->SeedParameters().empty());
    EXPECT_TRUE(slot_->parameters().empty());
    EXPECT_EQ(report().alpha(), 0);
    const std::vector<S> expected = {S::kEmbargoed, S::kEmbargoed,
                                     S::kEmbargoed, S::kEmbargoed,
                                     S::kEmbargoed, S::kResetting};
    EXPECT_EQ(slot_->stage(), S::kPruned);
    for (const S next : expected) {
      EXPECT_EQ(lifecycle().Germinate(*slot_, Norm()).refusal(),
                Refusal::kSlotOccupied);
      EXPECT_EQ(lifecycle().Prune(*slot_, "governor_nan").refusal(),
                Refusal::kCoolingDown);
      // Accuracy does not age a cooling slot.
      EXPECT_THAT(slot_->RecordAccuracy(50),
                  StatusIs(absl::StatusCode::kFailedPrecondition));
      ASSERT_OK(lifecycle().Tick(*slot_).status());
      EXPECT_EQ(slot_->stage(), next);
    }
    EXPECT_FALSE(slot_->empty());
    EXPECT_EQ(slot_->TakeAutoPrune(), std::nullopt);
    ASSERT_OK(lifecycle().Tick(*slot_).status());
    EXPECT_TRUE(slot_->empty());
    EXPECT_FALSE(slot_->Report().has_value());
    EXPECT_EQ(recorder_.names.back(), "RESETTING>DORMANT");
    EXPECT_EQ(
        std::vector<std::string>(recorder_.names.end() - 5,
                                 recorder_.names.end() - 1),
        (std::vector<std::string>{std::string(StageName(stage)) + ">PRUNED",
                                  "pruned policy_prune", "PRUNED>EMBARGOED",
                                  "EMBARGOED>RESETTING"}));
  }
}

TEST_F(SlotLifecycleTest, OnlyTheGovernorsReasonsAreAutomatic) {
  for (const std::string reason :
       {"governor_nan", "governor_lobotomy", "governor_divergence",
        "governor_rollback", "policy_prune", "governor", ""}) {
    const bool automatic =
        reason.size() > 8 && reason.rfind("governor", 0) == 0;
    const auto slot = MakeSlot();
    GrowTo(lifecycle(), *slot, S::kTraining);
    ASSERT_OK(lifecycle().Prune(*slot, reason).status());
    EXPECT_EQ(slot->Report()->metrics.auto_pruned, automatic);
    EXPECT_EQ(slot->TakeAutoPrune(),
              automatic ? std::make_optional(reason) : std::nullopt);
    EXPECT_EQ(slot->TakeAutoPrune(), std::nullopt);
  }
}

TEST_F(SlotLifecycleTest, LegalityComesBeforeTheGate) {
  GrowTo(lifecycle(), *slot_, S::kGerminated);
  recorder_.names.clear();
  const LifecycleResult result = lifecycle().Advance(*slot_, S::kHolding);
  EXPECT_EQ(result.refusal(), Refusal::kIllegalTransition);
  EXPECT_EQ(result.gate()->checks_failed,
            std::vector<std::string>{"transition_failed"});
  EXPECT_TRUE(recorder_.names.empty());
  for (const S stage : {S::kPruned, S::kEmbargoed, S::kResetting}) {
    const LifecycleResult error = lifecycle().Advance(*slot_, stage);
    EXPECT_FALSE(error.refused());
    EXPECT_THAT(error.status(), StatusIs(kInvalid));
  }
  EXPECT_EQ(slot_->stage(), S::kGerminated);
}

TEST_F(SlotLifecycleTest, AFailedGateChangesNothing) {
  GrowTo(lifecycle(), *slot_, S::kTraining);
  const auto plan = slot_->plan();
  recorder_.names.clear();
  const LifecycleResult result = lifecycle().Advance(*slot_);
  EXPECT_EQ(result.refusal(), Refusal::kGateFailed);
  EXPECT_EQ(result.gate()->level, GateLevel::kG2);
  EXPECT_EQ(slot_->stage(), S::kTraining);
  EXPECT_EQ(slot_->plan(), plan);
  EXPECT_EQ(recorder_.names, std::vector<std::string>{"G2-"});
}

TEST_F(SlotLifecycleTest, FossilizeNeedsHoldingAndAMeasuredContribution) {
  GrowTo(lifecycle(), *slot_, S::kBlending);
  EXPECT_EQ(lifecycle().Fossilize(*slot_).refusal(), Refusal::kWrongStage);
  const auto holding = MakeSlot();
  GrowTo(lifecycle(), *holding, S::kHolding);
  EXPECT_EQ(lifecycle().Fossilize(*holding).refusal(), Refusal::kGateFailed);
  ASSERT_OK(holding->RecordContribution(-1));
  EXPECT_OK(lifecycle().Fossilize(*holding).status());
  EXPECT_EQ(holding->stage(), S::kFossilized);
}

TEST_F(SlotLifecycleTest, SwitchingTheOperatorIsAnEvent) {
  GrowTo(lifecycle(), *slot_, S::kHolding);
  recorder_.names.clear();
  AlphaTargetRequest request = To(0.5, 3);
  request.algorithm = AlphaAlgorithm::kGate;
  ASSERT_OK(lifecycle().SetAlphaTarget(*slot_, request).status());
  EXPECT_EQ(recorder_.names,
            (std::vector<std::string>{"HOLDING>BLENDING", "ADD>GATE"}));
}

// Germination.

TEST_F(SlotLifecycleTest, GerminationValidatesBeforeItBuilds) {
  const auto refused = [&](auto change) {
    GerminateRequest request = Norm();
    change(request);
    const LifecycleResult result = lifecycle().Germinate(*slot_, request);
    EXPECT_THAT(result.status(), StatusIs(kInvalid));
    EXPECT_FALSE(result.refused());
    EXPECT_TRUE(slot_->empty());
    return std::string(result.status().message());
  };
  const std::string unknown =
      refused([](auto& r) { r.blueprint_id = "no_such"; });
  EXPECT_NE(unknown.find("norm"), std::string::npos) << unknown;
  refused([](auto& r) { r.blend_id = "cosine"; });
  refused([](auto& r) { r.blend_id = "gated"; });
  refused([](auto& r) { r.algorithm = AlphaAlgorithm::kGate; });
  refused([](auto& r) { r.tempo = 0; });
  refused([](auto& r) { r.alpha_target = 0.0; });
  refused([](auto& r) { r.alpha_target = 1.5; });
  refused([](auto& r) { r.alpha_target = kNan; });
  refused([](auto& r) { r.blueprint_id = "crop"; });
  refused([](auto& r) { r.values["heads"] = 3; });
  // And the slot is as usable as ever.
  EXPECT_OK(lifecycle().Germinate(*slot_, Norm()).status());
}

TEST_F(SlotLifecycleTest, ARefusedGerminationLeavesTheLiveSeedAlone) {
  GerminateRequest request = Norm();
  request.tempo = 3;
  GrowTo(lifecycle(), *slot_, S::kTraining, request);
  const auto parameters = slot_->SeedParameters();
  const uint64_t generation = slot_->parameter_generation();
  request.tempo = 8;
  request.alpha_target = 0.5;
  request.blend_id = "linear";
  EXPECT_EQ(lifecycle().Germinate(*slot_, request).refusal(),
            Refusal::kSlotOccupied);
  EXPECT_EQ(report().telemetry.tempo, 3);
  EXPECT_EQ(slot_->parameter_generation(), generation);
  EXPECT_TRUE(slot_->SeedParameters()[0].is_same(parameters[0]));
}

TEST_F(SlotLifecycleTest, GerminationTouchesNoGlobalGenerator) {
  const auto before = GeneratorState();
  GerminateRequest request = Norm();
  request.algorithm = AlphaAlgorithm::kGate;
  request.blend_id = "gated";
  ASSERT_OK(lifecycle().Germinate(*slot_, request).status());
  EXPECT_EQ(GeneratorState(), before);
  request.blueprint_id = "crop";
  const auto other = MakeSlot();
  EXPECT_FALSE(lifecycle().Germinate(*other, request).ok());
  EXPECT_EQ(GeneratorState(), before);
}

TEST_F(SlotLifecycleTest, ParametersDependOnSeedSlotAndGenerationOnly) {
  const auto grow = [&](uint64_t init_seed, const std::string& id,
                        int generations) {
    SeedSlot::Options options;
    options.channels = 4;
    options.slot_id = id;
    options.init_seed = init_seed;
    const auto slot = MakeSlot(options);
    for (int i = 1; i < generations; ++i) {
      GrowTo(lifecycle(), *slot, S::kGerminated);
      EXPECT_OK(lifecycle().Prune(*slot, "x").status());
      while (!slot->empty()) EXPECT_OK(lifecycle().Tick(*slot).status());
    }
    GrowTo(lifecycle(), *slot, S::kGerminated);
    EXPECT_EQ(slot->Report()->generation, generations);
    return slot->SeedParameters()[0].detach().clone();
  };
  const at::Tensor base = grow(1, "r0c0", 1);
  EXPECT_TRUE(base.equal(grow(1, "r0c0", 1)));
  EXPECT_FALSE(base.equal(grow(2, "r0c0", 1)));
  EXPECT_FALSE(base.equal(grow(1, "r0c1", 1)));
  EXPECT_FALSE(base.equal(grow(1, "r0c0", 2)));
}

TEST_F(SlotLifecycleTest, AGateSeedOwnsItsGateFromBirth) {
  GerminateRequest request = Norm();
  request.algorithm = AlphaAlgorithm::kGate;
  request.blend_id = "gated";
  GrowTo(lifecycle(), *slot_, S::kGerminated, request);
  EXPECT_TRUE(report().has_gate);
  EXPECT_EQ(slot_->SeedParameters().size(), 3 + 4);
  const uint64_t generation = slot_->parameter_generation();
  const auto grown = MakeSlot();
  GrowTo(lifecycle(), *grown, S::kHolding, request);
  EXPECT_EQ(grown->parameter_generation(), generation);
  EXPECT_EQ(grown->SeedParameters().size(), 3 + 4);
}

TEST_F(SlotLifecycleTest, PassesBlueprintOptionsOn) {
  GerminateRequest request = Norm();
  request.values["scale"] = 0;
  ASSERT_OK(lifecycle().Germinate(*slot_, request).status());
  EXPECT_EQ(slot_->SeedParameters()[0].abs().max().item<double>(), 0);
}

TEST_F(SlotLifecycleTest, ANewSeedTakesTheSlotsMode) {
  slot_->eval();
  GrowTo(lifecycle(), *slot_, S::kTraining);
  EXPECT_FALSE(slot_->plan()->seed->is_training());
  slot_->train();
  EXPECT_TRUE(slot_->plan()->seed->is_training());
}

// Ticks.

TEST(SlotLifecycleTickTest, AutoForwardTriesOnlyTheChosenGates) {
  for (int flags = 0; flags < 8; ++flags) {
    SlotLifecycle::Options options;
    options.auto_forward.g1 = flags & 1;
    options.auto_forward.g2 = flags & 2;
    options.auto_forward.g3 = flags & 4;
    const SlotLifecycle lifecycle = MakeLifecycle(options);
    const auto slot = MakeSlot();
    GrowTo(lifecycle, *slot, S::kGerminated);
    const auto epoch = [&] {
      ASSERT_OK(slot->RecordAccuracy(50));
      ASSERT_OK(slot->RecordGradients(HealthyReading()));
      ASSERT_OK(lifecycle.Tick(*slot).status());
    };
    epoch();
    EXPECT_EQ(slot->stage(), flags & 1 ? S::kTraining : S::kGerminated);
    if (slot->stage() == S::kGerminated) {
      ASSERT_OK(lifecycle.Advance(*slot).status());
    }
    for (int i = 0; i < 9; ++i) epoch();
    EXPECT_EQ(slot->stage(), S::kTraining);
    epoch();
    EXPECT_EQ(slot->stage(), flags & 2 ? S::kBlending : S::kTraining);
    if (slot->stage() == S::kTraining) {
      ASSERT_OK(lifecycle.Advance(*slot).status());
    }
    for (int i = 0; i < 5; ++i) epoch();
    EXPECT_EQ(slot->alpha(), 1);
    EXPECT_EQ(slot->stage(), flags & 4 ? S::kHolding : S::kBlending);
  }
}

TEST(SlotLifecycleTickTest, AnAutomaticGateThatStaysShutIsNoFailure) {
  SlotLifecycle::Options options;
  options.auto_forward.g2 = true;
  const SlotLifecycle lifecycle = MakeLifecycle(options);
  const auto slot = MakeSlot();
  GrowTo(lifecycle, *slot, S::kTraining);
  for (int i = 0; i < 12; ++i) ASSERT_OK(slot->RecordAccuracy(50));
  const LifecycleResult result = lifecycle.Tick(*slot);  // Nothing measured.
  EXPECT_TRUE(result.ok());
  EXPECT_FALSE(result.gate()->passed);
  EXPECT_EQ(slot->stage(), S::kTraining);
}

class FailingSynchronizer : public GateSynchronizer {
 public:
  absl::StatusOr<std::optional<GateResult>> Agree(
      const DecisionKey& key, const LocalOutcome& local) override {
    keys.push_back(key);
    outcomes.push_back(local);
    if (fail) return absl::UnavailableError("A rank is gone.");
    return local.verdict;
  }
  bool fail = false;
  std::vector<DecisionKey> keys;
  std::vector<LocalOutcome> outcomes;
};

TEST(SlotLifecycleSynchronizerTest, EveryAdvanceReachesTheSynchronizer) {
  FailingSynchronizer synchronizer;
  SlotLifecycle::Options options;
  options.synchronizer = &synchronizer;
  const SlotLifecycle lifecycle = MakeLifecycle(options);
  const auto slot = MakeSlot();
  EXPECT_FALSE(lifecycle.Advance(*slot).ok());              // No seed.
  EXPECT_FALSE(lifecycle.Advance(*slot, S::kPruned).ok());  // Not a target.
  GrowTo(lifecycle, *slot, S::kGerminated);
  EXPECT_FALSE(lifecycle.Advance(*slot, S::kHolding).ok());  // Illegal.
  EXPECT_TRUE(lifecycle.Advance(*slot).ok());
  EXPECT_FALSE(lifecycle.Advance(*slot).ok());  // Gate.
  const std::vector<DecisionKey>& keys = synchronizer.keys;
  ASSERT_EQ(keys.size(), 6);
  for (size_t i = 0; i < 6; ++i) EXPECT_EQ(keys[i].sequence, i);
  EXPECT_EQ(synchronizer.outcomes[0].refusal, Refusal::kNoSeed);
  EXPECT_THAT(synchronizer.outcomes[1].status, StatusIs(kInvalid));
  EXPECT_EQ(keys[2].decision, Decision::kGerminate);
  EXPECT_EQ(keys[2].generation, 0);
  EXPECT_EQ(synchronizer.outcomes[3].refusal, Refusal::kIllegalTransition);
  EXPECT_NE(keys[3].config_hash, keys[4].config_hash);  // Other targets.
  EXPECT_EQ(keys[4].from, S::kGerminated);
  EXPECT_EQ(keys[4].target, S::kTraining);
  EXPECT_EQ(keys[4].generation, 1);
  EXPECT_EQ(synchronizer.outcomes[4].verdict->level, GateLevel::kG1);
  EXPECT_FALSE(synchronizer.outcomes[5].verdict->passed);

  synchronizer.fail = true;
  const auto plan = slot->plan();
  EXPECT_THAT(lifecycle.Advance(*slot).status(),
              StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_EQ(slot->plan(), plan);
}

// No call changes anything, or says so to an event sink, before ranks agree.
TEST(SlotLifecycleSynchronizerTest, NothingChangesWithoutAgreement) {
  FailingSynchronizer synchronizer;
  Recorder recorder;
  SlotLifecycle::Options options;
  options.synchronizer = &synchronizer;
  options.events = &recorder;
  const SlotLifecycle lifecycle = MakeLifecycle(options);
  const auto slot = MakeSlot();
  const auto refuses = [&](const LifecycleResult& result) {
    return result.status().code() == absl::StatusCode::kUnavailable;
  };
  synchronizer.fail = true;
  EXPECT_TRUE(refuses(lifecycle.Germinate(*slot, Norm())));
  EXPECT_TRUE(slot->empty());
  synchronizer.fail = false;
  GrowTo(lifecycle, *slot, S::kHolding);
  ASSERT_OK(slot->RecordContribution(2));
  EXPECT_EQ(slot->Report()->generation, 1);

  synchronizer.fail = true;
  recorder.names.clear();
  const auto plan = slot->plan();
  const uint64_t parameters = slot->parameter_generation();
  AlphaTargetRequest gate = To(0.5, 3);
  gate.algorithm = AlphaAlgorithm::kGate;
  EXPECT_TRUE(refuses(lifecycle.Advance(*slot)));
  EXPECT_TRUE(refuses(lifecycle.Fossilize(*slot)));
  EXPECT_TRUE(refuses(lifecycle.Tick(*slot)));
  EXPECT_TRUE(refuses(lifecycle.SetAlpha(*slot, 0.5)));
  EXPECT_TRUE(refuses(lifecycle.SetAlphaTarget(*slot, gate)));
  EXPECT_TRUE(refuses(lifecycle.SchedulePrune(*slot, Over(3))));
  EXPECT_TRUE(refuses(lifecycle.Prune(*slot, "governor_nan")));
  EXPECT_EQ(slot->plan(), plan);
  EXPECT_EQ(slot->parameter_generation(), parameters);
  for (const at::Tensor& p : slot->SeedParameters()) {
    EXPECT_TRUE(p.requires_grad());
  }
  EXPECT_EQ(slot->TakeAutoPrune(), std::nullopt);
  EXPECT_TRUE(recorder.names.empty());
}

TEST(SlotLifecycleSynchronizerTest, WhatACallThrowsBecomesItsError) {
  FailingSynchronizer synchronizer;
  SlotLifecycle::Options options;
  options.synchronizer = &synchronizer;
  options.clock = []() -> absl::Time { throw std::runtime_error("no clock"); };
  const SlotLifecycle lifecycle = MakeLifecycle(options);
  const auto slot = MakeSlot();
  EXPECT_THAT(lifecycle.Germinate(*slot, Norm()).status(),
              StatusIs(absl::StatusCode::kInternal));
  ASSERT_EQ(synchronizer.outcomes.size(), 1);
  EXPECT_EQ(synchronizer.outcomes[0].status.message(), "no clock");
}

TEST(SlotLifecycleClockTest, StampsStagesWithTheInjectedClock) {
  absl::Time now = absl::UnixEpoch();
  SlotLifecycle::Options options;
  options.clock = [&] { return now; };
  const SlotLifecycle lifecycle = MakeLifecycle(options);
  const auto slot = MakeSlot();
  now += absl::Seconds(5);
  ASSERT_OK(lifecycle.Germinate(*slot, Norm()).status());
  now += absl::Seconds(5);
  EXPECT_EQ(lifecycle.Advance(*slot).gate()->at,
            absl::UnixEpoch() + absl::Seconds(10));
}

}  // namespace
}  // namespace esper::slot
