"""The optimum that slot_game_env.py derives is the game's."""
import functools

import numpy as np
import pytest

import slot_game_env as game


def play(envs, choose, seed=0):
  """Returns of one episode; `choose(step, soils)` gives op, slot, kinds."""
  envs.reset(seed=seed)
  soils = envs.soils.copy()
  for step in range(game.STEPS):
    op, slot, kind = choose(step, soils)
    actions = np.zeros((envs.num_envs, 3), int)
    actions[:, 0], actions[:, 1], actions[:, 2] = op, slot, kind
    _, rewards, done, _, _ = envs.step(actions)
    assert done.all() == (step == game.STEPS - 1)
    if not done.all():
      assert not rewards.any(), "the reward is delayed to the last step"
  return rewards


def test_the_schedule_of_the_derivation_reaches_the_optimum():
  def best(step, soils):
    slot = step % 3
    return (game.PLANT, game.HARVEST)[step // 3 % 2], slot, soils[:, slot]

  returns = play(game.SlotGame(50), best)
  assert returns.tolist() == [game.OPTIMUM] * 50


def test_kinds_that_ignore_the_soil_are_worth_less():
  def blind(step, _):
    return (game.PLANT, game.HARVEST)[step // 3 % 2], step % 3, 0

  returns = play(game.SlotGame(200), blind)
  assert 14 < returns.mean() < 18  # 4/3 a harvest on average.


def test_no_play_is_worth_more():
  """Dynamic programming over the ages of the seeds, all on their soil."""

  @functools.lru_cache(maxsize=None)
  def best(time, ages):  # Age of each slot's seed; None: empty.
    if time == game.STEPS:
      return 0
    grown = tuple(
        None if a is None else min(a + 1, game.GROWTH) for a in ages)
    values = [best(time + 1, grown)]
    for slot, age in enumerate(ages):
      after = list(grown)
      if age is None:
        after[slot] = 1
        values.append(best(time + 1, tuple(after)))
      else:
        after[slot] = None
        worth = 2 if age >= game.GROWTH else 0
        values.append(worth + best(time + 1, tuple(after)))
    return max(values)

  assert best(0, (None,) * game.SLOTS) == game.OPTIMUM


def test_forbidden_actions_raise():
  envs = game.SlotGame(1)
  envs.reset(seed=0)
  with pytest.raises(ValueError, match="not allowed"):
    envs.step(np.array([[game.HARVEST, 0, 0]]))


def test_soils_are_shown_at_the_first_step_only():
  envs = game.SlotGame(4)
  observations, _ = envs.reset(seed=0)
  shown = observations[:, 1:10].reshape(4, 3, 3).argmax(axis=2)
  assert shown.tolist() == envs.soils.tolist()
  observations, *_ = envs.step(np.zeros((4, 3), int))
  assert not observations[:, :10].any()
