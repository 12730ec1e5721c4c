"""Whole episodes from Gymnasium's vector environments."""
from __future__ import annotations

import time
import uuid
from typing import Any, Callable, Mapping, Optional

import gymnasium as gym
import numpy as np

from esper_serve import spaces
from esper_serve.client import (ABORTED, TERMINATED, TRUNCATED, Actions,
                                OpenEpisode, Outcome, PolicyClient)
from esper_serve.episode import Episode
from esper_serve.spec import Masks
from esper_serve.tensors import Array

MaskFunction = Callable[[Any, Mapping[str, Any]], Optional[Masks]]


def masks_of_info(_: Any, infos: Mapping[str, Any]) -> Optional[Masks]:
  """infos["action_masks"]: head name -> bool [N, ...]; None without it."""
  masks = infos.get("action_masks")
  if masks is None:
    return None
  # Gymnasium adds "_key" beside each key of a nested dict.
  return {key: mask for key, mask in masks.items() if not key.startswith("_")}


class _Recorder:
  """One episode that is being played."""

  def __init__(self, handle: OpenEpisode) -> None:
    self.handle = handle
    self.columns: dict[str, list[Any]] = {
        name: [] for name in ("observations", "masks", "actions", "continuous",
                              "log_probs", "values", "versions", "rewards",
                              "choices", "forced")
    }

  def __len__(self) -> int:
    return len(self.columns["rewards"])

  def add_action(self, observation: Array, actions: Actions, row: int) -> None:
    columns = self.columns
    columns["observations"].append(observation)
    if actions.masks is not None:
      columns["masks"].append(actions.masks[row])
    columns["actions"].append(actions.actions[row])
    columns["continuous"].append(actions.continuous[row])
    columns["log_probs"].append(actions.log_probs[row])
    columns["values"].append(actions.values[row])
    columns["versions"].append(actions.versions[row])

  def add_outcome(self, outcome: Outcome) -> None:
    self.columns["rewards"].append(outcome.reward)
    self.columns["choices"].append(outcome.effective_choice)
    self.columns["forced"].append(outcome.forced)

  @property
  def last_outcome(self) -> Outcome:
    columns = self.columns
    return Outcome(columns["rewards"][-1], columns["choices"][-1],
                   columns["forced"][-1])

  def finish(self, end: str, bootstrap_value: float,
             with_choices: bool) -> Episode:
    columns = self.columns
    return Episode(
        key=f"{self.handle.key}/{self.handle.incarnation}",
        observations=np.stack(columns["observations"]),
        masks=np.stack(columns["masks"]) if columns["masks"] else None,
        categorical=None,
        actions=np.stack(columns["actions"]),
        continuous=np.stack(columns["continuous"]),
        log_probs=np.stack(columns["log_probs"]),
        values=np.array(columns["values"], np.float32),
        versions=np.array(columns["versions"], np.int64),
        rewards=np.array(columns["rewards"], np.float32),
        effective_choices=(np.array(columns["choices"], np.int64)
                           if with_choices else None),
        forced=np.array(columns["forced"], bool),
        end=end,
        bootstrap_value=bootstrap_value)


class VectorRunner:
  """Plays all environments of a vector with one message per step.

  Environments that wait for others to end are stepped with actions that do not
  count: the first allowed ones if there are masks.

  `terminated` ends an episode for good. `truncated` sends the final observation
  to the server, whose value of it becomes the bootstrap of the episode.

  Environments may put into their infos: "action_masks" (see masks_of_info),
  "effective_choice" (int [N]) and "forced" (bool [N]) (see Outcome).

  Not thread-safe.
  """

  def __init__(self,
               client: PolicyClient,
               envs: gym.vector.VectorEnv[Any, Any, Any],
               *,
               seed: int = 0,
               name: str = "",
               mask_function: MaskFunction = masks_of_info) -> None:
    """`seed` seeds environments and sampling noise.

    `name` names the environments on the server; a process that restarts under
    the same name takes its episodes over. Default: a random one.

    Raises:
      ValueError: autoreset is disabled, or more environments than the server
        takes rows.
    """
    mode = envs.metadata.get("autoreset_mode",
                             gym.vector.AutoresetMode.NEXT_STEP)
    if mode == gym.vector.AutoresetMode.DISABLED:
      raise ValueError("the environments must reset themselves: use "
                       "AutoresetMode.NEXT_STEP or SAME_STEP")
    if envs.num_envs > client.max_rows:
      raise ValueError(f"the server takes {client.max_rows} rows a call, there "
                       f"are {envs.num_envs} environments")
    self._client = client
    self._envs = envs
    self._same_step = mode == gym.vector.AutoresetMode.SAME_STEP
    self._mask_function = mask_function
    self._name = name or f"python-{uuid.uuid4().hex[:12]}"
    self._incarnation = time.time_ns()
    self._random = np.random.default_rng(seed)
    self._env_seed: Optional[int] = seed
    self._driver = client.spec.driver
    self.steps = 0  # Taken so far, evaluation included.

  def collect(self, steps: int) -> list[Episode]:
    """Whole episodes of at least `steps` steps together.

    All environments start anew. New episodes begin until `steps` is reached;
    each that began is played to its end, so their lengths are not biased.
    """
    taken = 0

    def may_start(_: int, playing: int) -> bool:
      return taken + playing < steps

    def on_end(episode: Episode) -> None:
      nonlocal taken
      taken += len(episode)
      episodes.append(episode)

    episodes: list[Episode] = []
    self._play(may_start, on_end, deterministic=False)
    return episodes

  def evaluate(self, episodes: int, seed: int) -> Array:
    """Returns of `episodes` episodes with the most probable actions.

    float64 [episodes]. The environments restart from `seed`, so the same call
    plays the same starts; each environment plays the same number of episodes
    (up to one), so short ones do not count more.
    """
    envs = self._envs.num_envs
    quota = [episodes // envs + (i < episodes % envs) for i in range(envs)]
    returns: list[float] = []

    def may_start(env: int, _: int) -> bool:
      quota[env] -= 1
      return quota[env] >= 0

    self._env_seed = seed
    self._play(may_start, lambda e: returns.append(e.total_reward),
               deterministic=True)
    self._env_seed = int(self._random.integers(2**31))
    return np.array(returns)

  def _open(self, envs: list[int], deterministic: bool) -> list[_Recorder]:
    self._incarnation += 1
    handles = self._client.open(
        [f"{self._name}-{i}" for i in envs],
        [int(seed) for seed in self._random.integers(2**63, size=len(envs))],
        incarnations=[self._incarnation] * len(envs),
        deterministic=deterministic)
    return [_Recorder(handle) for handle in handles]

  def _play(self, may_start: Callable[[int, int], bool],
            on_end: Callable[[Episode], None], deterministic: bool) -> None:
    """`may_start(environment, steps of unfinished episodes)`."""
    recorders: dict[int, _Recorder] = {}
    try:
      self._play_all(recorders, may_start, on_end, deterministic)
    except BaseException:
      self._abort(recorders)
      raise

  def _abort(self, recorders: dict[int, _Recorder]) -> None:
    for recorder in recorders.values():
      try:
        self._client.close([recorder.handle], [ABORTED])
      except Exception:  # pylint: disable=broad-except
        return  # The server is gone, or frees them when their lease runs out.

  def _play_all(self, recorders: dict[int, _Recorder],
                may_start: Callable[[int, int], bool],
                on_end: Callable[[Episode], None], deterministic: bool) -> None:
    space = self._envs.single_observation_space
    batch, infos = self._envs.reset(seed=self._env_seed)
    self._env_seed = None
    env_actions = np.array(self._envs.action_space.sample())
    ready = list(range(self._envs.num_envs))  # At a first observation.
    resetting: set[int] = set()  # Will be after the next step.
    while True:
      playing = sum(len(r) for r in recorders.values())
      fresh = [i for i in ready if may_start(i, playing)]
      if fresh:
        recorders.update(zip(fresh, self._open(fresh, deterministic)))
      if not recorders and not resetting:
        return
      rows = sorted(recorders)
      observations = spaces.encode_observations(space, batch)
      masks = self._mask_function(batch, infos)
      if masks is not None:  # What has no episode must do something allowed.
        env_actions[:] = self._idle_actions(masks)
      if rows:
        env_actions[rows] = self._act(recorders, rows, observations, masks)
      batch, rewards, terminated, truncated, infos = self._envs.step(
          env_actions)
      ready = sorted(resetting)
      resetting = set()
      self._note_outcomes(recorders, rows, rewards, infos)
      done = [i for i in rows if terminated[i] or truncated[i]]
      if done:
        self._finish(recorders, done, batch, terminated, infos, on_end)
        if self._same_step:
          ready += done
        else:
          resetting.update(done)

  def _act(self, recorders: dict[int, _Recorder], rows: list[int],
           observations: Array, masks: Optional[Masks]) -> Array:
    if masks is not None:
      masks = {head: np.asarray(mask)[rows] for head, mask in masks.items()}
    actions = self._client.act([recorders[i].handle for i in rows],
                               observations[rows], masks=masks)
    for row, i in enumerate(rows):
      recorders[i].add_action(observations[i], actions, row)
    self.steps += len(rows)
    return spaces.decode_actions(self._envs.single_action_space,
                                 actions.actions, actions.continuous)

  def _idle_actions(self, masks: Masks) -> Array:
    envs = self._envs.num_envs
    continuous = np.zeros((envs, self._client.spec.continuous_width),
                          np.float32)
    return spaces.decode_actions(
        self._envs.single_action_space,
        self._client.spec.first_allowed(masks, envs), continuous)

  def _note_outcomes(self, recorders: dict[int, _Recorder], rows: list[int],
                     rewards: Array, infos: Mapping[str, Any]) -> None:
    effective = infos.get("effective_choice")
    forced = infos.get("forced")
    for i in rows:
      choice = 0
      if self._driver >= 0:
        choice = int(recorders[i].columns["actions"][-1][self._driver])
        if effective is not None:
          choice = int(effective[i])
      recorders[i].add_outcome(
          Outcome(float(rewards[i]), choice,
                  bool(forced[i]) if forced is not None else False))

  def _finish(self, recorders: dict[int, _Recorder], done: list[int],
              batch: Any, terminated: Array, infos: Mapping[str, Any],
              on_end: Callable[[Episode], None]) -> None:
    space = self._envs.single_observation_space
    ended = [recorders.pop(i) for i in done]
    kinds = [TERMINATED if terminated[i] else TRUNCATED for i in done]
    masks = None
    if self._same_step:
      final = np.stack([
          spaces.encode_observations(space, _add_axis(infos["final_obs"][i]))[0]
          for i in done
      ])
      final_infos = infos.get("final_info", {})
      masks = self._mask_function(None, final_infos)
    else:
      final = spaces.encode_observations(space, batch)[done]
      masks = self._mask_function(batch, infos)
    if masks is not None:
      masks = {head: np.asarray(mask)[done] for head, mask in masks.items()}
    closed = self._client.close([recorder.handle for recorder in ended], kinds,
                                outcomes=[r.last_outcome for r in ended],
                                final_observations=final, final_masks=masks)
    for recorder, kind, value in zip(ended, kinds, closed.bootstrap_values):
      on_end(recorder.finish(kind, float(value), self._driver >= 0))


def _add_axis(observation: Any) -> Any:
  if isinstance(observation, dict):
    return {key: _add_axis(part) for key, part in observation.items()}
  return np.asarray(observation)[None]
