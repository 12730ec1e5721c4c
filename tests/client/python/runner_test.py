"""VectorRunner: whole episodes, told apart by how they end."""
import gymnasium as gym
import numpy as np
import pytest

from esper_serve import (TERMINATED, TRUNCATED, PolicyClient, PolicySpec,
                         Trainer, VectorRunner)


class Counter(gym.Env):
  """Shows the step's number; terminates at `length`; reward = the number."""

  observation_space = gym.spaces.Box(-1000, 1000, (1,))
  action_space = gym.spaces.Discrete(2)

  def __init__(self, length, fail_at=None):
    self.length = length
    self.fail_at = fail_at
    self.starts = 0

  def _info(self):
    allowed = np.array([self.count % 2 == 0, self.count % 2 == 1])
    return {"action_masks": {"action": allowed}}

  def _observation(self):
    return np.array([self.count], np.float32)

  def reset(self, *, seed=None, options=None):
    super().reset(seed=seed)
    self.count = 0
    self.starts += 1
    return self._observation(), self._info()

  def step(self, action):
    assert action == self.count % 2, "the mask was not respected"
    if self.count == self.fail_at:
      raise RuntimeError("the environment broke")
    self.count += 1
    return (self._observation(), float(self.count), self.count == self.length,
            False, self._info())


class Unmasked(gym.Wrapper):
  """Any action is right."""

  def step(self, action):
    return self.env.step(self.env.unwrapped.count % 2)


def vector(makers, mode=gym.vector.AutoresetMode.NEXT_STEP):
  return gym.vector.SyncVectorEnv(makers, autoreset_mode=mode)


def counters(lengths, limit=1000):
  return [
      lambda n=n: gym.wrappers.TimeLimit(Unmasked(Counter(n)), limit)
      for n in lengths
  ]


@pytest.fixture(scope="module")
def counting(start_server):
  spec = PolicySpec.from_spaces(Counter.observation_space, Counter.action_space,
                                hidden_dim=64)
  with PolicyClient(start_server(spec)) as client:
    yield client


def no_masks(*_):
  return None


MODES = [gym.vector.AutoresetMode.NEXT_STEP,
         gym.vector.AutoresetMode.SAME_STEP]


@pytest.mark.parametrize("mode", MODES)
def test_episodes_are_whole_and_ends_are_told_apart(counting, mode):
  envs = vector(counters([3, 9, 5], limit=7), mode)
  runner = VectorRunner(counting, envs, seed=1, mask_function=no_masks)
  episodes = runner.collect(40)
  assert sum(len(e) for e in episodes) >= 40
  assert sum(len(e) for e in episodes) == runner.steps
  assert {len(e) for e in episodes} == {3, 5, 7}
  for episode in episodes:
    count = len(episode)
    assert episode.observations[:, 0].tolist() == list(range(count))
    assert episode.rewards.tolist() == list(range(1, count + 1))
    assert episode.end == (TRUNCATED if count == 7 else TERMINATED)
    assert (episode.bootstrap_value != 0) == (count == 7)


@pytest.mark.parametrize("mode", MODES)
def test_the_bootstrap_is_the_value_of_the_final_observation(counting, mode):
  runner = VectorRunner(counting, vector(counters([9], limit=4), mode), seed=2,
                        mask_function=no_masks)
  (episode,) = runner.collect(1)
  # The same observations again, one more step: its value is the bootstrap.
  handle = counting.open([f"again-{mode.name}"], [0])
  for count in range(5):
    last = counting.act(handle, np.array([[count]], np.float32))
  assert episode.end == TRUNCATED
  assert episode.bootstrap_value == pytest.approx(float(last.values[0]),
                                                  abs=1e-6)


@pytest.mark.parametrize("mode", MODES)
def test_masks_of_the_infos_are_respected(counting, mode):
  envs = vector([lambda: Counter(6), lambda: Counter(4)], mode)
  runner = VectorRunner(counting, envs, seed=3)
  for episode in runner.collect(30):
    assert episode.actions[:, 0].tolist() == [
        step % 2 for step in range(len(episode))
    ]
    assert episode.masks.shape == (len(episode), 1)


def test_evaluation_plays_the_same_starts_and_counts_each_once(counting):
  runner = VectorRunner(counting, vector(counters([2, 4, 6])),
                        mask_function=no_masks)
  returns = runner.evaluate(7, seed=5)
  assert sorted(returns.tolist()) == [3, 3, 3, 10, 10, 21, 21]
  assert sorted(runner.evaluate(2, seed=5).tolist()) == [3, 10]


def test_evaluation_restarts_the_environments_from_its_seed(start_server):
  envs = gym.vector.SyncVectorEnv([lambda: gym.make("CartPole-v1")] * 3)
  spec = PolicySpec.from_spaces(envs.single_observation_space,
                                envs.single_action_space, hidden_dim=64)
  with PolicyClient(start_server(spec)) as client:
    runner = VectorRunner(client, envs, seed=1)
    first = runner.evaluate(6, seed=5).tolist()
    runner.collect(50)
    assert runner.evaluate(6, seed=5).tolist() == first
    assert runner.evaluate(6, seed=6).tolist() != first


def test_a_broken_environment_frees_its_episodes(counting):
  envs = vector([lambda: Counter(9, fail_at=2)])
  runner = VectorRunner(counting, envs, name="broken")
  with pytest.raises(RuntimeError, match="broke"):
    runner.collect(5)
  # Closed: the same incarnation of the name is free again.
  counting.open(["broken-0"], [1], incarnations=[runner._incarnation])


def test_recorded_episodes_train(counting):
  runner = VectorRunner(counting, vector(counters([3, 9], limit=7)), seed=4,
                        mask_function=no_masks)
  with Trainer(counting) as trainer:
    report = trainer.update(runner.collect(30), passes=2)
  assert report.ratio_check_max < 1e-4
  assert report.optimizer_steps == 2


def test_disabled_autoreset_is_refused(counting):
  envs = vector(counters([3]), gym.vector.AutoresetMode.DISABLED)
  with pytest.raises(ValueError, match="autoreset|reset themselves"):
    VectorRunner(counting, envs)
