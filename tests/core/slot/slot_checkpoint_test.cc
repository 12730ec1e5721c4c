#include "core/slot/slot_checkpoint.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/mean.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/sin.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/error.h"
#include "core/slot/force_alpha.h"
#include "core/slot/replay_guard.h"
#include "core/slot/slot_checkpoint_codec.h"
#include "core/slot/slot_checkpoint_restore.h"
#include "core/slot/slot_lifecycle.h"
#include "gtest/gtest.h"
#include "tests/core/slot/checkpoint_text.h"
#include "tests/core/slot/test_seeds.h"
#include "tests/testing/log_capture.h"
#include "tests/testing/status_matchers.h"

namespace esper::slot {
namespace {

using ::esper::testing::Flatten;
using ::esper::testing::FullRecord;
using ::esper::testing::GrowTo;
using ::esper::testing::HealthyReading;
using ::esper::testing::LogCapture;
using ::esper::testing::MakeLifecycle;
using ::esper::testing::MakeSlot;
using ::esper::testing::Refused;
using ::esper::testing::TestBlueprints;
using S = SeedStage;

at::Tensor Features(Topology topology) {
  const std::vector<int64_t> shape = topology == Topology::kCnn
                                         ? std::vector<int64_t>{2, 4, 3, 3}
                                         : std::vector<int64_t>{2, 9, 4};
  return at::arange(72, at::kFloat).sin().reshape(shape);
}

// Ticks a second with each look.
SlotLifecycle Lifecycle() {
  SlotLifecycle::Options options;
  options.clock = [now = absl::UnixEpoch()]() mutable {
    return now += absl::Milliseconds(1001);
  };
  return MakeLifecycle(options);
}

// Through bytes and back.
SlotCheckpoint Saved(const SeedSlot& slot) {
  return DecodeSlotCheckpoint(EncodeSlotCheckpoint(SaveSlot(slot)).value(),
                              "test")
      .value();
}

// A new slot that holds the same.
std::shared_ptr<SeedSlot> Restored(const SeedSlot& slot) {
  auto restored = MakeSlot(slot.options());
  const absl::Status status =
      LoadSlot(*restored, Saved(slot), TestBlueprints());
  EXPECT_OK(status);
  return restored;
}

// Everything that a report says but the time it was made at.
std::string Text(const std::optional<SlotReport>& report) {
  if (!report) return "empty";
  std::string text = absl::StrCat(
      report->slot_id, " ", report->seed_id, " ", report->blueprint_id, " ",
      report->blueprint_index, " ", report->generation, " ",
      StageName(report->stage), " ", StageName(report->previous_stage), " ",
      report->previous_epochs_in_stage, " ", report->has_gate, report->isolated,
      report->trainable, report->is_healthy, report->is_improving,
      report->needs_attention, " ", report->ste_blocked_steps);
  for (const auto& [key, value] : Flatten(report->metrics)) {
    absl::StrAppend(&text, " ", key, "=", value);
  }
  for (const auto& [key, value] : Flatten(report->telemetry.alpha)) {
    absl::StrAppend(&text, " ", key, "=", value);
  }
  for (const double feature : report->telemetry.Features()) {
    absl::StrAppend(&text, " ", feature);
  }
  return text;
}

// Bitwise equality of everything that can be seen of two slots.
void ExpectSame(const SeedSlot& a, const SeedSlot& b) {
  EXPECT_EQ(Text(a.Report()), Text(b.Report()));
  const SlotCheckpoint in_a = SaveSlot(a), in_b = SaveSlot(b);
  EXPECT_EQ(Flatten(in_a.record), Flatten(in_b.record));
  ASSERT_EQ(in_a.tensors.size(), in_b.tensors.size());
  for (size_t i = 0; i < in_a.tensors.size(); ++i) {
    EXPECT_EQ(in_a.tensors[i].first, in_b.tensors[i].first);
    EXPECT_TRUE(in_a.tensors[i].second.equal(in_b.tensors[i].second));
  }
  const auto parameters_a = a.SeedParameters(),
             parameters_b = b.SeedParameters();
  ASSERT_EQ(parameters_a.size(), parameters_b.size());
  for (size_t i = 0; i < parameters_a.size(); ++i) {
    EXPECT_EQ(parameters_a[i].requires_grad(), parameters_b[i].requires_grad());
  }
  const auto run = [](const SeedSlot& slot) {
    const at::Tensor host =
        Features(slot.options().topology).detach().requires_grad_();
    const at::Tensor out = slot.forward(host);
    std::vector<at::Tensor> results = {out.detach().clone()};
    for (at::Tensor& p : slot.SeedParameters()) {
      p.mutable_grad() = at::Tensor();
    }
    out.pow(2).sum().backward();
    results.push_back(host.grad());
    for (const at::Tensor& p : slot.SeedParameters()) {
      if (p.grad().defined()) results.push_back(p.grad().clone());
    }
    return results;
  };
  const auto results_a = run(a), results_b = run(b);
  ASSERT_EQ(results_a.size(), results_b.size());
  for (size_t i = 0; i < results_a.size(); ++i) {
    EXPECT_TRUE(results_a[i].equal(results_b[i])) << i;
  }
}

// One step of gradient descent on the seed, whatever its stage.
void Train(const SeedSlot& slot) {
  std::vector<at::Tensor> parameters = slot.SeedParameters();
  for (at::Tensor& p : parameters) p.mutable_grad() = at::Tensor();
  const at::Tensor out = slot.forward(Features(slot.options().topology));
  if (!out.requires_grad()) return;
  out.pow(2).mean().backward();
  const at::NoGradGuard no_grad;
  for (at::Tensor& p : parameters) {
    if (p.grad().defined()) p.sub_(p.grad(), 0.1);
  }
}

// What a slot can be in: a stage, or BLENDING on the way out.
struct Situation {
  S stage;
  bool leaving = false;
};

class RestoreTest
    : public ::testing::TestWithParam<std::tuple<Topology, AlphaAlgorithm>> {
 protected:
  Topology topology() const { return std::get<0>(GetParam()); }
  AlphaAlgorithm algorithm() const { return std::get<1>(GetParam()); }

  GerminateRequest Request() const {
    GerminateRequest request;
    request.blueprint_id = "norm";
    request.seed_id = "a seed";
    request.algorithm = algorithm();
    request.blend_id =
        algorithm() == AlphaAlgorithm::kGate ? "gated" : "linear";
    request.tempo = 4;
    request.values = {{"scale", 2}};
    return request;
  }

  std::shared_ptr<SeedSlot> Grown(const Situation& situation) {
    auto slot = MakeSlot(topology());
    const bool failed = IsFailureStage(situation.stage);
    GrowTo(lifecycle_, *slot, failed ? S::kHolding : situation.stage,
           Request());
    if (situation.stage == S::kBlending) {
      EXPECT_OK(lifecycle_.Tick(*slot).status());
      EXPECT_OK(lifecycle_.Tick(*slot).status());
    }
    if (situation.leaving) {
      EXPECT_OK(lifecycle_.SetAlpha(*slot, 0.8).status());
      while (slot->Report()->telemetry.time_to_target > 0) {
        EXPECT_OK(lifecycle_.Tick(*slot).status());
      }
      PruneRequest prune;
      prune.steps = 3;
      prune.reason = "governor_nan";
      prune.initiator = "governor";
      EXPECT_OK(lifecycle_.SchedulePrune(*slot, prune).status());
      EXPECT_OK(lifecycle_.Tick(*slot).status());
    }
    EXPECT_TRUE(failed || slot->RecordContribution(1.5).ok());
    EXPECT_OK(slot->RecordInteractions({1, 2, 3, 4}));
    EXPECT_OK(slot->SyncTelemetry(7, 30));
    if (failed) {
      EXPECT_OK(lifecycle_.Prune(*slot, "governor_rollback").status());
      while (slot->stage() != situation.stage) {
        EXPECT_OK(lifecycle_.Tick(*slot).status());
      }
    }
    return slot;
  }

  const SlotLifecycle lifecycle_ = Lifecycle();
};

constexpr Situation kSituations[] = {
    {S::kGerminated},     {S::kTraining},  {S::kBlending},
    {S::kBlending, true}, {S::kHolding},   {S::kFossilized},
    {S::kPruned},         {S::kEmbargoed}, {S::kResetting}};

TEST_P(RestoreTest, AnEmptySlotBecomesTheSavedOneInEveryStage) {
  for (const Situation& situation : kSituations) {
    SCOPED_TRACE(absl::StrCat(StageName(situation.stage), situation.leaving));
    const auto slot = Grown(situation);
    EXPECT_EQ(slot->stage(), situation.stage);
    const auto restored = Restored(*slot);
    ExpectSame(*slot, *restored);
    EXPECT_EQ(restored->alpha(), slot->alpha());
    const bool frozen = situation.leaving;
    for (const at::Tensor& p : restored->SeedParameters()) {
      EXPECT_EQ(p.requires_grad(), !frozen);
    }
  }
}

TEST_P(RestoreTest, BothLiveOnAlike) {
  for (const Situation& situation : kSituations) {
    SCOPED_TRACE(absl::StrCat(StageName(situation.stage), situation.leaving));
    const auto slot = Grown(situation);
    const auto restored = Restored(*slot);
    const auto live_on = [](SeedSlot& s) {
      const SlotLifecycle lifecycle = Lifecycle();
      for (int epoch = 0; epoch < 14; ++epoch) {
        Train(s);
        s.RecordAccuracy(60 + epoch).IgnoreError();
        s.RecordGradients(HealthyReading()).IgnoreError();
        // Advances where it can; a refusal is the same for both.
        (void)lifecycle.Advance(s);
        if (!lifecycle.Tick(s).ok()) return;
      }
      if (s.empty()) {
        GerminateRequest request;
        request.blueprint_id = "norm";
        EXPECT_OK(lifecycle.Germinate(s, request).status());
      }
    };
    live_on(*slot);
    live_on(*restored);
    ExpectSame(*slot, *restored);  // Initial parameters of a new seed as well.
    EXPECT_EQ(slot->TakeAutoPrune(), restored->TakeAutoPrune());
  }
}

INSTANTIATE_TEST_SUITE_P(
    AllKinds, RestoreTest,
    ::testing::Combine(
        ::testing::Values(Topology::kCnn, Topology::kTransformer),
        ::testing::Values(AlphaAlgorithm::kAdd, AlphaAlgorithm::kMultiply,
                          AlphaAlgorithm::kGate)),
    [](const auto& info) {
      return absl::StrCat(TopologyName(std::get<0>(info.param)), "_",
                          AlphaAlgorithmName(std::get<1>(info.param)));
    });

class SlotCheckpointTest : public ::testing::Test {
 protected:
  const SlotLifecycle lifecycle_ = Lifecycle();
  const std::shared_ptr<SeedSlot> slot_ = MakeSlot();
};

// The field table drives it: nothing that a record has can be forgotten on the
// way file, slot, report, file.
TEST_F(SlotCheckpointTest, EveryFieldReachesTheSlotAndComesBack) {
  SlotRecord record = FullRecord();
  record.channels = 4;
  record.dtype = "Float";
  record.seed->blueprint_id = "norm";
  record.seed->blueprint_options = {{"scale", 3}};
  SeedSlot::Options options;
  options.slot_id = record.slot_id;
  options.topology = record.topology;
  options.channels = record.channels;
  GerminateRequest request;
  request.blueprint_id = "norm";
  request.algorithm = AlphaAlgorithm::kGate;
  request.blend_id = "gated";
  const auto donor = MakeSlot(options);
  GrowTo(lifecycle_, *donor, S::kHolding, request);
  const SlotCheckpoint of_donor = SaveSlot(*donor);
  record.seed->trainable = of_donor.record.seed->trainable;
  record.seed->trainable["seed.bias"] = false;

  const std::string bytes =
      EncodeSlotCheckpoint({record, of_donor.tensors}).value();
  const auto slot = MakeSlot(options);
  ASSERT_OK(LoadSlot(*slot, DecodeSlotCheckpoint(bytes, "test").value(),
                     TestBlueprints()));
  EXPECT_EQ(Flatten(slot->Report()->metrics), Flatten(record.seed->metrics));
  EXPECT_NE(slot->Report()->metrics.contribution_velocity, 0);
  EXPECT_EQ(Flatten(SaveSlot(*slot).record), Flatten(record));
  EXPECT_EQ(EncodeSlotCheckpoint(SaveSlot(*slot)).value(), bytes);
}

TEST_F(SlotCheckpointTest, AnEmptyRecordEmptiesTheSlot) {
  const SlotCheckpoint empty = Saved(*slot_);
  EXPECT_TRUE(empty.tensors.empty());
  GrowTo(lifecycle_, *slot_, S::kBlending);
  const uint64_t generation = slot_->parameter_generation();
  ASSERT_OK(LoadSlot(*slot_, empty, TestBlueprints()));
  EXPECT_TRUE(slot_->empty());
  EXPECT_TRUE(slot_->SeedParameters().empty());
  EXPECT_GT(slot_->parameter_generation(), generation);
  const at::Tensor host = Features(Topology::kCnn);
  EXPECT_TRUE(slot_->forward(host).is_same(host));
}

TEST_F(SlotCheckpointTest, ALiveSeedIsReplaced) {
  GrowTo(lifecycle_, *slot_, S::kTraining);
  const auto other = MakeSlot();
  GrowTo(Lifecycle(), *other, S::kHolding);
  const uint64_t generation = slot_->parameter_generation();
  ASSERT_OK(LoadSlot(*slot_, Saved(*other), TestBlueprints()));
  ExpectSame(*slot_, *other);
  EXPECT_NE(slot_->parameter_generation(), generation);
}

TEST_F(SlotCheckpointTest, LaterTrainingDoesNotShowInIt) {
  GrowTo(lifecycle_, *slot_, S::kHolding);
  const SlotCheckpoint checkpoint = SaveSlot(*slot_);
  const at::Tensor before = checkpoint.tensors[0].second.clone();
  {
    const at::NoGradGuard no_grad;
    for (at::Tensor& p : slot_->SeedParameters()) p.add_(1);
  }
  EXPECT_TRUE(checkpoint.tensors[0].second.equal(before));
  EXPECT_FALSE(checkpoint.tensors[0].second.requires_grad());
}

TEST_F(SlotCheckpointTest, AForcedAlphaDoesNotShowInIt) {
  GrowTo(lifecycle_, *slot_, S::kHolding);
  const std::string before = EncodeSlotCheckpoint(SaveSlot(*slot_)).value();
  slot_->eval();
  const auto scope = ForceAlpha(*slot_, 0.25);
  ASSERT_OK(scope.status());
  EXPECT_EQ(EncodeSlotCheckpoint(SaveSlot(*slot_)).value(), before);
}

TEST_F(SlotCheckpointTest, GraphsCapturedBeforeALoadAreStale) {
  GrowTo(lifecycle_, *slot_, S::kHolding);
  const ReplayGuard guard({slot_});
  ASSERT_OK(guard.CheckReplay());
  ASSERT_OK(LoadSlot(*slot_, Saved(*slot_), TestBlueprints()));
  EXPECT_THAT(guard.CheckReplay(),
              Refused(absl::StatusCode::kFailedPrecondition, "STALE_CAPTURE"));
}

TEST_F(SlotCheckpointTest, TheTrainableMaskOutlivesARampDown) {
  GrowTo(lifecycle_, *slot_, S::kHolding);
  slot_->SeedParameters()[1].set_requires_grad(false);
  AlphaTargetRequest down;
  down.target = 0.5;
  down.steps = 2;
  ASSERT_OK(lifecycle_.SetAlphaTarget(*slot_, down).status());
  const auto restored = Restored(*slot_);
  const auto mask = [](const SeedSlot& slot) {
    std::string text;
    for (const at::Tensor& p : slot.SeedParameters()) {
      text += p.requires_grad() ? 'T' : 'f';
    }
    return text;
  };
  EXPECT_EQ(mask(*restored), "fff");
  for (int tick = 0; tick < 2; ++tick) {
    ASSERT_OK(lifecycle_.Tick(*restored).status());
  }
  EXPECT_EQ(mask(*restored), "TfT");
}

TEST_F(SlotCheckpointTest, TheTrainingModeIsTheSlots) {
  GrowTo(lifecycle_, *slot_, S::kHolding);
  const auto restored = MakeSlot();
  restored->eval();
  ASSERT_OK(LoadSlot(*restored, Saved(*slot_), TestBlueprints()));
  EXPECT_FALSE(restored->plan()->seed->is_training());
}

TEST_F(SlotCheckpointTest, AFrozenSeedWarnsAgainAndGoesOnCounting) {
  GrowTo(lifecycle_, *slot_, S::kTraining);
  for (at::Tensor& p : slot_->SeedParameters()) p.set_requires_grad(false);
  const LogCapture log;
  const at::Tensor host = Features(Topology::kCnn);
  for (int step = 0; step < 100; ++step) slot_->forward(host);
  EXPECT_EQ(log.Lines("warning").size(), 1);
  const auto restored = Restored(*slot_);
  EXPECT_EQ(restored->Report()->ste_blocked_steps, 100);
  EXPECT_FALSE(restored->Report()->trainable);
  for (int step = 0; step < 10; ++step) restored->forward(host);
  EXPECT_EQ(log.Lines("warning").size(), 2);
  EXPECT_EQ(restored->Report()->ste_blocked_steps, 110);
}

TEST_F(SlotCheckpointTest, ASwitchedOperatorKeepsItsGate) {
  GrowTo(lifecycle_, *slot_, S::kHolding);
  AlphaTargetRequest request;
  request.target = 0.6;
  request.steps = 7;
  request.algorithm = AlphaAlgorithm::kGate;
  ASSERT_OK(lifecycle_.SetAlphaTarget(*slot_, request).status());
  const auto restored = Restored(*slot_);
  ExpectSame(*slot_, *restored);
  EXPECT_EQ(restored->plan()->gate->total_steps(), 7);
}

TEST_F(SlotCheckpointTest, NetworksAreRebuiltByTheRecordedProfile) {
  std::vector<InitProfile> profiles;
  const Blueprint* norm = TestBlueprints().Find(Topology::kCnn, "norm").value();
  Blueprint spy = *norm;
  spy.create = [&](const SeedModuleOptions& options) {
    profiles.push_back(options.init_profile);
    return norm->create(options);
  };
  const BlueprintRegistry registry = BlueprintRegistry::Create({spy}).value();
  SeedSlot::Options options = slot_->options();
  options.init_profile = InitProfile::kUpstream;
  const auto upstream = MakeSlot(options);
  GrowTo(lifecycle_, *upstream, S::kHolding);
  ASSERT_OK(LoadSlot(*slot_, Saved(*upstream), registry));
  EXPECT_EQ(profiles, std::vector<InitProfile>{InitProfile::kUpstream});
  EXPECT_EQ(SaveSlot(*slot_).record.seed->init_profile, InitProfile::kUpstream);
}

// A load that fails changes nothing: not the slot, not a generator.
class FailedLoadTest : public SlotCheckpointTest {
 protected:
  FailedLoadTest() {
    GerminateRequest request;
    request.blueprint_id = "norm";
    request.algorithm = AlphaAlgorithm::kGate;
    request.blend_id = "gated";
    GrowTo(lifecycle_, *slot_, S::kHolding, request);
    good_ = SaveSlot(*slot_);
  }

  void ExpectRefused(const SlotCheckpoint& checkpoint, absl::StatusCode code,
                     const char* reason, const std::string& name) {
    SCOPED_TRACE(name);
    for (const std::shared_ptr<SeedSlot>& slot : {slot_, MakeSlot()}) {
      const auto plan = slot->plan();
      const auto state = at::detail::getDefaultCPUGenerator().get_state();
      const uint64_t generation = slot->parameter_generation();
      const std::string report = Text(slot->Report());
      const std::string bytes = EncodeSlotCheckpoint(SaveSlot(*slot)).value();
      const absl::Status status = LoadSlot(*slot, checkpoint, TestBlueprints());
      EXPECT_THAT(status, Refused(code, reason));
      const ErrorDetail detail = DetailOf(status).value_or(ErrorDetail());
      EXPECT_TRUE(detail.field == name || detail.tensor == name) << status;
      EXPECT_EQ(slot->plan(), plan);
      EXPECT_EQ(slot->parameter_generation(), generation);
      EXPECT_EQ(Text(slot->Report()), report);
      EXPECT_EQ(EncodeSlotCheckpoint(SaveSlot(*slot)).value(), bytes);
      EXPECT_TRUE(
          at::detail::getDefaultCPUGenerator().get_state().equal(state));
    }
  }
  void ExpectCorrupt(const SlotCheckpoint& checkpoint,
                     const std::string& name) {
    ExpectRefused(checkpoint, absl::StatusCode::kDataLoss, "CORRUPT_CHECKPOINT",
                  name);
  }
  void ExpectMismatch(const SlotCheckpoint& checkpoint,
                      const std::string& name) {
    ExpectRefused(checkpoint, absl::StatusCode::kFailedPrecondition,
                  "SPEC_MISMATCH", name);
  }

  SlotCheckpoint good_;
};

TEST_F(FailedLoadTest, TensorsMustBeExactlyThoseOfTheNetworks) {
  for (size_t i = 0; i < good_.tensors.size(); ++i) {
    const std::string name = good_.tensors[i].first;
    SlotCheckpoint bad = good_;
    bad.tensors.erase(bad.tensors.begin() + i);
    ExpectCorrupt(bad, name);
    bad = good_;
    bad.tensors[i].second = at::ones({7});
    ExpectCorrupt(bad, name);
    bad = good_;
    bad.tensors[i].second = bad.tensors[i].second.to(at::kDouble);
    ExpectCorrupt(bad, name);
    bad = good_;
    bad.tensors.push_back(bad.tensors[i]);
    ExpectCorrupt(bad, name);
    bad = good_;
    bad.tensors[i].second = at::Tensor();
    ExpectCorrupt(bad, name);
  }
  SlotCheckpoint bad = good_;
  bad.tensors.emplace_back("seed.more", at::ones({1}));
  ExpectCorrupt(bad, "seed.more");
  bad.record.seed = std::nullopt;
  bad.record.gate = std::nullopt;
  ExpectCorrupt(bad, bad.tensors[0].first);
}

TEST_F(FailedLoadTest, TheMaskMustCoverTheParameters) {
  SlotCheckpoint bad = good_;
  bad.record.seed->trainable.erase("seed.weight");
  ExpectCorrupt(bad, "seed.trainable.seed.weight");
  bad = good_;
  bad.record.seed->trainable["seed.more"] = true;
  ExpectCorrupt(bad, "seed.trainable.seed.more");
}

TEST_F(FailedLoadTest, GateAndAlgorithmMustAgree) {
  SlotCheckpoint bad = good_;
  bad.record.gate = std::nullopt;
  ExpectCorrupt(bad, "gate");
  bad = good_;
  bad.record.seed->algorithm = AlphaAlgorithm::kAdd;
  bad.record.seed->blend_id = BlendId::kLinear;
  ExpectCorrupt(bad, "gate");
  bad.record.gate = std::nullopt;
  ExpectCorrupt(bad, "gate.gate.0.bias");  // A tensor that is left over.
}

TEST_F(FailedLoadTest, OptionsMustSuitTheBlueprint) {
  SlotCheckpoint bad = good_;
  bad.record.seed->blueprint_options["heads"] = 3;
  ExpectCorrupt(bad, "seed.blueprint_options");
}

TEST_F(FailedLoadTest, TheCheckpointMustBeOfThisSlot) {
  SlotCheckpoint bad = good_;
  bad.record.slot_id = "r0c1";
  ExpectMismatch(bad, "slot_id");
  bad = good_;
  bad.record.topology = Topology::kTransformer;
  ExpectMismatch(bad, "topology");
  bad = good_;
  bad.record.channels = 8;
  ExpectMismatch(bad, "channels");
  bad = good_;
  bad.record.dtype = "Double";
  ExpectMismatch(bad, "dtype");
  bad = good_;
  bad.record.seed->blueprint_id = "unheard_of";
  ExpectMismatch(bad, "seed.blueprint_id");
}

TEST_F(FailedLoadTest, AnotherBlueprintsTensorsDoNotFit) {
  SlotCheckpoint bad = good_;
  bad.record.seed->blueprint_id = "conv";
  ExpectCorrupt(bad, "seed.conv.weight");
}

}  // namespace
}  // namespace esper::slot
