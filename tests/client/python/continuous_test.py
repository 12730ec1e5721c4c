"""Continuous actions: a Box action space from the environment to the update."""
import gymnasium as gym
import numpy as np
import pytest

from esper_serve import PolicyClient, PolicySpec, Trainer, VectorRunner

GOAL = np.array([0.6, -0.4], np.float32)


class Reach(gym.Env):
  """Pays for being near GOAL; eight steps."""

  observation_space = gym.spaces.Box(-1, 1, (2,))
  action_space = gym.spaces.Box(-1, 1, (2,), np.float32)

  def reset(self, *, seed=None, options=None):
    super().reset(seed=seed)
    self.steps = 0
    return np.zeros(2, np.float32), {}

  def step(self, action):
    assert self.action_space.contains(action), "the action was not clipped"
    self.steps += 1
    return (np.zeros(2, np.float32), -float(np.square(action - GOAL).sum()),
            self.steps == 8, False, {})


@pytest.fixture
def reaching(start_server):
  spec = PolicySpec.from_spaces(Reach.observation_space, Reach.action_space,
                                hidden_dim=64)
  with PolicyClient(start_server(spec)) as client:
    yield client


def test_recorded_actions_are_those_of_the_policy_not_the_clipped_ones(
    reaching):
  envs = gym.vector.SyncVectorEnv([Reach] * 4)
  episodes = VectorRunner(reaching, envs, seed=1).collect(steps=256)
  actions = np.concatenate([e.continuous for e in episodes])
  assert actions.shape[1] == 2
  assert np.abs(actions).max() > 1  # Deviation 1 at first: some lie outside.
  with Trainer(reaching) as trainer:
    report = trainer.update(episodes, passes=1, minibatches=1)
  # The server recomputes the densities that it acted with.
  assert report.ratio_check_max < 1e-3


def test_updates_move_the_mean_to_the_goal(reaching):
  envs = gym.vector.SyncVectorEnv([Reach] * 8)
  runner = VectorRunner(reaching, envs, seed=2)
  before = runner.evaluate(8, seed=3).mean()
  with Trainer(reaching) as trainer:
    for _ in range(15):
      trainer.update(runner.collect(steps=512), passes=4, minibatches=2,
                     learning_rate=3e-3, entropy_coef=0.0, target_kl=1.0)
  after = runner.evaluate(8, seed=3).mean()
  # Standing at the origin costs 0.52 a step.
  assert before < -3
  assert after > -1
