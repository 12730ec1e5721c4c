#include "core/policy/action_mask.h"

#include <random>
#include <string>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "tests/testing/environment_golden.h"
#include "tests/testing/status_matchers.h"

namespace esper::policy {
namespace {

using ::esper::testing::Refused;

constexpr absl::StatusCode kInvalid = absl::StatusCode::kInvalidArgument;

ActionMaskOptions Options(int num_slots) {
  ActionMaskOptions options;
  for (int i = 0; i < num_slots; ++i) {
    options.slot_ids.push_back(absl::StrCat("r0c", i));
  }
  options.enabled_slots = options.slot_ids;
  return options;
}

SlotMaskStates Empty(const ActionMaskOptions& options) {
  SlotMaskStates states;
  for (const std::string& id : options.slot_ids) states[id] = std::nullopt;
  return states;
}

SlotMaskState State(int64_t stage, int64_t age = 0,
                    int64_t mode = kAlphaModeHold) {
  return {stage, age, mode};
}

bool Allowed(const ActionMask& mask, Op op) {
  return mask.Allows(ActionHead::kOp, static_cast<int64_t>(op));
}

TEST(BuildActionMaskTest, AgreesWithReferenceVectors) {
  testing::GoldenReport report;
  testing::CheckMasks(
      testing::GoldenTensors("tests/golden/policy/masks.safetensors"), &report);
  for (const std::string& failure : report.failures()) {
    ADD_FAILURE() << failure;
  }
  EXPECT_GT(report.passed(), 0);
}

// Random states: an op is allowed exactly if its slot row has an entry, WAIT
// always is, and only enabled slots appear anywhere.
TEST(BuildActionMaskTest, AllowsAnOpExactlyWhereASlotQualifies) {
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE(absl::StrCat("seed ", seed));
  std::mt19937 random(seed);
  const int64_t stages[] = {0, 1, 2, 3, 4, 6, 7, 8, 9, 10};
  for (int trial = 0; trial < 2000; ++trial) {
    ActionMaskOptions options = Options(1 + trial % 7);
    options.enabled_slots.clear();
    SlotMaskStates states = Empty(options);
    for (const std::string& id : options.slot_ids) {
      if (random() % 4 != 0) options.enabled_slots.push_back(id);
      if (random() % 3 == 0) continue;
      states[id] = State(stages[random() % 10], random() % 12, random() % 3);
    }
    if (options.enabled_slots.empty()) {
      options.enabled_slots.push_back(options.slot_ids[0]);
    }
    options.max_seeds = random() % 3;
    options.disable_advance = random() % 2 == 0;
    const auto mask = BuildActionMask(options, states, random() % 4);
    ASSERT_OK(mask);
    EXPECT_TRUE(Allowed(*mask, Op::kWait));
    for (int op = 0; op < kNumOps; ++op) {
      bool any = false;
      for (int slot = 0; slot < mask->num_slots; ++slot) {
        const bool allowed = mask->AllowsSlot(static_cast<Op>(op), slot);
        any = any || allowed;
        EXPECT_TRUE(!allowed || mask->Allows(ActionHead::kSlot, slot));
      }
      EXPECT_EQ(Allowed(*mask, static_cast<Op>(op)), any);
    }
    for (int h = 0; h < kNumActionHeads; ++h) {
      bool any = false;
      for (bool bit : mask->HeadMask(static_cast<ActionHead>(h))) any |= bit;
      EXPECT_TRUE(any) << "an empty head";
    }
    const auto back = UnpackMaskBits(PackMaskBits(*mask), mask->num_slots);
    ASSERT_OK(back);
    EXPECT_EQ(back->heads, mask->heads);
    EXPECT_EQ(back->slot_by_op, mask->slot_by_op);
  }
}

TEST(BuildActionMaskTest, CleaningUpBlocksGerminationOfTheWholeModel) {
  const ActionMaskOptions options = Options(3);
  for (int64_t stage : {kStageGerminated, kStageTraining, kStagePruned,
                        kStageEmbargoed, kStageResetting}) {
    SlotMaskStates states = Empty(options);
    states["r0c1"] = State(stage);
    const auto mask = BuildActionMask(options, states);
    ASSERT_OK(mask);
    EXPECT_FALSE(Allowed(*mask, Op::kGerminate)) << stage;
    states["r0c1"] = std::nullopt;
    EXPECT_TRUE(Allowed(*BuildActionMask(options, states), Op::kGerminate));
  }
  for (int64_t stage : {kStageBlending, kStageHolding, kStageFossilized}) {
    SlotMaskStates states = Empty(options);
    states["r0c1"] = State(stage);
    EXPECT_TRUE(Allowed(*BuildActionMask(options, states), Op::kGerminate));
  }
}

TEST(BuildActionMaskTest, MasksNoTimingButThePruneAge) {
  const ActionMaskOptions options = Options(1);
  SlotMaskStates states;
  states["r0c0"] = State(kStageTraining, kMinPruneAgeEpochs - 1);
  const auto young = BuildActionMask(options, states);
  EXPECT_FALSE(Allowed(*young, Op::kPrune));
  EXPECT_TRUE(Allowed(*young, Op::kAdvance));
  states["r0c0"] = State(kStageTraining, kMinPruneAgeEpochs);
  EXPECT_TRUE(Allowed(*BuildActionMask(options, states), Op::kPrune));
}

TEST(BuildActionMaskTest, PrunesWhileAlphaMovesOnlyByOverride) {
  ActionMaskOptions options = Options(1);
  SlotMaskStates states;
  states["r0c0"] = State(kStageBlending, 9, kAlphaModeUp);
  EXPECT_FALSE(Allowed(*BuildActionMask(options, states), Op::kPrune));
  options.allow_governor_override = true;
  EXPECT_TRUE(Allowed(*BuildActionMask(options, states), Op::kPrune));
}

TEST(BuildActionMaskTest, CountsTheSeedLimit) {
  ActionMaskOptions options = Options(2);
  options.max_seeds = 1;
  const SlotMaskStates states = Empty(options);
  EXPECT_TRUE(Allowed(*BuildActionMask(options, states, 0), Op::kGerminate));
  const auto full = BuildActionMask(options, states, 1);
  EXPECT_FALSE(Allowed(*full, Op::kGerminate));
  EXPECT_TRUE(full->IsForced());
}

TEST(BuildActionMaskTest, RefusesInputThatCannotBe) {
  ActionMaskOptions options = Options(2);
  const SlotMaskStates states = Empty(options);
  for (const char* topology : {"CNN", "cnn ", "", "rnn"}) {
    options.topology = topology;
    EXPECT_THAT(BuildActionMask(options, states),
                Refused(kInvalid, "MALFORMED_REQUEST"));
  }
  options = Options(2);
  options.enabled_slots.clear();
  EXPECT_THAT(BuildActionMask(options, states),
              Refused(kInvalid, "MALFORMED_REQUEST"));
  options.enabled_slots = {"r5c5"};
  EXPECT_THAT(BuildActionMask(options, states),
              Refused(kInvalid, "MALFORMED_REQUEST"));
  options = Options(2);
  EXPECT_THAT(BuildActionMask(options, {{"r0c0", std::nullopt}}),
              Refused(kInvalid, "MALFORMED_REQUEST"));
}

TEST(BuildActionMaskTest, IgnoresOrderAndRepeatsOfEnabledSlots) {
  ActionMaskOptions options = Options(3);
  const SlotMaskStates states = Empty(options);
  const auto expected = BuildActionMask(options, states);
  options.enabled_slots = {"r0c2", "r0c0", "r0c2", "r0c1"};
  EXPECT_EQ(BuildActionMask(options, states)->slot_by_op, expected->slot_by_op);
}

TEST(BuildActionMasksTest, EqualsTheSingleFormAndNamesTheBadRow) {
  const ActionMaskOptions options = Options(2);
  SlotMaskStates busy = Empty(options);
  busy["r0c0"] = State(kStageHolding, 9);
  const auto masks = BuildActionMasks(options, {Empty(options), busy});
  ASSERT_OK(masks);
  EXPECT_EQ(masks->at(1).heads, BuildActionMask(options, busy)->heads);
  EXPECT_THAT(BuildActionMasks(options, {}),
              Refused(kInvalid, "MALFORMED_REQUEST"));
  EXPECT_THAT(BuildActionMasks(options, {busy}, {1, 2}),
              Refused(kInvalid, "MALFORMED_REQUEST"));
  const auto bad = BuildActionMasks(options, {busy, {}});
  ASSERT_THAT(bad, Refused(kInvalid, "MALFORMED_REQUEST"));
  EXPECT_EQ(DetailOf(bad.status())->row, 1);
}

TEST(PackMaskBitsTest, PutsTheConditionalMaskFirstLeastSignificantBitFirst) {
  const ActionMaskOptions options = Options(1);
  const auto mask = BuildActionMask(options, Empty(options));
  ASSERT_OK(mask);
  const std::string bytes = PackMaskBits(*mask);
  // 6 slot_by_op bits, then 38 of the heads: blueprint 13, style 4, tempo 3,
  // alpha target 3, alpha speed 4, alpha curve 5, op 6; 44 bits, 4 of padding.
  ASSERT_EQ(bytes.size(), 6);
  EXPECT_EQ(static_cast<unsigned char>(bytes[0]),
            0b10000011);  // WAIT, GERMINATE rows; NOOP off, CONV_LIGHT on.
  EXPECT_EQ(static_cast<unsigned char>(bytes[1]), 0b00111111);
  EXPECT_EQ(static_cast<unsigned char>(bytes[2]), 0b11111000);
  EXPECT_EQ(static_cast<unsigned char>(bytes[3]), 0b11111111);
  EXPECT_EQ(static_cast<unsigned char>(bytes[4]), 0b11111111);
  EXPECT_EQ(static_cast<unsigned char>(bytes[5]), 0);
}

TEST(UnpackMaskBitsTest, RefusesAWrongSizeAndPaddingBits) {
  const ActionMaskOptions options = Options(1);
  std::string bytes = PackMaskBits(*BuildActionMask(options, Empty(options)));
  EXPECT_THAT(UnpackMaskBits(bytes, 3), Refused(kInvalid, "MALFORMED_REQUEST"));
  EXPECT_THAT(UnpackMaskBits("", 1), Refused(kInvalid, "MALFORMED_REQUEST"));
  bytes.back() = static_cast<char>(bytes.back() | 0x80);
  EXPECT_THAT(UnpackMaskBits(bytes, 1), Refused(kInvalid, "MALFORMED_REQUEST"));
}

}  // namespace
}  // namespace esper::policy
