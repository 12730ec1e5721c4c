"""The slot game: masks, factored heads and a delayed reward.

Trains on each seed, keeps finished runs in OUT/results.jsonl, writes
OUT/curves.csv and OUT/curves.svg, and ends with one JSON line. The optimum is
derived in slot_game_env.py.
"""
import argparse
import json
import pathlib
import time

import numpy as np

from esper_serve import LocalServer, PolicyClient, Trainer, VectorRunner

import results
import slot_game_env

GOAL = 0.95  # Of the optimum.

# Found on seeds 100 and above, which are not among the reported ones.
SETTINGS = {
    "hidden_dim": 64,
    "envs": 64,
    "steps": 300_000,
    "passes": 4,
    "minibatches": 4,
    "learning_rate": 2e-3,
    "final_learning_rate": 1e-5,
    "gamma": 1.0,
    "gae_lambda": 0.95,
    "entropy_coef": 0.01,
    "target_kl": 0.05,
}
LOSS = ("gamma", "gae_lambda", "entropy_coef", "target_kl")


def random_return(games, seed):
  """Mean return of uniformly random allowed actions."""
  envs = slot_game_env.SlotGame(games)
  _, infos = envs.reset(seed=seed)
  random = np.random.default_rng(seed)
  for _ in range(slot_game_env.STEPS):
    masks = infos["action_masks"]
    actions = np.zeros((games, 3), int)
    for i in range(games):
      actions[i, 0] = random.choice(np.flatnonzero(masks["op"][i]))
      actions[i, 1] = random.choice(
          np.flatnonzero(masks["slot"][i, actions[i, 0]]))
      actions[i, 2] = random.integers(slot_game_env.KINDS)
    _, rewards, _, _, infos = envs.step(actions)
  return float(rewards.mean())


def train(server, seed, settings, eval_every, eval_episodes, on_point):
  """Calls on_point(steps, training seconds, returns) after evaluations."""
  loss = {name: settings[name] for name in LOSS}
  last = settings["final_learning_rate"]
  spec = slot_game_env.spec(settings["hidden_dim"])
  with LocalServer(server, spec, init_seed=seed) as address:
    with PolicyClient(address) as client, Trainer(client) as trainer:
      runner = VectorRunner(client, slot_game_env.SlotGame(settings["envs"]),
                            seed=seed)
      evaluator = VectorRunner(client, slot_game_env.SlotGame(eval_episodes))
      seconds, next_eval = 0.0, eval_every
      per_update = settings["envs"] * slot_game_env.STEPS
      while runner.steps + per_update <= settings["steps"]:
        left = 1 - runner.steps / settings["steps"]
        start = time.perf_counter()
        trainer.update(
            runner.collect(per_update), passes=settings["passes"],
            minibatches=settings["minibatches"],
            learning_rate=last + left * (settings["learning_rate"] - last),
            **loss)
        seconds += time.perf_counter() - start
        if (runner.steps >= next_eval or
            runner.steps + per_update > settings["steps"]):
          next_eval += eval_every
          on_point(runner.steps, seconds,
                   evaluator.evaluate(eval_episodes, seed=10_000 + seed))


def run_seed(seed, options):
  points = []

  def on_point(steps, seconds, returns):
    points.append({
        "steps": int(steps), "wall_seconds": round(seconds, 2),
        "return": round(float(returns.mean()), 3),
        "worst": float(returns.min()),
    })
    print(f"seed {seed}: {steps} steps, {seconds:.0f} s, "
          f"return {returns.mean():.2f} of {slot_game_env.OPTIMUM:g}",
          flush=True)

  train(options.server, seed, SETTINGS, options.eval_every,
        options.eval_episodes, on_point)
  return {"points": points}


def summarize(done, options):
  optimum = slot_game_env.OPTIMUM
  final = [r["points"][-1]["return"] / optimum for r in done]
  reached = [next((p["steps"] for p in r["points"]
                   if p["return"] >= GOAL * optimum), None) for r in done]
  mean, half = results.interval(final)
  return {
      "task": "slot_game",
      "seeds": len(done),
      "steps": SETTINGS["steps"],
      "optimum": optimum,
      "random_share": round(random_return(500, seed=1) / optimum, 3),
      "share_of_optimum": {
          "mean": round(mean, 4),
          "ci95": None if half is None else round(half, 4)
      },
      "worst_seed": round(min(final), 4),
      "seeds_passed": sum(share >= GOAL for share in final),
      "steps_to_goal": reached,
      "wall_seconds": [r["points"][-1]["wall_seconds"] for r in done],
  }


def main():
  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  parser.add_argument("--server", default="bazel-bin/server/esper_server")
  parser.add_argument("--out", type=pathlib.Path,
                      default=pathlib.Path("runs/learning/slot_game"))
  parser.add_argument("--seeds", type=int, default=5)
  parser.add_argument("--first_seed", type=int, default=0)
  parser.add_argument("--eval_every", type=int, default=20_000)
  parser.add_argument("--eval_episodes", type=int, default=100)
  options = parser.parse_args()
  results.exit_on_sigterm()
  store = results.ResultStore(options.out)
  done = []
  for seed in range(options.first_seed, options.first_seed + options.seeds):
    run = {"task": "slot_game", "method": "esper", "seed": seed,
           "eval_every": options.eval_every,
           "eval_episodes": options.eval_episodes, "settings": SETTINGS}
    result = store.find(run)
    done.append(result or store.add(run, run_seed(seed, options)))
  store.write_curves(done, ["steps", "wall_seconds", "return", "worst"])
  results.plot(options.out / "curves.svg", done, {"esper": "Esper Serve"},
               value="return", title="Slot game",
               unit=f"mean return of {options.eval_episodes} episodes",
               lines={slot_game_env.OPTIMUM: "optimum",
                      GOAL * slot_game_env.OPTIMUM: "goal"})
  print(json.dumps(summarize(done, options)))


if __name__ == "__main__":
  main()
