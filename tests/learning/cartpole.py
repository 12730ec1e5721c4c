"""CartPole without velocities: Esper Serve beside RecurrentPPO.

Trains each method on each seed, keeps finished runs in OUT/results.jsonl (a
second call goes on where the first one was stopped), writes OUT/curves.csv and
OUT/curves.svg, and ends with one JSON line.
"""
import argparse
import json
import pathlib

import cartpole_esper
import cartpole_recurrent_ppo
import results

GOAL = 475  # Mean return over the evaluation episodes.
KEPT = 450  # What the last five evaluations must not fall below.
LABELS = {"esper": "Esper Serve", "recurrent_ppo": "RecurrentPPO (sb3-contrib)"}
SETTINGS = {
    "esper": cartpole_esper.SETTINGS,
    "recurrent_ppo": cartpole_recurrent_ppo.SETTINGS,
}


class OutOfTime(Exception):
  """A training run took longer than it may."""


def train(method, seed, options):
  """One training run; its result without the key."""
  points = []

  def on_point(steps, wall, cpu, returns):
    mean = float(sum(returns) / len(returns))
    points.append({
        "steps": int(steps), "wall_seconds": round(wall, 2),
        "cpu_seconds": round(cpu, 2), "return": round(mean, 2),
        "worst": float(min(returns)),
    })
    print(f"{method} seed {seed}: {steps} steps, {wall:.0f} s, "
          f"return {mean:.1f}", flush=True)
    if wall > 60 * options.max_minutes:
      raise OutOfTime()

  arguments = (seed, options.steps, options.eval_every, options.eval_episodes,
               SETTINGS[method], on_point)
  finished = True
  try:
    if method == "esper":
      cartpole_esper.train(options.server, *arguments)
    else:
      cartpole_recurrent_ppo.train(*arguments)
  except OutOfTime:
    finished = False
  return {"finished": finished, "points": points}


def judge(result):
  """The figures of one run."""
  points = result["points"]
  reached = [p for p in points if p["return"] >= GOAL]
  last_five = [p["return"] for p in points[-5:]]
  return {
      "seed": result["run"]["seed"],
      "finished": result["finished"],
      "final_return": points[-1]["return"],
      "worst_of_last_five": min(last_five),
      "steps": points[-1]["steps"],
      "steps_to_goal": reached[0]["steps"] if reached else None,
      "wall_seconds_to_goal": reached[0]["wall_seconds"] if reached else None,
      "wall_seconds": points[-1]["wall_seconds"],
      "cpu_seconds": points[-1]["cpu_seconds"],
      "passed": points[-1]["return"] >= GOAL and min(last_five) >= KEPT,
  }


def summarize(judged):
  """Figures of one method over its seeds."""

  def over_seeds(name):
    mean, half = results.interval([run[name] for run in judged])
    return {"mean": round(mean, 2),
            "ci95": None if half is None else round(half, 2)}

  reached = [r["steps_to_goal"] for r in judged if r["steps_to_goal"]]
  return {
      "seeds": len(judged),
      "seeds_passed": sum(run["passed"] for run in judged),
      "final_return": over_seeds("final_return"),
      "seeds_that_reached_goal": len(reached),
      # A run that never got there counts with all its steps: a lower bound.
      "steps_to_goal": round(sum(r["steps_to_goal"] or r["steps"]
                                 for r in judged) / len(judged)),
      "steps_to_goal_is_lower_bound": len(reached) < len(judged),
      "wall_seconds": over_seeds("wall_seconds"),
      "cpu_seconds": over_seeds("cpu_seconds"),
      "runs": judged,
  }


def ratios(ours, theirs):
  """Ours over theirs. Per step where the number of steps differs."""
  return {
      "final_return": round(
          ours["final_return"]["mean"] / theirs["final_return"]["mean"], 3),
      "steps_to_goal": round(ours["steps_to_goal"] / theirs["steps_to_goal"],
                             3),
      "steps_to_goal_is_upper_bound": theirs["steps_to_goal_is_lower_bound"],
      "wall_clock": round(
          ours["wall_seconds"]["mean"] / theirs["wall_seconds"]["mean"], 4),
      "cpu_time": round(
          ours["cpu_seconds"]["mean"] / theirs["cpu_seconds"]["mean"], 4),
  }


def main():
  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  parser.add_argument("--server", default="bazel-bin/server/esper_server")
  parser.add_argument("--out", type=pathlib.Path,
                      default=pathlib.Path("runs/learning/cartpole"))
  parser.add_argument("--methods", default="esper,recurrent_ppo",
                      help="esper, recurrent_ppo, or both")
  parser.add_argument("--seeds", type=int, default=5)
  parser.add_argument("--first_seed", type=int, default=0)
  parser.add_argument("--steps", type=int, default=100_000,
                      help="environment steps of one training run")
  parser.add_argument("--eval_every", type=int, default=10_000)
  parser.add_argument("--eval_episodes", type=int, default=20)
  parser.add_argument("--max_minutes", type=float, default=30,
                      help="a run that takes longer is stopped")
  options = parser.parse_args()
  results.exit_on_sigterm()
  methods = options.methods.split(",")
  unknown = set(methods) - set(LABELS)
  if unknown:
    parser.error(f"no method is named {sorted(unknown)[0]}")

  store = results.ResultStore(options.out)
  done = []
  for seed in range(options.first_seed, options.first_seed + options.seeds):
    for method in methods:
      run = {"task": "cartpole", "method": method, "seed": seed,
             "steps": options.steps, "eval_every": options.eval_every,
             "eval_episodes": options.eval_episodes,
             "settings": SETTINGS[method]}
      result = store.find(run)
      done.append(result or store.add(run, train(method, seed, options)))
  store.write_curves(done, ["steps", "wall_seconds", "cpu_seconds", "return",
                            "worst"])
  results.plot(options.out / "curves.svg", done,
               {method: LABELS[method] for method in methods}, value="return",
               title="CartPole-v1, velocities hidden",
               unit=f"mean return of {options.eval_episodes} episodes",
               lines={GOAL: "goal"})
  summary = {"task": "cartpole", "steps": options.steps, "goal": GOAL}
  for method in methods:
    summary[method] = summarize(
        [judge(r) for r in done if r["run"]["method"] == method])
  if len(methods) == 2:
    summary["ratios"] = ratios(summary["esper"], summary["recurrent_ppo"])
  print(json.dumps(summary))


if __name__ == "__main__":
  main()
