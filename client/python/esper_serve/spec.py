"""What a policy observes and decides: the server's --policy_spec file."""
from __future__ import annotations

import dataclasses
import json
import pathlib
from typing import Any, Mapping, Optional, Sequence, Union

import gymnasium as gym
import numpy as np

from esper_serve import spaces
from esper_serve.tensors import Array

_FORMAT_VERSION = 1


@dataclasses.dataclass(frozen=True)
class Head:
  """One part of an action: a categorical choice or a Gaussian vector.

  Attributes:
    name: letters, digits and underscores.
    size: choices, or dimensions of a Gaussian head, >= 1.
    kind: "categorical" or "gaussian".
    labels: one per choice, or none.
    hidden: hidden widths of the head's own network.
    final_gain: gain of the output layer's orthogonal initialisation.
    driver: head whose choice decides whether this one matters; "": it always
      does.
    relevant_when: driver choices under which it matters.
    placeholder: what it holds when it does not; None: the first allowed choice.
    conditional_mask: its mask has a row per choice of the driver.
    idle_choice: choice that leaves the environment alone; -1: none.
    floor: smallest probability of an allowed choice, [0, 1).
    entropy_coef: multiplies the head's share of the entropy bonus.
    initial_log_std: of a Gaussian head.
    low, high: bounds that the environment clips a Gaussian head to; or none.
  """
  name: str
  size: int
  kind: str = "categorical"
  labels: Sequence[str] = ()
  hidden: Sequence[int] = (64,)
  final_gain: float = 0.01
  driver: str = ""
  relevant_when: Sequence[int] = ()
  placeholder: Optional[int] = None
  conditional_mask: bool = False
  idle_choice: int = -1
  floor: float = 0.0
  entropy_coef: float = 1.0
  initial_log_std: float = 0.0
  low: Sequence[float] = ()
  high: Sequence[float] = ()

  @property
  def gaussian(self) -> bool:
    return self.kind == "gaussian"

  def to_json(self) -> dict[str, Any]:
    """Exactly the fields that the server reads for this kind."""
    common: dict[str, Any] = {
        "name": self.name,
        "size": self.size,
        "labels": list(self.labels),
        "hidden": list(self.hidden),
        "final_gain": self.final_gain,
        "driver": self.driver,
        "relevant_when": list(self.relevant_when),
        "entropy_coef": self.entropy_coef,
    }
    if self.gaussian:
      return {
          **common, "kind": self.kind,
          "initial_log_std": self.initial_log_std,
          "low": list(self.low),
          "high": list(self.high)
      }
    return {
        **common, "conditional_mask": self.conditional_mask,
        "idle_choice": self.idle_choice,
        "floor": self.floor,
        "placeholder": ("first_allowed"
                        if self.placeholder is None else self.placeholder)
    }

  @classmethod
  def from_json(cls, data: Mapping[str, Any]) -> Head:
    fields = dict(data)
    if fields.get("placeholder") == "first_allowed":
      fields["placeholder"] = None
    return cls(**fields)


Masks = Mapping[str, Array]


@dataclasses.dataclass(frozen=True)
class PolicySpec:
  """A policy without its weights; see docs/policy.md for the words.

  Attributes:
    name: of the policy.
    observation: name and width of each block of the observation vector.
    heads: in storage order.
    sampling_order: head names, drivers first; empty: storage order.
    feature_dim, hidden_dim, lstm_layers: the network; hidden_dim >= 8.
    categorical: integer input as {"name", "count", "cardinality", "width"}.
    q_head: head whose choice is the input of Q; "": no Q.
    floor_mode: "none", "upstream" or "mixture".
    mask_optional: a request without masks means that everything is allowed.
  """
  name: str
  observation: Sequence[tuple[str, int]]
  heads: Sequence[Head]
  sampling_order: Sequence[str] = ()
  feature_dim: int = 64
  hidden_dim: int = 64
  lstm_layers: int = 1
  categorical: Optional[Mapping[str, Any]] = None
  slot_ids: Sequence[str] = ()
  q_head: str = ""
  contribution_outputs: int = 0
  floor_mode: str = "none"
  mask_optional: bool = True

  @classmethod
  def from_spaces(cls,
                  observation_space: gym.Space[Any],
                  action_space: gym.Space[Any],
                  *,
                  name: str = "policy",
                  hidden_dim: int = 64,
                  feature_dim: Optional[int] = None,
                  lstm_layers: int = 1,
                  head_hidden: Sequence[int] = (64,),
                  initial_log_std: float = 0.0) -> PolicySpec:
    """A policy for one environment of these spaces.

    Observations: Box, Discrete, MultiDiscrete, MultiBinary (one-hot where they
    are choices) and Dict of them. Actions: Discrete, MultiDiscrete (a head per
    component) or Box (one Gaussian head).

    Raises:
      TypeError: another space.
    """
    widths = spaces.observation_blocks(observation_space)
    heads: list[Head] = []
    if isinstance(action_space, gym.spaces.Discrete):
      heads = [Head("action", int(action_space.n), hidden=head_hidden)]
    elif isinstance(action_space, gym.spaces.MultiDiscrete):
      heads = [
          Head(f"action_{i}", int(n), hidden=head_hidden)
          for i, n in enumerate(action_space.nvec.reshape(-1))
      ]
    elif isinstance(action_space, gym.spaces.Box):
      bounded = bool(action_space.is_bounded())
      low = action_space.low.reshape(-1).astype(float)
      high = action_space.high.reshape(-1).astype(float)
      heads = [
          Head("action", int(low.size), kind="gaussian", hidden=head_hidden,
               entropy_coef=0.0, initial_log_std=initial_log_std,
               low=low.tolist() if bounded else (),
               high=high.tolist() if bounded else ())
      ]
    else:
      raise TypeError(f"actions of {action_space} are not supported: use "
                      "Discrete, MultiDiscrete or Box")
    return cls(
        name=name, observation=widths, heads=heads, hidden_dim=hidden_dim,
        feature_dim=feature_dim or hidden_dim, lstm_layers=lstm_layers)

  @property
  def observation_width(self) -> int:
    return sum(width for _, width in self.observation)

  @property
  def categorical_heads(self) -> list[Head]:
    return [head for head in self.heads if not head.gaussian]

  @property
  def continuous_width(self) -> int:
    return sum(head.size for head in self.heads if head.gaussian)

  @property
  def categorical_count(self) -> int:
    return int(self.categorical["count"]) if self.categorical else 0

  @property
  def driver(self) -> int:
    """Head whose effective choice is recorded, as the server picks it; or -1.
    """
    names = [head.name for head in self.heads]
    found = -1
    for head in self.heads:
      if not head.driver:
        continue
      k = names.index(head.driver)
      if self.heads[k].idle_choice >= 0:
        return k
      found = k if found < 0 else found
    return found

  def _mask_order(self) -> list[tuple[Head, int]]:
    """Heads as masks travel, with the rows that each mask has."""
    sizes = {head.name: head.size for head in self.heads}
    conditional = [head for head in self.heads if head.conditional_mask]
    rest = [
        head for head in self.categorical_heads if not head.conditional_mask
    ]
    return ([(head, sizes[head.driver]) for head in conditional] +
            [(head, 1) for head in rest])

  def pack_masks(self, masks: Masks, rows: int) -> Array:
    """Masks by head name as they travel, uint8 [rows, M].

    bool [rows, size] each, or [rows, driver size, size] for the head with the
    conditional mask; True = allowed. Heads that are left out allow everything.

    Raises:
      ValueError: an unknown head or a wrong shape.
    """
    parts: list[Array] = []
    left = set(masks)
    for head, driver_choices in self._mask_order():
      left.discard(head.name)
      shape = ((rows, driver_choices, head.size)
               if head.conditional_mask else (rows, head.size))
      mask = np.asarray(masks.get(head.name, np.ones(shape, bool)), bool)
      if mask.shape != shape:
        raise ValueError(f"the mask of {head.name} must have shape {shape}, "
                         f"got {mask.shape}")
      parts.append(mask.reshape(rows, -1))
    if left:
      raise ValueError(f"no head is named {sorted(left)[0]}")
    if not parts:  # Gaussian heads only.
      return np.zeros((rows, 0), np.uint8)
    return np.packbits(np.concatenate(parts, axis=1), axis=1,
                       bitorder="little")

  def first_allowed(self, masks: Masks, rows: int) -> Array:
    """The first allowed choice of every head, int64 [rows, K]."""
    names = [head.name for head in self.heads]
    chosen = np.zeros((rows, len(names)), np.int64)
    for name in self.sampling_order or names:
      head = self.heads[names.index(name)]
      if name not in masks or head.gaussian:
        continue
      mask = np.asarray(masks[name], bool)
      if head.conditional_mask:
        mask = mask[np.arange(rows), chosen[:, names.index(head.driver)]]
      chosen[:, names.index(name)] = mask.argmax(axis=1)
    return chosen

  def to_json(self) -> str:
    """The server's format, keys sorted."""
    return json.dumps(
        {
            "format_version": _FORMAT_VERSION,
            "name": self.name,
            "observation": [{
                "name": name,
                "width": width
            } for name, width in self.observation],
            "categorical":
                dict(self.categorical) if self.categorical else None,
            "heads": [head.to_json() for head in self.heads],
            "sampling_order": (list(self.sampling_order) or
                               [head.name for head in self.heads]),
            "slot_ids": list(self.slot_ids),
            "feature_dim": self.feature_dim,
            "hidden_dim": self.hidden_dim,
            "lstm_layers": self.lstm_layers,
            "q_head": self.q_head,
            "contribution_outputs": self.contribution_outputs,
            "floor_mode": self.floor_mode,
            "mask_optional": self.mask_optional,
        },
        indent=1,
        sort_keys=True)

  def save(self, path: Union[str, pathlib.Path]) -> None:
    """Writes the file that esper_server --policy_spec reads."""
    pathlib.Path(path).write_text(self.to_json() + "\n", encoding="utf-8")

  @classmethod
  def from_json(cls, text: str) -> PolicySpec:
    """Reads `to_json`, or what GetPolicy returns.

    Raises:
      ValueError: another version of the format.
      TypeError: an unknown or missing field.
    """
    data = dict(json.loads(text))
    if data.pop("format_version", None) != _FORMAT_VERSION:
      raise ValueError("this is not version 1 of the specification's format")
    data["observation"] = [
        (item["name"], item["width"]) for item in data["observation"]
    ]
    data["heads"] = [Head.from_json(item) for item in data["heads"]]
    return cls(**data)
