#include <string>
#include <utility>
#include <vector>

#include "ATen/TensorOperators.h"
#include "ATen/ops/zeros_like.h"
#include "gtest/gtest.h"
#include "tests/core/ppo/learner_fixture.h"
#include "tests/testing/status_matchers.h"

// A batch split by rows gives the gradient of the whole, whatever the loss.
namespace esper::ppo {
namespace {

// Rows per part.
using Split = std::vector<int>;

// Episodes of differing lengths, truncated and terminated, with forced steps,
// initial states, measured contributions and choices that did not take effect.
std::vector<Trajectory> MixedEpisodes(const Learner& learner, uint64_t seed) {
  auto episodes = Episodes(learner, {12, 20, 7, 20, 15, 3}, seed);
  const policy::PolicySpec& spec = learner.spec();
  const int64_t driver = spec.HeadIndex("op");
  for (size_t b = 0; b < episodes.size(); b += 2) {
    Trajectory& row = episodes[b];
    row.effective_choices = row.actions.select(1, driver).clone();
    for (int64_t t = 0; t < row.length(); t += 3) {
      row.effective_choices[t].fill_(spec.heads[driver].idle_choice);
    }
  }
  return episodes;
}

// The losses, at other settings than their defaults where that adds a term.
std::vector<std::pair<std::string, PassOptions>> Losses() {
  PpoOptions ppo;
  ppo.contribution.warmup_updates = 0;
  ImportanceSamplingOptions importance;
  importance.contribution_coef = 0.05;
  importance.c_bar = 0.9;
  BehaviourCloningOptions cloning;
  cloning.entropy_coef = 0.01;
  return {{"ppo", ppo},
          {"importance_sampling", importance},
          {"behaviour_cloning", cloning}};
}

TEST(SplitBatchTest, EverySplitGivesTheGradientOfTheWholePerTensor) {
  for (const auto& [name, loss] : Losses()) {
    SCOPED_TRACE(name);
    // Learned a little: the weights are not those that acted.
    const auto learner = MakeLearner();
    const auto episodes = MixedEpisodes(*learner, /*seed=*/2);
    ASSERT_OK(learner->ForwardBackward(episodes, FirstPass()));
    ASSERT_OK(learner->OptimStep({}));

    ASSERT_OK(learner->ForwardBackward(episodes, loss));
    const NamedTensors expected = learner->Gradients();
    learner->ClearGradients();
    PassOptions totals_only = loss;
    ScopeOf(totals_only).totals_only = true;
    const auto totals = learner->ForwardBackward(episodes, totals_only);
    ASSERT_OK(totals);
    EXPECT_FALSE(learner->has_gradient());

    PassOptions part = loss;
    ScopeOf(part).totals = totals->totals;
    for (const Split& split :
         {Split{1, 1, 1, 1, 1, 1}, Split{2, 3, 1}, Split{5, 1}}) {
      const absl::Span<const Trajectory> rows(episodes);
      int from = 0;
      double total = 0;
      for (const int count : split) {
        const auto report =
            learner->ForwardBackward(rows.subspan(from, count), part);
        ASSERT_OK(report);
        total += report->metrics.at("total");
        from += count;
      }
      EXPECT_NEAR(total, totals->metrics.at("total"), 1e-5);
      const NamedTensors gradients = learner->Gradients();
      for (size_t i = 0; i < gradients.size(); ++i) {
        EXPECT_LE(RelativeDifference({gradients[i]}, {expected[i]}), 1e-6)
            << gradients[i].first << " in " << split.size() << " parts";
      }
      learner->ClearGradients();
    }
    // Without the totals the parts are wholes of their own.
    ASSERT_OK(learner->ForwardBackward(
        absl::Span<const Trajectory>(episodes).subspan(0, 2), loss));
    ASSERT_OK(learner->ForwardBackward(
        absl::Span<const Trajectory>(episodes).subspan(2), loss));
    EXPECT_GT(WholeDifference(learner->Gradients(), expected), 1e-2);
  }
}

}  // namespace
}  // namespace esper::ppo
