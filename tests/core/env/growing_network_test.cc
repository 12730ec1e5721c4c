#include "core/env/growing_network.h"

#include <ATen/ops/equal.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/env/host_trainer.h"
#include "core/env/report_views.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/core/env/play.h"

namespace esper::env {
namespace {

using slot::SeedStage;

std::unique_ptr<GrowingNetwork> Make(const EpisodeConfig& config) {
  auto network = GrowingNetwork::Create(config);
  EXPECT_TRUE(network.ok()) << network.status();
  return *std::move(network);
}

void Plant(GrowingNetwork& network, int slot, const std::string& blueprint,
           const std::string& seed_id) {
  slot::GerminateRequest request;
  request.blueprint_id = blueprint;
  request.seed_id = seed_id;
  request.blend_id = "linear";
  request.tempo = 1;
  ASSERT_TRUE(network.lifecycle().Germinate(network.slot(slot), request).ok());
}

// One epoch of training, validation, measurement and ageing.
void Epoch(GrowingNetwork& network, int epoch) {
  network.TrainEpoch(epoch);
  const auto measured = network.Validate();
  ASSERT_TRUE(measured.ok()) << measured.status();
  ASSERT_TRUE(network.RecordEpoch(*measured, epoch).ok());
  ASSERT_TRUE(network.Tick().ok());
}

// Plants into `slot` and trains until the seed is in `stage`.
int GrowTo(GrowingNetwork& network, int slot, SeedStage stage, int epoch) {
  while (network.slot(slot).stage() != stage && epoch < 60) {
    const slot::LifecycleResult advanced =
        network.lifecycle().Advance(network.slot(slot));
    EXPECT_TRUE(advanced.ok() || advanced.refused());
    if (network.slot(slot).stage() == stage) break;
    Epoch(network, epoch++);
  }
  EXPECT_EQ(network.slot(slot).stage(), stage);
  return epoch;
}

std::vector<at::Tensor> Copies(const std::vector<at::Tensor>& tensors) {
  std::vector<at::Tensor> copies;
  for (const at::Tensor& tensor : tensors) {
    copies.push_back(tensor.detach().clone());
  }
  return copies;
}

bool AllEqual(const std::vector<at::Tensor>& a,
              const std::vector<at::Tensor>& b) {
  for (size_t i = 0; i < a.size(); ++i) {
    if (!at::equal(a[i].detach(), b[i].detach())) return false;
  }
  return a.size() == b.size();
}

// Copies of what a rollback restores.
std::vector<at::Tensor> State(const GrowingNetwork& network) {
  std::vector<at::Tensor> tensors;
  for (const auto& [name, tensor] : network.GovernedTensors()) {
    tensors.push_back(tensor.detach().clone());
  }
  return tensors;
}

TEST(GrowingNetworkTest, StartsFromItsSeedAlone) {
  const EpisodeConfig seven = SmallConfig(7, 30);
  const EpisodeConfig eight = SmallConfig(8, 30);
  auto a = Make(seven);
  auto b = Make(seven);
  auto c = Make(eight);
  // Training of others in between changes nothing.
  c->TrainEpoch(1);
  a->TrainEpoch(1);
  b->TrainEpoch(1);
  const Dataset& test = *seven.task->test;
  EXPECT_TRUE(AllEqual(State(*a), State(*b)));
  EXPECT_FALSE(AllEqual(State(*a), State(*c)));
  EXPECT_EQ(a->Accuracy(test), b->Accuracy(test));

  Plant(*a, 0, "conv_small", "seed0");
  Plant(*b, 0, "conv_small", "seed0");
  Plant(*c, 0, "conv_small", "seed0");
  EXPECT_TRUE(
      AllEqual(a->slot(0).SeedParameters(), b->slot(0).SeedParameters()));
  EXPECT_FALSE(
      AllEqual(a->slot(0).SeedParameters(), c->slot(0).SeedParameters()));
}

TEST(GrowingNetworkTest, CountsParameters) {
  const EpisodeConfig config = SmallConfig(7, 30);
  auto network = Make(config);
  EXPECT_EQ(network->total_parameters(), network->host_parameters());
  EXPECT_EQ(network->SlotParameters(1), 0);
  Plant(*network, 1, "conv_light", "seed0");
  EXPECT_EQ(network->SlotParameters(1), 9 * 16 * 16 + 2 * 16);
  EXPECT_EQ(network->total_parameters(),
            network->host_parameters() + network->SlotParameters(1));
  EXPECT_EQ(network->live_seeds(), 1);
}

TEST(GrowingNetworkTest, ValidationLeavesNoTrace) {
  const EpisodeConfig config = SmallConfig(7, 30);
  auto network = Make(config);
  network->TrainEpoch(1);
  const std::vector<at::Tensor> before = State(*network);
  const auto first = network->Validate();
  network->AccuracyWithoutSeeds(*config.task->test);
  const auto second = network->Validate();
  ASSERT_TRUE(first.ok() && second.ok());
  EXPECT_EQ(first->val_loss, second->val_loss);
  EXPECT_EQ(first->val_accuracy, second->val_accuracy);
  EXPECT_TRUE(AllEqual(before, State(*network)));
}

// Five seeds are too many for the whole lattice.
TEST(GrowingNetworkTest, SamplesShapleyValuesInTheLastEpoch) {
  EpisodeConfig config = SmallConfig(7, 60);
  auto task = std::make_shared<Task>(*config.task);
  task->slot_ids = {"r0c0", "r0c1", "r0c2", "r1c0", "r1c1"};
  config.task = task;
  auto network = Make(config);
  for (int slot = 0; slot < 5; ++slot) {
    Plant(*network, slot, "conv_light", absl::StrCat("seed", slot));
  }
  for (int epoch = 1; epoch < 30; ++epoch) {
    for (int slot = 0; slot < 5; ++slot) {
      if (network->slot(slot).stage() == SeedStage::kHolding) continue;
      const auto advanced = network->lifecycle().Advance(network->slot(slot));
      ASSERT_TRUE(advanced.ok() || advanced.refused());
    }
    Epoch(*network, epoch);
  }
  const auto between = network->Validate();
  const auto last = network->Validate(/*last_epoch=*/true);
  const auto again = network->Validate(/*last_epoch=*/true);
  ASSERT_TRUE(between.ok() && last.ok() && again.ok());
  ASSERT_EQ(last->slots.size(), 5);
  double sum = 0;
  for (size_t i = 0; i < 5; ++i) {
    EXPECT_FALSE(between->slots[i].shapley.has_value());
    ASSERT_TRUE(last->slots[i].shapley.has_value());
    EXPECT_TRUE(last->slots[i].shapley_standard_error.has_value());
    EXPECT_EQ(last->slots[i].shapley, again->slots[i].shapley);
    // What is rewarded is measured alike in every epoch.
    EXPECT_EQ(last->slots[i].contribution, between->slots[i].contribution);
    sum += *last->slots[i].shapley;
  }
  EXPECT_NEAR(sum, last->val_accuracy - *last->all_off_accuracy, 1e-9);
  const std::vector<SlotSnapshot> snapshots =
      ToSnapshots(network->Reports(), task->slot_ids, *last);
  EXPECT_EQ(snapshots[3].shapley, last->slots[3].shapley);
}

TEST(GrowingNetworkTest, AccuracyWithoutSeedsIsThatOfTheBareHost) {
  EpisodeConfig config = SmallConfig(7, 60);
  auto network = Make(config);
  Plant(*network, 0, "conv_light", "seed0");
  GrowTo(*network, 0, SeedStage::kHolding, 1);
  const Dataset& test = *config.task->test;
  const double without = network->AccuracyWithoutSeeds(test);
  const auto measured = network->Validate();
  ASSERT_TRUE(measured.ok());
  ASSERT_TRUE(measured->all_off_accuracy.has_value());
  EXPECT_EQ(network->RewardAccuracyWithoutSeeds(), *measured->all_off_accuracy);
  ASSERT_TRUE(network->lifecycle()
                  .Prune(network->slot(0), "policy_prune", "policy")
                  .ok());
  EXPECT_EQ(network->Accuracy(test), without);
}

TEST(GrowingNetworkTest, RollbackRestoresTheHostAndRemovesLiveSeeds) {
  EpisodeConfig config = SmallConfig(7, 60);
  auto network = Make(config);
  Plant(*network, 0, "conv_small", "seed0");
  int epoch = GrowTo(*network, 0, SeedStage::kHolding, 1);
  Epoch(*network, epoch++);
  ASSERT_TRUE(network->lifecycle().Fossilize(network->slot(0)).ok());
  Plant(*network, 1, "norm", "seed1");
  Epoch(*network, epoch++);
  ASSERT_TRUE(network->SaveSnapshot().ok());
  const std::vector<at::Tensor> saved = State(*network);

  Epoch(*network, epoch++);
  EXPECT_FALSE(AllEqual(saved, State(*network)));
  ASSERT_TRUE(network->Rollback(PanicReason::kDivergence).ok());
  EXPECT_TRUE(AllEqual(saved, State(*network)));
  EXPECT_EQ(network->slot(0).stage(), SeedStage::kFossilized);
  EXPECT_EQ(network->slot(1).stage(), SeedStage::kPruned);
  EXPECT_EQ(network->slot(1).TakeAutoPrune().value_or(""),
            "governor_divergence");
  // Momentum is gone; the fossil trains on with the host.
  for (const at::Tensor& p : network->slot(0).SeedParameters()) {
    EXPECT_FALSE(network->trainer().Momentum(p).defined());
  }
  network->TrainEpoch(epoch);
  EXPECT_FALSE(AllEqual(saved, State(*network)));
}

TEST(HostTrainerTest, AFossilJoinsTheHostAndKeepsItsMomentum) {
  EpisodeConfig config = SmallConfig(7, 60);
  auto network = Make(config);
  Plant(*network, 0, "conv_small", "seed0");
  int epoch = GrowTo(*network, 0, SeedStage::kHolding, 1);
  Epoch(*network, epoch++);
  const std::vector<at::Tensor> parameters = network->slot(0).SeedParameters();
  std::vector<at::Tensor> momenta;
  for (const at::Tensor& p : parameters) {
    momenta.push_back(network->trainer().Momentum(p).clone());
    EXPECT_GT(momenta.back().abs().sum().item<double>(), 0);
  }
  ASSERT_TRUE(network->lifecycle().Fossilize(network->slot(0)).ok());

  // The same network without momentum would move elsewhere.
  const std::vector<at::Tensor> before = Copies(parameters);
  network->trainer().SyncOptimizers();
  for (size_t i = 0; i < parameters.size(); ++i) {
    EXPECT_TRUE(
        at::equal(momenta[i], network->trainer().Momentum(parameters[i])));
  }
  network->TrainEpoch(epoch);
  EXPECT_FALSE(AllEqual(before, parameters));
}

TEST(HostTrainerTest, AFrozenFossilStaysAsItIs) {
  EpisodeConfig config = SmallConfig(7, 60);
  config.trainer.fossil = TrainerOptions::Fossil::kFrozen;
  auto network = Make(config);
  Plant(*network, 0, "conv_small", "seed0");
  int epoch = GrowTo(*network, 0, SeedStage::kHolding, 1);
  Epoch(*network, epoch++);
  ASSERT_TRUE(network->lifecycle().Fossilize(network->slot(0)).ok());
  const std::vector<at::Tensor> before =
      Copies(network->slot(0).SeedParameters());
  network->TrainEpoch(epoch);
  EXPECT_TRUE(AllEqual(before, network->slot(0).SeedParameters()));
}

TEST(HostTrainerTest, AFossilWithItsOwnOptimizerStartsAnew) {
  EpisodeConfig config = SmallConfig(7, 60);
  config.trainer.fossil = TrainerOptions::Fossil::kOwnOptimizer;
  auto network = Make(config);
  Plant(*network, 0, "conv_small", "seed0");
  int epoch = GrowTo(*network, 0, SeedStage::kHolding, 1);
  Epoch(*network, epoch++);
  const std::vector<at::Tensor> parameters = network->slot(0).SeedParameters();
  EXPECT_TRUE(network->trainer().Momentum(parameters[0]).defined());
  ASSERT_TRUE(network->lifecycle().Fossilize(network->slot(0)).ok());
  network->trainer().SyncOptimizers();
  for (const at::Tensor& p : parameters) {
    EXPECT_FALSE(network->trainer().Momentum(p).defined());
  }
  const std::vector<at::Tensor> before = Copies(parameters);
  network->TrainEpoch(epoch++);
  EXPECT_FALSE(AllEqual(before, parameters));
  // Only once: its momentum stays from then on.
  const at::Tensor momentum =
      network->trainer().Momentum(parameters[0]).clone();
  network->trainer().SyncOptimizers();
  EXPECT_TRUE(at::equal(momentum, network->trainer().Momentum(parameters[0])));
}

TEST(GrowingNetworkTest, SeedsStartAsTheProfileSays) {
  const auto silent = [](slot::InitProfile profile) {
    EpisodeConfig config = SmallConfig(7, 5);
    config.init_profile = profile;
    auto network = Make(config);
    Plant(*network, 0, "conv_small", "seed0");
    // Upstream starts its convolution at zero.
    bool any = false;
    for (const at::Tensor& p : network->slot(0).SeedParameters()) {
      any |= p.dim() == 4 && p.abs().sum().item<double>() == 0;
    }
    return any;
  };
  EXPECT_FALSE(silent(slot::InitProfile::kLive));
  EXPECT_TRUE(silent(slot::InitProfile::kUpstream));
}

TEST(HostTrainerTest, TrainsAGateThatAppearsInMidBlend) {
  EpisodeConfig config = SmallConfig(7, 60);
  auto network = Make(config);
  Plant(*network, 0, "conv_small", "seed0");
  int epoch = GrowTo(*network, 0, SeedStage::kHolding, 1);
  Epoch(*network, epoch++);
  const size_t bare = network->slot(0).SeedParameters().size();
  slot::AlphaTargetRequest request;
  request.target = 0.7;
  request.algorithm = slot::AlphaAlgorithm::kGate;
  ASSERT_TRUE(
      network->lifecycle().SetAlphaTarget(network->slot(0), request).ok());
  const std::vector<at::Tensor> all = network->slot(0).SeedParameters();
  ASSERT_GT(all.size(), bare);
  const std::vector<at::Tensor> seed(all.begin(), all.begin() + bare);
  const std::vector<at::Tensor> gate(all.begin() + bare, all.end());
  std::vector<at::Tensor> momenta;
  for (const at::Tensor& p : seed) {
    momenta.push_back(network->trainer().Momentum(p).clone());
  }
  network->trainer().SyncOptimizers();
  for (size_t i = 0; i < seed.size(); ++i) {
    EXPECT_TRUE(at::equal(momenta[i], network->trainer().Momentum(seed[i])));
  }
  const std::vector<at::Tensor> before = Copies(gate);
  network->TrainEpoch(epoch++);
  network->TrainEpoch(epoch);
  EXPECT_FALSE(AllEqual(before, gate));
}

TEST(HostTrainerTest, ASeedThatOnlyGerminatedIsNotTrained) {
  EpisodeConfig config = SmallConfig(7, 60);
  auto network = Make(config);
  Plant(*network, 2, "conv_light", "seed0");
  const std::vector<at::Tensor> before =
      Copies(network->slot(2).SeedParameters());
  network->TrainEpoch(1);
  EXPECT_TRUE(AllEqual(before, network->slot(2).SeedParameters()));
  ASSERT_TRUE(network->lifecycle().Advance(network->slot(2)).ok());
  network->TrainEpoch(2);
  EXPECT_FALSE(AllEqual(before, network->slot(2).SeedParameters()));
}

TEST(HostTrainerTest, MeasuresGradientsInEveryEpochWhateverTheStride) {
  EpisodeConfig config = SmallConfig(7, 60);
  config.trainer.gradient_stride = 1000;
  auto network = Make(config);
  Plant(*network, 1, "norm", "seed0");
  Epoch(*network, 1);
  EXPECT_FALSE(network->slot(1).Report()->telemetry.gradient_health);
  ASSERT_TRUE(network->lifecycle().Advance(network->slot(1)).ok());
  Epoch(*network, 2);
  EXPECT_TRUE(network->slot(1).Report()->telemetry.gradient_health);
  EXPECT_TRUE(network->slot(1).Report()->metrics.gradient_ratio);
}

}  // namespace
}  // namespace esper::env
