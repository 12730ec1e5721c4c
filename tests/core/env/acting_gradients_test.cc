// Acting leaves no trace in training: neither in a gradient, nor in a weight,
// nor by way of the process's random numbers.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <array>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "core/env/action_executor.h"
#include "core/env/episode_observer.h"
#include "core/env/growing_network.h"
#include "core/env/report_views.h"
#include "core/error.h"
#include "core/host/cnn_blueprints.h"
#include "core/host/growable_model.h"
#include "core/host/host.h"
#include "core/policy/action_mask.h"
#include "core/policy/actions.h"
#include "core/policy/inference_policy.h"
#include "core/policy/observation.h"
#include "core/policy/recurrent_policy.h"
#include "core/slot/slot_lifecycle.h"
#include "gtest/gtest.h"
#include "tests/core/env/play.h"
#include "tests/core/policy/test_specs.h"
#include "tests/core/slot/plain_values.h"

// What acting is told and what it answers consist of numbers alone; a member
// that is added has to be added here.
namespace esper::policy {

inline auto Members(const SlotObservation& s) {
  const auto& [stage, blueprint, alpha, contribution, contribution_velocity,
               tempo, target, mode, total, done, to_target, velocity, algorithm,
               interaction, norm, health, vanishing, exploding, in_stage,
               epochs] = s;
  return std::tie(stage, blueprint, alpha, contribution, contribution_velocity,
                  tempo, target, mode, total, done, to_target, velocity,
                  algorithm, interaction, norm, health, vanishing, exploding,
                  in_stage, epochs);
}
inline auto Members(const ActionMask& m) {
  const auto& [num_slots, heads, slot_by_op] = m;
  return std::tie(num_slots, heads, slot_by_op);
}
inline auto Members(const FactoredAction& a) {
  const auto& [slot, blueprint, style, tempo, target, speed, curve, op] = a;
  return std::tie(slot, blueprint, style, tempo, target, speed, curve, op);
}

}  // namespace esper::policy

namespace esper::env {

inline auto Members(const Observation& o) {
  const auto& [epoch, features, blueprints, mask] = o;
  return std::tie(epoch, features, blueprints, mask);
}

namespace {

using ::esper::testing::kIsPlain;
using policy::FactoredAction;

static_assert(kIsPlain<policy::SlotObservations>);
static_assert(kIsPlain<Observation>);
static_assert(kIsPlain<FactoredAction>);

const bool kOneThread = (at::set_num_threads(1), true);

at::Generator ProcessGenerator() {
  return at::detail::getDefaultCPUGenerator();
}

at::Tensor Bits(const std::vector<bool>& bits, at::IntArrayRef shape) {
  at::Tensor tensor = at::empty(bits.size(), at::kBool);
  for (size_t i = 0; i < bits.size(); ++i) tensor.data_ptr<bool>()[i] = bits[i];
  return tensor.reshape(shape);
}

policy::PolicyInputs Inputs(const Observation& seen) {
  const int slots = seen.mask.num_slots;
  policy::PolicyInputs inputs;
  inputs.observations = at::empty({1, int64_t(seen.features.size())});
  std::copy(seen.features.begin(), seen.features.end(),
            inputs.observations.data_ptr<float>());
  inputs.categorical = at::empty({1, slots}, at::kLong);
  std::copy(seen.blueprint_indices.begin(), seen.blueprint_indices.end(),
            inputs.categorical.data_ptr<int64_t>());
  inputs.action_masks = Bits(seen.mask.heads, {1, -1});
  inputs.conditional_mask =
      Bits(seen.mask.slot_by_op, {1, policy::kNumOps, slots});
  return inputs;
}

// An untrained policy that draws from the process's own generator.
class Actor {
 public:
  Actor() {
    const policy::PolicySpec spec = policy::SmallNetworkGrowing(3);
    const policy::RecurrentPolicy module(spec, /*init_seed=*/5);
    policy_ =
        policy::InferencePolicy::Create(spec, module.StateDict(), 1).value();
  }

  FactoredAction Act(const Observation& seen) {
    policy::PolicyInputs inputs = Inputs(seen);
    inputs.state = state_;
    const policy::ActionSample sample =
        policy_->GetAction(inputs, policy::GeneratorNoise{ProcessGenerator()});
    state_ = sample.next_state;
    std::array<int64_t, policy::kNumActionHeads> indices;
    std::copy_n(sample.actions.data_ptr<int64_t>(), indices.size(),
                indices.begin());
    return FactoredAction::FromIndices(indices, seen.mask.num_slots).value();
  }

  const policy::InferencePolicy& policy() const { return *policy_; }

 private:
  std::shared_ptr<const policy::InferencePolicy> policy_;
  policy::RecurrentState state_;
};

// Copies of everything that training moves: weights, statistics, gradients,
// momentum; "host.conv.weight", then "host.conv.weight/grad".
using Footprint = std::map<std::string, at::Tensor>;

Footprint FootprintOf(GrowingNetwork& network) {
  std::map<std::string, at::Tensor> tensors = network.GovernedTensors();
  for (size_t i = 0; i < network.slot_ids().size(); ++i) {
    int index = 0;
    for (const at::Tensor& p : network.slot(i).SeedParameters()) {
      tensors["seed." + network.slot_ids()[i] + "." + std::to_string(index++)] =
          p;
    }
  }
  Footprint copies;
  const auto add = [&copies](const std::string& name,
                             const at::Tensor& tensor) {
    if (tensor.defined()) copies[name] = tensor.detach().clone();
  };
  for (const auto& [name, tensor] : tensors) {
    add(name, tensor);
    add(name + "/grad", tensor.grad());
    add(name + "/momentum", network.trainer().Momentum(tensor));
  }
  return copies;
}

// Name of the first tensor that is not in both, bit by bit; empty if none.
std::string Difference(const Footprint& a, const Footprint& b) {
  for (const auto& [name, tensor] : a) {
    const auto other = b.find(name);
    if (other == b.end() || !at::equal(tensor, other->second)) return name;
  }
  for (const auto& [name, tensor] : b) {
    if (a.count(name) == 0) return name;
  }
  return "";
}

// How many tensors of seeds got a gradient that is not zero.
int SeedGradients(const Footprint& footprint) {
  int count = 0;
  for (const auto& [name, tensor] : footprint) {
    count += name.rfind("seed.", 0) == 0 &&
             name.find("/grad") != std::string::npos &&
             tensor.abs().max().item<float>() > 0;
  }
  return count;
}

struct Life {
  // After training, after the choice, and after the action, in each epoch.
  std::vector<Footprint> footprints;
  std::vector<Observation> seen;
  std::vector<FactoredAction> actions;
  int done = 0;  // Actions that did something.
};

// An episode by hand: trains, measures, observes, asks `choose`, carries the
// choice out, ages the slots.
Life Live(const EpisodeConfig& config,
          const std::function<FactoredAction(const Observation&)>& choose) {
  Life life;
  auto network = GrowingNetwork::Create(config).value();
  EpisodeObserver observer(config);
  for (int epoch = 1; epoch <= config.max_epochs; ++epoch) {
    const TrainingStats training = network->TrainEpoch(epoch);
    life.footprints.push_back(FootprintOf(*network));
    const auto measured = network->Validate().value();
    EXPECT_TRUE(network->RecordEpoch(measured, epoch).ok());
    const SlotReports reports = network->Reports();
    const auto signals =
        observer.Update(epoch, training, measured, reports).value();
    life.seen.push_back(
        observer.Observe(signals, reports, network->live_seeds()).value());

    const FactoredAction action = choose(life.seen.back());
    life.actions.push_back(action);
    life.footprints.push_back(FootprintOf(*network));
    EXPECT_EQ(Difference(life.footprints[life.footprints.size() - 2],
                         life.footprints.back()),
              "");

    ExecutionContext context;
    context.val_loss = measured.val_loss;
    context.val_accuracy = measured.val_accuracy;
    context.live_seeds = network->live_seeds();
    context.seed_id = "seed" + std::to_string(epoch);
    const auto outcome =
        ExecuteAction(action, reports, context, *network).value();
    life.done += outcome.success && action.op != policy::Op::kWait;
    EXPECT_TRUE(
        observer.tracking()
            .FinishStep(outcome.success, action.op, ToObservations(reports))
            .ok());
    EXPECT_TRUE(network->Tick().ok());
    life.footprints.push_back(FootprintOf(*network));
  }
  return life;
}

TEST(ActingGradientsTest, TrainingIsTheSameWithoutTheCallsThatActed) {
  const EpisodeConfig config = SmallConfig(/*seed=*/3, /*max_epochs=*/16);
  Actor actor;
  const at::Tensor before = ProcessGenerator().get_state();
  // What an untrained policy draws hangs on the processor's arithmetic, and
  // most of it prunes: two seeds are planted for certain and none is pruned.
  const Life acted = Live(config, [&](const Observation& seen) {
    FactoredAction action = actor.Act(seen);
    if (seen.epoch <= 2) return Plant(/*slot=*/seen.epoch - 1, "norm");
    if (action.op == policy::Op::kPrune) action.op = policy::Op::kWait;
    return action;
  });
  EXPECT_FALSE(ProcessGenerator().get_state().equal(before)) << "it drew";

  size_t step = 0;
  const Life replayed =
      Live(config, [&](const Observation&) { return acted.actions[step++]; });
  ASSERT_EQ(acted.footprints.size(), replayed.footprints.size());
  int seed_gradients = 0;
  for (size_t i = 0; i < acted.footprints.size(); ++i) {
    SCOPED_TRACE(i);
    EXPECT_EQ(Difference(acted.footprints[i], replayed.footprints[i]), "");
    seed_gradients += SeedGradients(acted.footprints[i]);
  }
  for (size_t i = 0; i < acted.seen.size(); ++i) {
    EXPECT_EQ(acted.seen[i].features, replayed.seen[i].features) << i;
  }
  // It was about something: seeds lived and learnt.
  EXPECT_GT(acted.done, 2);
  EXPECT_GT(seed_gradients, 10);

  // And the comparison can fail: other actions show.
  const Life other = Live(
      config, [](const Observation&) { return Plant(/*slot=*/0, "norm"); });
  EXPECT_NE(Difference(acted.footprints.back(), other.footprints.back()), "");
}

// A host with a seed that trains behind it, and one batch.
class OpenGraphTest : public ::testing::Test {
 protected:
  OpenGraphTest() {
    const Task& task = *DigitsTask();
    model_ =
        host::GrowableModel::Create(task.host.create(11).value(), task.slot_ids)
            .value();
    slot::SlotLifecycle::Options options;
    options.registry = &host::DefaultBlueprints();
    const auto lifecycle = slot::SlotLifecycle::Create(options).value();
    slot::GerminateRequest request;
    request.blueprint_id = "norm";
    slot::SeedSlot& slot = *model_->slots()[1];
    EXPECT_TRUE(lifecycle.Germinate(slot, request).ok());
    EXPECT_TRUE(lifecycle.Advance(slot).ok());
    std::vector<int64_t> rows(32);
    for (int64_t i = 0; i < 32; ++i) rows[i] = i;
    batch_ = task.train->Get(rows);
  }

  std::vector<at::Tensor> Parameters() const {
    std::vector<at::Tensor> all = model_->HostParameters();
    for (const at::Tensor& p : model_->AllSlotParameters()) all.push_back(p);
    return all;
  }

  // Gradients of the loss; `meanwhile` runs while its graph is open.
  std::vector<at::Tensor> Gradients(
      const std::function<void(const at::Tensor& logits)>& meanwhile) {
    model_->zero_grad(/*set_to_none=*/true);
    const at::Tensor logits = model_->Forward(batch_.inputs);
    meanwhile(logits);
    at::cross_entropy_loss(logits, batch_.labels).backward();
    std::vector<at::Tensor> gradients;
    for (const at::Tensor& p : Parameters()) {
      gradients.push_back(p.grad().clone());
    }
    return gradients;
  }

  Observation Observe() const {
    SlotReports reports;
    for (const auto& slot : model_->slots()) {
      if (auto report = slot->Report()) reports[slot->slot_id()] = *report;
    }
    policy::ObservationOptions options;
    options.slot_ids = model_->slot_ids();
    const policy::Observation built =
        policy::BuildObservation(options, {}, ToObservations(reports),
                                 policy::ObservationTracking())
            .value();
    Observation observation;
    observation.features = built.features;
    observation.blueprint_indices = built.blueprint_indices;
    policy::ActionMaskOptions mask_options;
    mask_options.slot_ids = mask_options.enabled_slots = model_->slot_ids();
    observation.mask =
        policy::BuildActionMask(mask_options,
                                ToMaskStates(reports, model_->slot_ids()))
            .value();
    return observation;
  }

  std::shared_ptr<host::GrowableModel> model_;
  Batch batch_;
  Actor actor_;
};

TEST_F(OpenGraphTest, ActingBetweenForwardAndBackwardChangesNoGradient) {
  const auto without = Gradients([](const at::Tensor&) {});
  const auto with =
      Gradients([&](const at::Tensor&) { actor_.Act(Observe()); });
  ASSERT_EQ(without.size(), with.size());
  for (size_t i = 0; i < with.size(); ++i) {
    EXPECT_TRUE(at::equal(without[i], with[i])) << i;
  }
}

TEST_F(OpenGraphTest, ActingRefusesWhatHangsOnTheHostsGraph) {
  const auto expect_refused = [&](const policy::PolicyInputs& inputs,
                                  const std::string& name) {
    const at::Tensor before = ProcessGenerator().get_state();
    try {
      actor_.policy().GetAction(inputs,
                                policy::GeneratorNoise{ProcessGenerator()});
      ADD_FAILURE() << name << " was taken";
    } catch (const GradientContractError& error) {
      EXPECT_EQ(error.reason(), "INFERENCE_ONLY");
      EXPECT_EQ(error.detail().tensor, name);
    }
    EXPECT_TRUE(ProcessGenerator().get_state().equal(before));
  };
  const auto without = Gradients([](const at::Tensor&) {});
  const auto with = Gradients([&](const at::Tensor& logits) {
    const at::Tensor derived = logits.flatten();
    ASSERT_TRUE(derived.requires_grad());
    const policy::PolicySpec& spec = actor_.policy().spec();
    policy::PolicyInputs inputs = Inputs(Observe());
    inputs.observations =
        derived.slice(0, 0, spec.observation_width()).unsqueeze(0);
    expect_refused(inputs, "observations");
    inputs = Inputs(Observe());
    inputs.state = actor_.policy().InitialState(1);
    inputs.state.h = derived.slice(0, 0, spec.hidden_dim).reshape({1, 1, -1});
    expect_refused(inputs, "h");
  });
  for (size_t i = 0; i < with.size(); ++i) {
    EXPECT_TRUE(at::equal(without[i], with[i])) << i;
  }
}

}  // namespace
}  // namespace esper::env
