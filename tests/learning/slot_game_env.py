"""A game of slots whose optimum is known.

Three slots, 24 steps. Each slot has a soil, one of three kinds, drawn at random
and shown at the first step only. At every step the policy takes one op:

  WAIT     nothing happens;
  PLANT    a seed of the chosen kind into the chosen slot, which must be empty;
  HARVEST  the chosen slot, which must not be empty.

A seed is ripe GROWTH = 3 steps after it was planted. Harvesting a ripe seed is
worth 2 if its kind is the slot's soil and 1 if not; an unripe one is worth
nothing. The whole worth is paid as the reward of the last step. How old a seed
is, the policy is not shown.

The optimum. Worth comes from harvests only, at most 2 each, and every harvest
needs a PLANT before it: two ops, so at most STEPS / 2 harvests and

  worth <= 2 * STEPS / 2 = STEPS = 24.

The bound is reached: plant slots 0, 1, 2 with their soils' kinds, harvest 0, 1,
2, and so on. Slot i is planted at step 6 r + i and harvested at 6 r + 3 + i, so
every seed is exactly ripe; STEPS is a multiple of 6, so nothing is left over.
Every episode's optimum is 24, whatever the soils are.

What the choice of heads shows: `slot` and `kind` are driven by `op` (kind
matters for PLANT only), and the mask of `slot` has a row per op.
"""
import gymnasium as gym
import numpy as np

from esper_serve import Head, PolicySpec

SLOTS = 3
KINDS = 3
GROWTH = 3
STEPS = 24
OPTIMUM = float(STEPS)
WAIT, PLANT, HARVEST = range(3)


def spec(hidden_dim):
  """The policy of this game."""
  return PolicySpec(
      name="slot_game",
      observation=[("first_step", 1), ("soils", SLOTS * KINDS),
                   ("occupied", SLOTS)],
      heads=[
          Head("op", 3, labels=["WAIT", "PLANT", "HARVEST"], idle_choice=WAIT),
          Head("slot", SLOTS, driver="op", relevant_when=[PLANT, HARVEST],
               conditional_mask=True),
          Head("kind", KINDS, driver="op", relevant_when=[PLANT]),
      ],
      hidden_dim=hidden_dim, feature_dim=hidden_dim, mask_optional=False)


class SlotGame(gym.vector.VectorEnv):
  """`num_envs` games in step; resets itself at the call after the last step.

  Actions: int [N, 3], op, slot and kind. `infos["action_masks"]` holds the
  masks by head; an action that they forbid raises ValueError.
  """

  metadata = {"autoreset_mode": gym.vector.AutoresetMode.NEXT_STEP}

  def __init__(self, num_envs):
    self.num_envs = num_envs
    width = 1 + SLOTS * KINDS + SLOTS
    self.single_observation_space = gym.spaces.Box(0, 1, (width,), np.float32)
    self.single_action_space = gym.spaces.MultiDiscrete([3, SLOTS, KINDS])
    self.observation_space = gym.vector.utils.batch_space(
        self.single_observation_space, num_envs)
    self.action_space = gym.vector.utils.batch_space(self.single_action_space,
                                                     num_envs)

  def reset(self, *, seed=None, options=None):
    super().reset(seed=seed)
    self._start()
    return self._observations(), self._infos()

  def _start(self):
    shape = (self.num_envs, SLOTS)
    self.time = 0
    self.soils = self.np_random.integers(KINDS, size=shape)
    self.kinds = np.full(shape, -1)  # -1: empty.
    self.planted = np.zeros(shape, int)  # Step.
    self.worth = np.zeros(self.num_envs)

  def _observations(self):
    soils = np.zeros((self.num_envs, SLOTS, KINDS), np.float32)
    if self.time == 0:
      soils = np.eye(KINDS, dtype=np.float32)[self.soils]
    first = np.full((self.num_envs, 1), self.time == 0, np.float32)
    return np.concatenate([first, soils.reshape(self.num_envs, -1),
                           self.kinds >= 0], axis=1).astype(np.float32)

  def _masks(self):
    occupied = self.kinds >= 0
    op = np.ones((self.num_envs, 3), bool)
    op[:, PLANT] = ~occupied.all(axis=1)
    op[:, HARVEST] = occupied.any(axis=1)
    slot = np.stack([np.ones_like(occupied), ~occupied, occupied], axis=1)
    return {"op": op, "slot": slot}

  def _infos(self):
    return {"action_masks": self._masks()}

  def step(self, actions):
    nothing = np.zeros(self.num_envs)
    if self.time == STEPS:
      self._start()
      ends = np.zeros(self.num_envs, bool)
      return self._observations(), nothing, ends, ends, self._infos()
    masks = self._masks()
    for i, (op, slot, kind) in enumerate(np.asarray(actions)):
      if not masks["op"][i, op] or not masks["slot"][i, op, slot]:
        raise ValueError(f"op {op} on slot {slot} is not allowed in game {i}")
      if op == PLANT:
        self.kinds[i, slot] = kind
        self.planted[i, slot] = self.time
      elif op == HARVEST:
        if self.time - self.planted[i, slot] >= GROWTH:
          self.worth[i] += 1 + (self.kinds[i, slot] == self.soils[i, slot])
        self.kinds[i, slot] = -1
    self.time += 1
    done = np.full(self.num_envs, self.time == STEPS)
    rewards = self.worth.copy() if self.time == STEPS else nothing
    return (self._observations(), rewards, done, np.zeros_like(done),
            self._infos())
