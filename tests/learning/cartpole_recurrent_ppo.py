"""The same task with RecurrentPPO of sb3-contrib, as published for it."""
import time

import cartpole_task

# CartPoleNoVel-v1 in hyperparams/ppo_lstm.yml of rl-baselines3-zoo. "lin_x"
# falls linearly from x to 0 over the training.
SETTINGS = {
    "envs": 8,
    "n_steps": 32,
    "batch_size": 256,
    "gae_lambda": 0.8,
    "gamma": 0.98,
    "n_epochs": 20,
    "ent_coef": 0.0,
    "learning_rate": "lin_0.001",
    "clip_range": "lin_0.2",
}


def _schedule(setting):
  start = float(setting.removeprefix("lin_"))
  return lambda left: start * left


def train(seed, steps, eval_every, eval_episodes, settings, on_point):
  """Like cartpole_esper.train, on one thread."""
  import torch
  from sb3_contrib import RecurrentPPO
  from stable_baselines3.common.callbacks import BaseCallback
  from stable_baselines3.common.env_util import make_vec_env
  from stable_baselines3.common.evaluation import evaluate_policy

  torch.set_num_threads(1)

  class Evaluate(BaseCallback):
    """Evaluates between updates and keeps its time out of the count."""

    def __init__(self):
      super().__init__()
      self.next = eval_every
      self.wall = self.cpu = 0.0
      self.resume()

    def resume(self):
      self.wall_start = time.perf_counter()
      self.cpu_start = time.process_time()

    def pause(self):
      self.wall += time.perf_counter() - self.wall_start
      self.cpu += time.process_time() - self.cpu_start

    def evaluate(self):
      self.pause()
      eval_envs.seed(10_000 + seed)
      returns, _ = evaluate_policy(
          self.model, eval_envs, n_eval_episodes=eval_episodes,
          deterministic=True, return_episode_rewards=True)
      on_point(self.num_timesteps, self.wall, self.cpu, returns)
      self.resume()

    def _on_step(self):
      return True

    def _on_rollout_start(self):  # The update before has been made.
      if self.num_timesteps >= self.next:
        self.next += eval_every * (
            1 + (self.num_timesteps - self.next) // eval_every)
        self.evaluate()

  envs = make_vec_env(cartpole_task.make_env, settings["envs"], seed=seed)
  eval_envs = make_vec_env(cartpole_task.make_env, eval_episodes)
  model = RecurrentPPO(
      "MlpLstmPolicy", envs, seed=seed, device="cpu",
      n_steps=settings["n_steps"], batch_size=settings["batch_size"],
      gae_lambda=settings["gae_lambda"], gamma=settings["gamma"],
      n_epochs=settings["n_epochs"], ent_coef=settings["ent_coef"],
      learning_rate=_schedule(settings["learning_rate"]),
      clip_range=_schedule(settings["clip_range"]))
  callback = Evaluate()
  model.learn(steps, callback=callback)
  if callback.next <= steps:
    callback.evaluate()
