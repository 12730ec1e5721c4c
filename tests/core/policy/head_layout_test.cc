// Masks in force, relevance and levels against the naive rules.
#include "core/policy/head_layout.h"

#include <random>

#include "ATen/ops/ones.h"
#include "gtest/gtest.h"
#include "tests/core/policy/naive_policy.h"
#include "tests/core/policy/test_specs.h"

namespace esper::policy {
namespace {

constexpr int kRows = 10000;
constexpr uint32_t kSeed = 20240607;

TEST(HeadLayoutTest, EffectiveMasksEqualTheNaiveRules) {
  std::mt19937 random(kSeed);
  for (const PolicySpec& spec : AllTestSpecs()) {
    ASSERT_TRUE(spec.Validate().ok()) << spec.name;
    const HeadLayout layout(spec);
    for (const bool with_conditional : {true, false}) {
      const RandomRows rows = MakeRows(spec, layout, kRows, random);
      const at::Tensor conditional =
          with_conditional ? rows.conditional : at::Tensor();
      const at::Tensor masks_before = rows.masks.clone();
      const at::Tensor actions_before = rows.actions.clone();
      const at::Tensor conditional_before =
          conditional.defined() ? conditional.clone() : at::Tensor();
      const at::Tensor effective =
          layout.EffectiveMasks(rows.masks, conditional, rows.actions);
      EXPECT_TRUE(rows.masks.equal(masks_before)) << "an input was written to";
      EXPECT_TRUE(rows.actions.equal(actions_before));
      EXPECT_FALSE(effective.is_alias_of(rows.masks));
      if (conditional.defined()) {
        EXPECT_TRUE(conditional.equal(conditional_before));
        EXPECT_FALSE(effective.is_alias_of(conditional));
      }

      const bool* masks = rows.masks.const_data_ptr<bool>();
      const bool* actual = effective.const_data_ptr<bool>();
      const int64_t* action = rows.actions.const_data_ptr<int64_t>();
      for (int64_t n = 0; n < kRows; ++n) {
        const std::vector<int64_t> chosen(
            action + n * layout.num_heads(),
            action + (n + 1) * layout.num_heads());
        for (int64_t k = 0; k < layout.num_heads(); ++k) {
          const int64_t at = n * layout.width() + layout.offset(k);
          std::vector<Mask> table;
          if (conditional.defined() && k == layout.conditional_head()) {
            const bool* cell = conditional.const_data_ptr<bool>();
            const int64_t choices = conditional.size(1);
            for (int64_t c = 0; c < choices; ++c) {
              const bool* row = cell + (n * choices + c) * layout.size(k);
              table.emplace_back(row, row + layout.size(k));
            }
          }
          const Mask expected =
              NaiveMask(spec, k, Mask(masks + at, masks + at + layout.size(k)),
                        chosen, table);
          const Mask got(actual + at, actual + at + layout.size(k));
          ASSERT_EQ(got, expected)
              << spec.name << " row " << n << " head " << spec.heads[k].name;
        }
      }
    }
  }
}

TEST(HeadLayoutTest, AbsentMasksAllowEverything) {
  std::mt19937 random(kSeed);
  for (const PolicySpec& spec : AllTestSpecs()) {
    const HeadLayout layout(spec);
    const RandomRows rows = MakeRows(spec, layout, 50, random);
    EXPECT_TRUE(
        layout.EffectiveMasks({}, {}, rows.actions)
            .equal(layout.EffectiveMasks(
                at::ones(rows.masks.sizes(), at::kBool), {}, rows.actions)));
  }
}

TEST(HeadLayoutTest, RelevanceAndAvailabilityFollowTheTable) {
  std::mt19937 random(kSeed);
  for (const PolicySpec& spec : AllTestSpecs()) {
    const HeadLayout layout(spec);
    const RandomRows rows = MakeRows(spec, layout, 500, random);
    const at::Tensor relevance = layout.Relevance(rows.actions);
    const at::Tensor available = layout.Availability(rows.masks);
    for (int64_t n = 0; n < 500; ++n) {
      for (int64_t k = 0; k < layout.num_heads(); ++k) {
        const int64_t d = spec.DriverOf(k);
        bool relevant = d < 0;
        bool possible = d < 0;
        for (const int64_t choice : spec.heads[k].relevant_when) {
          relevant = relevant || rows.actions[n][d].item<int64_t>() == choice;
          possible =
              possible || rows.masks[n][layout.offset(d) + choice].item<bool>();
        }
        ASSERT_EQ(relevance[n][k].item<bool>(), relevant);
        ASSERT_EQ(available[n][k].item<bool>(), possible);
      }
    }
  }
}

TEST(HeadLayoutTest, GatherUndoesTheLevels) {
  for (const PolicySpec& spec : AllTestSpecs()) {
    const HeadLayout layout(spec);
    std::vector<at::Tensor> parts;
    for (const HeadLevel& level : layout.levels()) {
      parts.push_back(level.head_index.unsqueeze(0));
    }
    const at::Tensor gathered = layout.Gather(parts);
    for (int64_t k = 0; k < layout.num_heads(); ++k) {
      EXPECT_EQ(gathered[0][k].item<int64_t>(), k);
    }
  }
}

}  // namespace
}  // namespace esper::policy
