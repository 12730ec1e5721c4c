"""Training the policy of a server: the one learner."""
from __future__ import annotations

import dataclasses
from typing import Any, Mapping, Optional, Sequence, Union

import numpy as np

from esper_serve._proto.esper.v1 import policy_admin_pb2
from esper_serve._proto.esper.v1 import policy_admin_pb2_grpc
from esper_serve._proto.esper.v1 import policy_training_pb2
from esper_serve._proto.esper.v1 import policy_training_pb2_grpc
from esper_serve._proto.esper.v1 import trajectory_pb2
from esper_serve.client import OpenEpisode, PolicyClient
from esper_serve.episode import Episode


@dataclasses.dataclass(frozen=True)
class UpdateReport:
  """What one update did.

  Attributes:
    policy_version: published after it.
    transitions: steps that it was given.
    optimizer_steps: taken.
    kl_stopped: the divergence ended the passes early.
    skipped_nonfinite: minibatches or steps whose numbers were not finite.
    approx_kl: divergence at the last minibatch, nats.
    ratio_check_max: largest |log-prob now - recorded| before the first step; 0
      up to rounding unless acting and training disagree. None: not measured.
    gradient_norm: of the last step, before the clip.
    metrics: named terms of the loss over the whole batch, before any step.
  """
  policy_version: int
  transitions: int
  optimizer_steps: int
  kl_stopped: bool
  skipped_nonfinite: int
  approx_kl: float
  ratio_check_max: Optional[float]
  gradient_norm: float
  metrics: Mapping[str, float]


class Trainer:
  """Holds the learner lease and makes PPO updates.

  Every writing call has a number, so a retry never takes a step twice. Not
  thread-safe. Use it as a context manager, or call `release`.
  """

  def __init__(self,
               client: PolicyClient,
               holder: str = "python",
               seed: int = 0) -> None:
    """Takes the lease. `holder` names this run: it can take its own lease again.

    `seed` decides the order of minibatches.

    Raises:
      StaleLeaseError: another holder's lease is alive.
    """
    self._client = client
    self._connection = client.connection
    self._training = policy_training_pb2_grpc.PolicyTrainingStub(
        self._connection.channel)
    self._admin = policy_admin_pb2_grpc.PolicyAdminStub(
        self._connection.channel)
    self._holder = holder
    self._random = np.random.default_rng(seed)
    self._token = 0
    self._sequence = 0
    self.acquire()

  def acquire(self) -> None:
    """Takes the lease (again); drops a gradient that was not stepped with."""
    reply = self._connection.call(
        self._training.AcquireLearner,
        policy_training_pb2.AcquireLearnerRequest(holder=self._holder),
        "AcquireLearner")
    self._token = reply.lease_token
    self._sequence = 0

  def release(self) -> None:
    """Gives the lease up."""
    self._connection.call(
        self._training.ReleaseLearner,
        policy_training_pb2.ReleaseLearnerRequest(lease_token=self._token),
        "ReleaseLearner")

  def update(self,
             episodes: Sequence[Union[Episode, OpenEpisode]],
             *,
             passes: int = 3,
             minibatches: int = 1,
             learning_rate: Optional[float] = None,
             max_grad_norm: Optional[float] = None,
             **loss: Any) -> UpdateReport:
    """One PPO update: passes over the episodes, one publish at the end.

    Each pass divides the episodes anew into `minibatches` parts of whole
    episodes, with one optimiser step each.

    Args:
      episodes: recorded with the published policy: all of them to be uploaded,
        or all of them opened with `record` and closed, which the server then
        keeps until `discard`.
      passes, minibatches: >= 1.
      learning_rate: Adam's from now on; None: as before.
      max_grad_norm: None: the server's default.
      **loss: fields of PpoLoss in policy_training.proto: clip_ratio, gamma,
        gae_lambda, entropy_coef, value_coef, target_kl, ...; others take the
        server's defaults.

    Raises:
      TypeError: an unknown name in `loss`.
      StaleLeaseError: the lease was lost; nothing of this call was published.
      EsperError: after the first minibatch, steps may be left unpublished:
        call `publish` before collecting more.
    """
    if not episodes or passes < 1 or minibatches < 1:
      raise ValueError("episodes, passes and minibatches must be at least 1")
    ppo = _loss(loss)
    trajectories = [
        episode.episode_id if isinstance(episode, OpenEpisode) else
        episode.to_proto(self._client.spec_digest) for episode in episodes
    ]
    step_options: dict[str, float] = {}
    if learning_rate is not None:
      step_options["learning_rate"] = learning_rate
    if max_grad_norm is not None:
      step_options["max_grad_norm"] = max_grad_norm

    # Feeds the statistics with the whole batch and makes the ratio check.
    first = self._forward_backward(
        trajectories, ppo, first_pass=True, totals_only=True)
    steps = 0
    skipped = 0
    norm = 0.0
    approx_kl = first.approx_kl
    stopped = False
    for rows in self._plan(len(trajectories), passes, minibatches):
      reply = self._forward_backward([trajectories[i] for i in rows], ppo)
      approx_kl = reply.approx_kl
      if reply.kl_stop:
        stopped = True
        break
      if reply.nonfinite_term:
        skipped += 1
        continue
      stepped = self._optim_step(**step_options)
      norm = stepped.gradient_norm_before_clip
      steps += stepped.stepped
      skipped += not stepped.stepped
    version = self.publish() if steps else int(first.header.policy_version)
    checked = first.HasField("ratio_check_max")
    return UpdateReport(
        policy_version=version,
        transitions=int(first.transitions),
        optimizer_steps=steps,
        kl_stopped=stopped,
        skipped_nonfinite=skipped,
        approx_kl=approx_kl,
        ratio_check_max=first.ratio_check_max if checked else None,
        gradient_norm=norm,
        metrics=dict(first.metrics))

  def publish(self) -> int:
    """Publishes steps that a failed update left behind; returns the version."""
    return int(self._optim_step(publish=True).header.policy_version)

  def discard(self, episodes: Sequence[OpenEpisode]) -> int:
    """Forgets recorded episodes on the server; how many there were."""
    request = policy_training_pb2.DiscardRecordingsRequest(
        write=self._write(),
        episode_ids=[episode.episode_id for episode in episodes])
    reply = self._connection.call(self._training.DiscardRecordings, request,
                                  "DiscardRecordings")
    self._sequence += 1
    return int(reply.discarded)

  def save_checkpoint(self, name: str = "") -> str:
    """Writes everything to the server's checkpoint folder; returns the name.

    The name: letters, digits, ".", "_", "-"; "": one that tells the version.
    """
    reply = self._connection.call(
        self._admin.SaveCheckpoint,
        policy_admin_pb2.SaveCheckpointRequest(name=name), "SaveCheckpoint")
    return str(reply.name)

  def restore_checkpoint(self, name: str = "") -> int:
    """Goes back to a checkpoint ("": the newest); returns the version.

    That ends every lease; this trainer takes it again.
    """
    reply = self._connection.call(
        self._admin.RestoreCheckpoint,
        policy_admin_pb2.RestoreCheckpointRequest(name=name),
        "RestoreCheckpoint")
    self.acquire()
    return int(reply.header.policy_version)

  def _plan(self, rows: int, passes: int,
            minibatches: int) -> list[list[int]]:
    """Rows of each step; sizes within a pass differ by at most one."""
    parts = []
    for _ in range(passes):
      order = self._random.permutation(rows)
      parts += np.array_split(order, min(minibatches, rows))
    return [part.tolist() for part in parts]

  def _write(self) -> Any:
    return policy_training_pb2.LearnerWrite(
        lease_token=self._token, sequence=self._sequence + 1)

  def _forward_backward(self, trajectories: Sequence[Any], ppo: Any,
                        **flags: Any) -> Any:
    request = policy_training_pb2.ForwardBackwardRequest(
        write=self._write(), ppo=ppo, **_batch(trajectories), **flags)
    reply = self._connection.call(self._training.ForwardBackward, request,
                                  "ForwardBackward")
    self._sequence += 1  # A refused call does not use up its number.
    return reply

  def _optim_step(self, **fields: Any) -> Any:
    request = policy_training_pb2.OptimStepRequest(
        write=self._write(), **fields)
    reply = self._connection.call(self._training.OptimStep, request,
                                  "OptimStep")
    self._sequence += 1
    return reply

  def __enter__(self) -> Trainer:
    return self

  def __exit__(self, kind: Optional[type[BaseException]],
               *_: object) -> None:
    if kind is None:
      self.release()


def _batch(trajectories: Sequence[Any]) -> dict[str, Any]:
  """Fields of a request: uploaded trajectories, or ids of recorded ones."""
  recorded = [isinstance(trajectory, bytes) for trajectory in trajectories]
  if not any(recorded):
    return {"batch": trajectory_pb2.TrajectoryBatch(trajectories=trajectories)}
  if not all(recorded):
    raise ValueError("episodes must be all recorded or all uploaded")
  return {"recorded": trajectory_pb2.RecordedBatch(episode_ids=trajectories)}


def _loss(settings: Mapping[str, Any]) -> Any:
  known = [
      field.name for field in policy_training_pb2.PpoLoss.DESCRIPTOR.fields
  ]
  for name in settings:
    if name not in known:
      raise TypeError(f"the loss has no setting {name}; it has "
                      f"{', '.join(known)}")
  return policy_training_pb2.PpoLoss(**settings)
