#ifndef ESPER_TESTS_CORE_ENV_PLAY_H_
#define ESPER_TESTS_CORE_ENV_PLAY_H_

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/env/data.h"
#include "core/env/episode.h"
#include "core/env/episode_config.h"
#include "core/env/episode_types.h"
#include "core/env/tasks.h"
#include "core/policy/action_mask.h"
#include "core/policy/actions.h"
#include "gtest/gtest.h"

namespace esper::env {

// The real digits, loaded once.
inline std::shared_ptr<const Task> DigitsTask() {
  static const auto* const kTask = new std::shared_ptr<const Task>([] {
    const char* path = std::getenv("ESPER_DIGITS");
    auto task = LoadTask(
        "digits", path != nullptr ? path : "external/digits/digits.csv.gz");
    return task.value();
  }());
  return *kTask;
}

// A short episode on few images: a step takes a few milliseconds.
inline EpisodeConfig SmallConfig(uint64_t seed, int max_epochs) {
  EpisodeConfig config;
  config.task = DigitsTask();
  config.seed = seed;
  config.max_epochs = max_epochs;
  config.trainer.samples_per_epoch = 128;
  return config;
}

// Uniform choice among the true entries; `draw` is uniform 64-bit.
inline int64_t PickAllowed(const std::vector<bool>& mask, uint64_t draw) {
  std::vector<int64_t> allowed;
  for (size_t i = 0; i < mask.size(); ++i) {
    if (mask[i]) allowed.push_back(i);
  }
  return allowed[draw % allowed.size()];
}

// A legal action: a function of (mask, key, step). Ops are equally likely, but
// for PRUNE, which mostly turns into WAIT: else hardly a seed would live to
// blend.
inline policy::FactoredAction RandomLegalAction(const policy::ActionMask& mask,
                                                uint64_t key, int step) {
  using policy::ActionHead;
  const auto pick = [&](ActionHead head) {
    return PickAllowed(mask.HeadMask(head),
                       StreamBits(key, step * 16 + static_cast<int>(head)));
  };
  policy::FactoredAction action;
  action.op = static_cast<policy::Op>(pick(ActionHead::kOp));
  if (action.op == policy::Op::kPrune &&
      StreamBits(key, step * 16 + 9) % 16 != 0) {
    action.op = policy::Op::kWait;
  }
  std::vector<bool> slots;
  for (int s = 0; s < mask.num_slots; ++s) {
    slots.push_back(mask.AllowsSlot(action.op, s));
  }
  action.slot = PickAllowed(slots, StreamBits(key, step * 16 + 8));
  action.blueprint = pick(ActionHead::kBlueprint);
  action.style = pick(ActionHead::kStyle);
  action.tempo = pick(ActionHead::kTempo);
  action.alpha_target = pick(ActionHead::kAlphaTarget);
  action.alpha_speed = pick(ActionHead::kAlphaSpeed);
  action.alpha_curve = pick(ActionHead::kAlphaCurve);
  return action;
}

// Starts an episode; the test fails if that does.
inline std::unique_ptr<Episode> Start(EpisodeConfig config) {
  auto episode = Episode::Create(std::move(config));
  EXPECT_TRUE(episode.ok()) << episode.status();
  return *std::move(episode);
}

inline StepResult Take(Episode& episode, const policy::FactoredAction& action) {
  auto result = episode.Step(action);
  EXPECT_TRUE(result.ok()) << result.status();
  return result.ok() ? *std::move(result) : StepResult();
}

inline policy::FactoredAction Act(policy::Op op, int64_t slot = 0) {
  policy::FactoredAction action;
  action.op = op;
  action.slot = slot;
  return action;
}

// GERMINATE: linear ramp of `tempo` (an index) to full alpha, operator ADD.
inline policy::FactoredAction Plant(int64_t slot, const std::string& blueprint,
                                    int64_t tempo = 0) {
  policy::FactoredAction action = Act(policy::Op::kGerminate, slot);
  action.blueprint = policy::BlueprintIndex(blueprint);
  action.style = 0;  // Linear, add.
  action.tempo = tempo;
  return action;
}

// All that a policy or a learner would see of an episode.
struct Trace {
  std::vector<std::vector<float>> features;
  std::vector<std::vector<int64_t>> blueprints;
  std::vector<std::string> masks;
  std::vector<double> rewards;
  std::vector<double> losses;

  bool operator==(const Trace& other) const {
    return features == other.features && blueprints == other.blueprints &&
           masks == other.masks && rewards == other.rewards &&
           losses == other.losses;
  }

  void See(const Observation& observation) {
    features.push_back(observation.features);
    blueprints.push_back(observation.blueprint_indices);
    masks.push_back(policy::PackMaskBits(observation.mask));
  }
  void See(const StepResult& result) {
    rewards.push_back(result.reward);
    losses.push_back(result.train_loss);
    losses.push_back(result.val_loss);
  }
};

}  // namespace esper::env
#endif  // ESPER_TESTS_CORE_ENV_PLAY_H_
