"""CartPole-v1 whose velocities are hidden: a policy needs a memory."""
import gymnasium as gym
import numpy as np

# Position, velocity, angle, angular velocity: as MaskVelocityWrapper of
# sb3-contrib does for this environment.
VISIBLE = np.array([1, 0, 1, 0], np.float32)
MAX_STEPS = 500


class HideVelocities(gym.ObservationWrapper):
  """Zeroes both velocities."""

  def observation(self, observation):
    return observation * VISIBLE


def make_env():
  return HideVelocities(gym.make("CartPole-v1"))


def make_envs(count):
  """`count` environments, stepped one after another in this process."""
  return gym.vector.SyncVectorEnv([make_env] * count)
