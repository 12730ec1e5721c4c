"""Asking a policy for actions: open, act, close."""
from __future__ import annotations

import dataclasses
from typing import Any, Optional, Sequence

import grpc
import numpy as np

from esper_serve import tensors
from esper_serve._proto.esper.v1 import policy_inference_pb2
from esper_serve._proto.esper.v1 import policy_inference_pb2_grpc
from esper_serve._proto.esper.v1 import policy_pb2
from esper_serve.connection import Connection, RetryPolicy
from esper_serve.spec import Masks, PolicySpec
from esper_serve.tensors import Array

TERMINATED = "terminated"
TRUNCATED = "truncated"
ABORTED = "aborted"
_END_KINDS = {
    TERMINATED: policy_pb2.END_KIND_TERMINATED,
    TRUNCATED: policy_pb2.END_KIND_TRUNCATED,
    ABORTED: policy_pb2.END_KIND_ABORTED,
}


@dataclasses.dataclass
class OpenEpisode:
  """An episode that the server holds the recurrent state of.

  Attributes:
    key: name of its environment.
    incarnation: rises with every episode of that environment.
    episode_id: the server's name of it.
    step: steps taken so far; `PolicyClient.act` counts it on.
  """
  key: str
  incarnation: int
  episode_id: bytes
  step: int = 0


@dataclasses.dataclass(frozen=True)
class Outcome:
  """What happened after an action.

  Attributes:
    reward: raw, finite.
    effective_choice: choice of the driver head that took effect: the chosen one
      or its idle choice. Not read for policies without a driver.
    forced: the environment left the policy no choice.
  """
  reward: float
  effective_choice: int = 0
  forced: bool = False

  def to_proto(self) -> Any:
    return policy_pb2.StepOutcome(
        reward=self.reward,
        effective_choice=self.effective_choice,
        forced=self.forced)


@dataclasses.dataclass(frozen=True)
class Actions:
  """One action of each of N episodes. Numbers without gradients.

  Attributes:
    actions: int64 [N, K]; choice of each head, 0 for Gaussian ones.
    continuous: float32 [N, C]; Gaussian heads one after another, not clipped.
    log_probs: float32 [N, K]; nats.
    values: float32 [N]; in the units of the value normaliser.
    versions: int64 [N]; policy version that acted.
    masks: uint8 [N, M]; as they were sent, packed, or None.
  """
  actions: Array
  continuous: Array
  log_probs: Array
  values: Array
  versions: Array
  masks: Optional[Array]


@dataclasses.dataclass(frozen=True)
class Closed:
  """Ends of N episodes.

  Attributes:
    bootstrap_values: float32 [N]; V of the final observation of truncated
      episodes, 0 for others.
    returns: float64 [N]; sum of the rewards that the server was told.
  """
  bootstrap_values: Array
  returns: Array


class PolicyClient:
  """Plays episodes with the policy of one server.

  Every call has a deadline and is tried again when the server is unavailable:
  steps are exactly-once, so a retry never advances an episode twice.

  Thread safety: calls may run in parallel if they share no episode.
  """

  def __init__(self,
               address: str,
               *,
               timeout: float = 10.0,
               retry: RetryPolicy = RetryPolicy(),
               credentials: Optional[grpc.ChannelCredentials] = None) -> None:
    """Connects to host:port or unix:PATH and reads the policy's specification.

    Raises:
      UnavailableError: nothing answers within `timeout` seconds.
    """
    self.connection = Connection(
        address, timeout=timeout, retry=retry, credentials=credentials)
    self._stub = policy_inference_pb2_grpc.PolicyInferenceStub(
        self.connection.channel)
    reply = self._get_policy()
    self.spec = PolicySpec.from_json(reply.spec_json)
    self.spec_digest: str = reply.header.spec_digest
    self.max_rows: int = reply.limits.max_rows_per_call

  def _get_policy(self) -> Any:
    return self.connection.call(
        self._stub.GetPolicy, policy_inference_pb2.GetPolicyRequest(),
        "GetPolicy")

  def policy_version(self) -> int:
    """The version that is published now."""
    return int(self._get_policy().header.policy_version)

  def open(self,
           keys: Sequence[str],
           seeds: Sequence[int],
           *,
           incarnations: Optional[Sequence[int]] = None,
           deterministic: bool = False,
           record: bool = False) -> list[OpenEpisode]:
    """Opens an episode for each key, with zeroed recurrent state.

    Args:
      keys: name each environment, across restarts.
      seeds: of the sampling noise, in [0, 2^64).
      incarnations: >= 1 each, above every one before of its key; default 1.
        A retry raises them, to take over what a lost reply opened.
      deterministic: take the most probable actions (evaluation).
      record: the server keeps what training needs: `Trainer.update` takes the
        closed episodes instead of uploading them. `act` then needs `outcomes`.
    """
    incarnations = [1] * len(keys) if incarnations is None else incarnations
    request = policy_inference_pb2.OpenEpisodesRequest(episodes=[
        policy_inference_pb2.EpisodeStart(
            environment_key=key,
            incarnation=incarnation,
            seed=seed,
            deterministic=deterministic,
            record=record)
        for key, seed, incarnation in zip(keys, seeds, incarnations)
    ])

    def supersede() -> None:
      """What an attempt opened whose reply was lost."""
      for start in request.episodes:
        start.incarnation += 1

    reply = self.connection.call(self._stub.OpenEpisodes, request,
                                 "OpenEpisodes", before_retry=supersede)
    return [
        OpenEpisode(start.environment_key, start.incarnation, episode_id)
        for start, episode_id in zip(request.episodes, reply.episode_ids)
    ]

  def act(self,
          episodes: Sequence[OpenEpisode],
          observations: Array,
          *,
          masks: Optional[Masks] = None,
          categorical: Optional[Array] = None,
          outcomes: Optional[Sequence[Outcome]] = None) -> Actions:
    """Takes the next step of N different episodes, in one message.

    All or nothing: if a row is refused, the error names it and no episode
    advances.

    Args:
      episodes: N open ones; their `step` counts on.
      observations: [N, D], raw.
      masks: see PolicySpec.pack_masks; None: everything is allowed.
      categorical: int8 [N, S], for policies that have such an input.
      outcomes: of the step before, for servers that are to sum the rewards;
        required for episodes that are recorded.
    """
    rows = []
    for i, episode in enumerate(episodes):
      row = policy_inference_pb2.StepRow(
          episode_id=episode.episode_id,
          incarnation=episode.incarnation,
          step=episode.step)
      if outcomes is not None and episode.step > 0:
        row.previous_outcome.CopyFrom(outcomes[i].to_proto())
      rows.append(row)
    request = policy_inference_pb2.GetActionRequest(
        rows=rows,
        observations=tensors.encode(np.asarray(observations, np.float32)))
    packed = None
    if masks is not None or not self.spec.mask_optional:
      packed = self.spec.pack_masks(masks or {}, len(episodes))
      request.action_masks.CopyFrom(tensors.encode(packed))
    if categorical is not None:
      request.categorical.CopyFrom(
          tensors.encode(np.asarray(categorical, np.int8)))
    reply = self.connection.call(self._stub.GetAction, request, "GetAction")
    for episode in episodes:
      episode.step += 1
    if self.spec.continuous_width > 0:
      continuous = tensors.decode(reply.continuous_actions)
    else:
      continuous = np.zeros((len(episodes), 0), np.float32)
    return Actions(
        actions=tensors.decode(reply.actions).astype(np.int64),
        continuous=continuous,
        log_probs=tensors.decode(reply.behaviour.log_probs),
        values=tensors.decode(reply.behaviour.values),
        versions=tensors.decode(reply.policy_versions),
        masks=packed)

  def close(self,
            episodes: Sequence[OpenEpisode],
            ends: Sequence[str],
            *,
            outcomes: Optional[Sequence[Outcome]] = None,
            final_observations: Optional[Array] = None,
            final_masks: Optional[Masks] = None,
            final_categorical: Optional[Array] = None) -> Closed:
    """Ends N episodes and frees their state.

    Args:
      episodes: N open ones.
      ends: TERMINATED, TRUNCATED or ABORTED each.
      outcomes: of the last step; default: reward 0.
      final_observations: [N, D]; what followed the last step. Needed if an
        episode is truncated, read for truncated ones only.
      final_masks, final_categorical: that go with them.
    """
    if TRUNCATED in ends and final_observations is None:
      raise ValueError("a truncated episode needs its final observation")
    request = policy_inference_pb2.CloseEpisodesRequest()
    for i, (episode, end) in enumerate(zip(episodes, ends)):
      message = request.episodes.add(
          episode_id=episode.episode_id,
          incarnation=episode.incarnation,
          steps=episode.step,
          end_kind=_END_KINDS[end])
      if episode.step > 0 and end != ABORTED:
        outcome = outcomes[i] if outcomes is not None else Outcome(0.0)
        message.last_outcome.CopyFrom(outcome.to_proto())
    if TRUNCATED in ends:
      request.final_observations.CopyFrom(
          tensors.encode(np.asarray(final_observations, np.float32)))
      if final_masks is not None or not self.spec.mask_optional:
        request.final_action_masks.CopyFrom(
            tensors.encode(
                self.spec.pack_masks(final_masks or {}, len(episodes))))
      if final_categorical is not None:
        request.final_categorical.CopyFrom(
            tensors.encode(np.asarray(final_categorical, np.int8)))
    reply = self.connection.call(self._stub.CloseEpisodes, request,
                                 "CloseEpisodes")
    return Closed(
        tensors.decode(reply.bootstrap_values), tensors.decode(reply.returns))

  def disconnect(self) -> None:
    """Closes the channel. Open episodes stay until their lease runs out."""
    self.connection.close()

  def __enter__(self) -> PolicyClient:
    return self

  def __exit__(self, *_: object) -> None:
    self.disconnect()
