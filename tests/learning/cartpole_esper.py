"""Trains a policy of Esper Serve on CartPole without velocities, over gRPC."""
import time

from esper_serve import LocalServer, PolicyClient, PolicySpec, Trainer
from esper_serve import VectorRunner

import cartpole_task
import results

# Found on seeds 100 and above, which are not among the reported ones.
SETTINGS = {
    "hidden_dim": 64,
    "envs": 16,
    "steps_per_update": 2048,
    "passes": 10,
    "minibatches": 4,
    "learning_rate": 1e-3,
    "final_learning_rate": 1e-5,
    "gamma": 0.99,
    "gae_lambda": 0.95,
    "clip_ratio": 0.2,
    "entropy_coef": 0.0,
    "value_coef": 0.5,
    "target_kl": 0.05,
    "max_grad_norm": 0.5,
}
LOSS = ("gamma", "gae_lambda", "clip_ratio", "entropy_coef", "value_coef",
        "target_kl")


class Clock:
  """Wall-clock and processor seconds of training, server included."""

  def __init__(self, server):
    self._server = server
    self.wall = self.cpu = 0.0

  def _now(self):
    server_cpu = results.cpu_seconds(self._server.process_id)
    return time.perf_counter(), time.process_time() + server_cpu

  def __enter__(self):
    self._start = self._now()

  def __exit__(self, *_):
    wall, cpu = self._now()
    self.wall += wall - self._start[0]
    self.cpu += cpu - self._start[1]


def train(binary, seed, steps, eval_every, eval_episodes, settings, on_point):
  """Trains for at most `steps` steps, the learning rate falling linearly.

  It ends early if whole episodes of all environments might not fit. Calls on_point(steps, wall, cpu, returns) after every evaluation; the seconds
  count training alone.
  """
  envs = cartpole_task.make_envs(settings["envs"])
  eval_envs = cartpole_task.make_envs(eval_episodes)
  spec = PolicySpec.from_spaces(
      envs.single_observation_space, envs.single_action_space,
      hidden_dim=settings["hidden_dim"])
  loss = {name: settings[name] for name in LOSS}
  last = settings["final_learning_rate"]
  server = LocalServer(binary, spec, init_seed=seed)
  with server as address:
    clock = Clock(server)
    with PolicyClient(address) as client, Trainer(client) as trainer:
      runner = VectorRunner(client, envs, seed=seed)
      evaluator = VectorRunner(client, eval_envs)
      next_eval = eval_every
      longest = settings["envs"] * cartpole_task.MAX_STEPS
      while runner.steps + longest <= steps:
        left = 1 - runner.steps / steps
        with clock:
          episodes = runner.collect(settings["steps_per_update"])
          trainer.update(
              episodes, passes=settings["passes"],
              minibatches=settings["minibatches"],
              learning_rate=last + left * (settings["learning_rate"] - last),
              max_grad_norm=settings["max_grad_norm"], **loss)
        if runner.steps >= next_eval or runner.steps + longest > steps:
          next_eval += eval_every * (
              1 + (runner.steps - next_eval) // eval_every)
          on_point(runner.steps, clock.wall, clock.cpu,
                   evaluator.evaluate(eval_episodes, seed=10_000 + seed))
