"""Recorded episodes, as the learner takes them."""
from __future__ import annotations

import dataclasses
from typing import Any, Optional

import numpy as np

from esper_serve import client, tensors
from esper_serve._proto.esper.v1 import policy_pb2, trajectory_pb2
from esper_serve.tensors import Array

_END_KINDS = {
    client.TERMINATED: policy_pb2.END_KIND_TERMINATED,
    client.TRUNCATED: policy_pb2.END_KIND_TRUNCATED,
}


@dataclasses.dataclass(frozen=True)
class Episode:
  """T steps from the first one to an end, with what the policy thought.

  Attributes:
    key: names it in logs.
    observations: float32 [T, D], raw.
    masks: uint8 [T, M], packed; None: everything was allowed.
    categorical: int8 [T, S]; None for policies without such an input.
    actions: int64 [T, K].
    continuous: float32 [T, C].
    log_probs: float32 [T, K].
    values: float32 [T].
    versions: int64 [T].
    rewards: float32 [T], raw.
    effective_choices: int64 [T]; see Outcome. None for policies without driver.
    forced: bool [T].
    end: TERMINATED or TRUNCATED.
    bootstrap_value: V of the observation behind a truncation; else 0.
  """
  key: str
  observations: Array
  masks: Optional[Array]
  categorical: Optional[Array]
  actions: Array
  continuous: Array
  log_probs: Array
  values: Array
  versions: Array
  rewards: Array
  effective_choices: Optional[Array]
  forced: Array
  end: str
  bootstrap_value: float = 0.0

  def __len__(self) -> int:
    return len(self.rewards)

  @property
  def total_reward(self) -> float:
    return float(np.sum(self.rewards, dtype=np.float64))

  def to_proto(self, spec_digest: str) -> Any:
    """The Trajectory message. `spec_digest`: PolicyClient.spec_digest."""
    message = trajectory_pb2.Trajectory(
        spec_digest=spec_digest,
        episode_key=self.key,
        observations=tensors.encode(self.observations),
        actions=tensors.encode(self.actions),
        behaviour=policy_pb2.BehaviourNumbers(
            kind=policy_pb2.NUMBER_KIND_BEHAVIOUR,
            log_probs=tensors.encode(self.log_probs),
            values=tensors.encode(self.values)),
        policy_versions=tensors.encode(self.versions),
        rewards=tensors.encode(self.rewards),
        forced=tensors.encode(self.forced),
        end_kind=_END_KINDS[self.end])
    if self.masks is not None:
      message.action_masks.CopyFrom(tensors.encode(self.masks))
    if self.categorical is not None:
      message.categorical.CopyFrom(tensors.encode(self.categorical))
    if self.effective_choices is not None:
      message.effective_choices.CopyFrom(
          tensors.encode(self.effective_choices))
    if self.continuous.shape[1] > 0:
      message.continuous_actions.CopyFrom(tensors.encode(self.continuous))
    if self.end == client.TRUNCATED:
      message.bootstrap_value = self.bootstrap_value
    return message
