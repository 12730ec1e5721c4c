"""Gymnasium's spaces as the vectors and heads of a policy."""
from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from esper_serve.tensors import Array


def observation_blocks(space: gym.Space[Any],
                       name: str = "observation") -> list[tuple[str, int]]:
  """Name and width of each block that `encode_observations` makes.

  Raises:
    TypeError: not Box, Discrete, MultiDiscrete, MultiBinary or Dict of them.
  """
  if isinstance(space, gym.spaces.Dict):
    blocks: list[tuple[str, int]] = []
    for key, part in space.spaces.items():
      blocks += observation_blocks(part, f"{name}.{key}")
    return blocks
  if isinstance(space, (gym.spaces.Box, gym.spaces.MultiBinary)):
    return [(name, int(np.prod(space.shape, dtype=int)))]
  if isinstance(space, gym.spaces.Discrete):
    return [(name, int(space.n))]
  if isinstance(space, gym.spaces.MultiDiscrete):
    return [(name, int(space.nvec.sum()))]
  raise TypeError(f"observations of {space} are not supported: use Box, "
                  "Discrete, MultiDiscrete, MultiBinary or Dict")


def encode_observations(space: gym.Space[Any], batch: Any) -> Array:
  """A batch of N observations of `space` as float32 [N, D].

  `batch` has the form that gymnasium's vector environments return: an array
  with a leading axis, or a dict of them for Dict spaces.
  """
  if isinstance(space, gym.spaces.Dict):
    parts = [
        encode_observations(part, batch[key])
        for key, part in space.spaces.items()
    ]
    return np.concatenate(parts, axis=1)
  array = np.asarray(batch)
  rows = array.shape[0]
  if isinstance(space, gym.spaces.Discrete):
    return _one_hot(array.reshape(rows) - int(space.start), int(space.n))
  if isinstance(space, gym.spaces.MultiDiscrete):
    flat = array.reshape(rows, -1) - np.asarray(space.start).reshape(-1)
    sizes = space.nvec.reshape(-1)
    return np.concatenate(
        [_one_hot(flat[:, i], int(n)) for i, n in enumerate(sizes)], axis=1)
  return array.reshape(rows, -1).astype(np.float32)


def decode_actions(space: gym.Space[Any], actions: Array,
                   continuous: Array) -> Array:
  """Actions of one environment's `space` for N environments.

  actions: int64 [N, K]. continuous: float32 [N, C], not clipped. A Box action
  is clipped to its bounds here, so that the environment never sees another.
  """
  rows = actions.shape[0]
  if isinstance(space, gym.spaces.Discrete):
    result: Array = actions[:, 0] + int(space.start)
  elif isinstance(space, gym.spaces.MultiDiscrete):
    result = actions.reshape(rows, *space.shape) + np.asarray(space.start)
  elif isinstance(space, gym.spaces.Box):
    shaped = continuous.reshape(rows, *space.shape).astype(space.dtype)
    result = np.clip(shaped, space.low, space.high)
  else:
    raise TypeError(f"actions of {space} are not supported")
  return result


def _one_hot(indices: Array, size: int) -> Array:
  return np.eye(size, dtype=np.float32)[indices]
