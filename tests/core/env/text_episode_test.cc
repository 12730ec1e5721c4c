// Episodes over a transformer host: the same rules on other features.

#include <cmath>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/env/growing_network.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/core/env/play.h"
#include "tests/core/env/temp_files.h"

namespace esper::env {
namespace {

using policy::ActionHead;
using policy::Op;
using ::testing::HasSubstr;

// Sentences of a few words: quick to learn.
std::string SimpleText() {
  const std::vector<std::string> words = {"seed", "slot", "host", "grows",
                                          "blends"};
  std::string text;
  for (int i = 0; i < 3000; ++i) {
    text += words[StreamBits(11, i) % words.size()];
    text += i % 9 == 8 ? ".\n" : " ";
  }
  return text;
}

std::shared_ptr<const Task> TextTask() {
  static const auto* const kTask = new std::shared_ptr<const Task>([] {
    TempFolder folder;
    return LoadTask("text", folder.Write("text", SimpleText())).value();
  }());
  return *kTask;
}

EpisodeConfig TextConfig(uint64_t seed, int max_epochs) {
  EpisodeConfig config = EpisodeConfig::For(TextTask());
  config.seed = seed;
  config.max_epochs = max_epochs;
  config.trainer.samples_per_epoch = 32;
  config.trainer.val_samples = 16;
  return config;
}

std::string StageOf(const StepResult& result, size_t slot) {
  return result.slots[slot].stage;
}

TEST(TextEpisodeTest, TakesItsDefaultsFromTheTask) {
  const EpisodeConfig config = EpisodeConfig::For(TextTask());
  const auto classes = static_cast<double>(TextTask()->num_classes);
  EXPECT_EQ(config.governor.random_guess_loss, std::log(classes));
  EXPECT_EQ(config.loss_reward.baseline_loss, std::log(classes));
  EXPECT_EQ(config.trainer.host_lr, TextTask()->trainer.host_lr);
  EXPECT_TRUE(config.Validate().ok()) << config.Validate();
}

TEST(TextEpisodeTest, TheImpairedHostKnowsSingleCharactersOfTheSameText) {
  TempFolder folder;
  const auto task = LoadTask("text_impaired", folder.Write("t", SimpleText()));
  ASSERT_TRUE(task.ok()) << task.status();
  EXPECT_EQ((*task)->num_classes, TextTask()->num_classes);
  EXPECT_EQ((*task)->slot_ids, TextTask()->slot_ids);
  EXPECT_EQ((*task)->train->Get({0}).inputs.size(1), 32);
  EXPECT_EQ((*task)->trainer.samples_per_epoch, 32);
  const auto host = (*task)->host.create(3).value();
  int64_t parameters = 0;
  for (const at::Tensor& parameter : host->parameters()) {
    parameters += parameter.numel();
  }
  EXPECT_EQ((*task)->host.parameter_count, parameters);
}

TEST(TextEpisodeTest, GrowsASeedThroughTrainingAndBlending) {
  auto episode = Start(TextConfig(4, 40));
  StepResult result = Take(*episode, Plant(1, "mlp_small"));
  EXPECT_TRUE(result.success) << result.refusal;
  EXPECT_EQ(result.slots[1].blueprint, "mlp_small");
  bool trained = false;
  bool blended = false;
  bool measured = false;
  while (!episode->done()) {
    const policy::ActionMask& mask = episode->observation().mask;
    policy::FactoredAction action = Act(Op::kWait);
    if (mask.AllowsSlot(Op::kFossilize, 1)) {
      action = Act(Op::kFossilize, 1);
    } else if (mask.AllowsSlot(Op::kAdvance, 1)) {
      action = Act(Op::kAdvance, 1);
    }
    result = Take(*episode, action);
    trained |= StageOf(result, 1) == "TRAINING";
    blended |= StageOf(result, 1) == "BLENDING";
    measured |= result.contribution_mask[1] != 0;
    ASSERT_TRUE(std::isfinite(result.reward));
    ASSERT_TRUE(std::isfinite(result.val_loss));
  }
  EXPECT_TRUE(trained);
  EXPECT_TRUE(blended);
  EXPECT_TRUE(measured);
  const EpisodeSummary summary = episode->Summary();
  EXPECT_EQ(summary.seeds_germinated, 1);
  EXPECT_EQ(summary.seeds_blended, 1);
  EXPECT_GT(summary.total_params, summary.host_params);
  EXPECT_EQ(summary.host_params, TextTask()->host.parameter_count);
}

TEST(TextEpisodeTest, LearnsToPredictCharacters) {
  auto episode = Start(TextConfig(1, 25));
  double first = 0;
  double last = 0;
  while (!episode->done()) {
    const StepResult result = Take(*episode, Act(Op::kWait));
    if (result.epoch == 1) first = result.val_loss;
    last = result.val_loss;
  }
  EXPECT_LT(first, std::log(TextTask()->num_classes) + 0.2);
  EXPECT_LT(last, 2.0);
  const EpisodeSummary summary = episode->Summary();
  EXPECT_GT(summary.host_accuracy, 30);
  EXPECT_EQ(summary.host_accuracy, summary.host_accuracy_without_seeds);
}

TEST(TextEpisodeTest, MasksTheBlueprintsOfOtherTopologies) {
  auto episode = Start(TextConfig(2, 3));
  const policy::ActionMask& mask = episode->observation().mask;
  for (const char* id : {"attention", "norm", "lora", "lora_large", "mlp_small",
                         "mlp", "flex_attention"}) {
    EXPECT_TRUE(mask.Allows(ActionHead::kBlueprint, policy::BlueprintIndex(id)))
        << id;
  }
  for (const char* id : {"noop", "conv_light", "conv_small", "conv_heavy",
                         "depthwise", "bottleneck"}) {
    EXPECT_FALSE(
        mask.Allows(ActionHead::kBlueprint, policy::BlueprintIndex(id)))
        << id;
  }
  // A convolution is refused, and nothing grows.
  const StepResult result = Take(*episode, Plant(0, "conv_light"));
  EXPECT_FALSE(result.success);
  EXPECT_EQ(result.effective_op, Op::kWait);
  EXPECT_EQ(StageOf(result, 0), "");
}

TEST(TextEpisodeTest, CarriesOutEveryActionThatItsMasksAllow) {
  for (const bool loss_family : {false, true}) {
    EpisodeConfig config = TextConfig(6, 25);
    if (loss_family) {
      config.reward_family = EpisodeConfig::RewardFamily::kLoss;
    }
    auto play = [&config] {
      auto episode = Start(config);
      Trace trace;
      while (!episode->done()) {
        trace.See(episode->observation());
        const StepResult result =
            Take(*episode, RandomLegalAction(episode->observation().mask, 3,
                                             episode->steps()));
        EXPECT_TRUE(std::isfinite(result.reward));
        trace.See(result);
      }
      EXPECT_GT(episode->Summary().seeds_germinated, 0);
      return trace;
    };
    // Bit by bit the same, whatever ran in between.
    const Trace first = play();
    EXPECT_TRUE(first == play()) << "loss family " << loss_family;
  }
}

TEST(TextEpisodeTest, AccuracyWithoutSeedsIsThatOfTheBareHost) {
  const EpisodeConfig config = TextConfig(7, 60);
  auto network = GrowingNetwork::Create(config);
  ASSERT_TRUE(network.ok()) << network.status();
  network->get()->TrainEpoch(1);
  const double bare = (*network)->AccuracyWithoutSeeds(*config.task->test);
  EXPECT_EQ(bare, (*network)->Accuracy(*config.task->test));
  slot::GerminateRequest request;
  request.blueprint_id = "lora";
  request.seed_id = "seed0";
  request.blend_id = "linear";
  request.tempo = 1;
  ASSERT_TRUE(
      (*network)->lifecycle().Germinate((*network)->slot(0), request).ok());
  EXPECT_EQ((*network)->SlotParameters(0), 2 * 64 * 8);
  EXPECT_EQ(bare, (*network)->AccuracyWithoutSeeds(*config.task->test));
}

TEST(TextEpisodeTest, RefusesMoreSamplesThanThereAre) {
  EpisodeConfig config = TextConfig(1, 5);
  config.trainer.samples_per_epoch = TextTask()->train->size() + 1;
  const auto refused = Episode::Create(config);
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(refused.status().message()),
              HasSubstr("samples_per_epoch"));
}

}  // namespace
}  // namespace esper::env
