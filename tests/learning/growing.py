"""Network growing: trained policies beside never-grow, random and heuristic.

For each seed: trains a policy under each profile, then plays the same episodes
with it and with the baselines, all in the environment of the `default` profile
and for the same number of host epochs. Finished runs are kept in
OUT/results.jsonl. Writes OUT/curves.csv, OUT/return.svg and OUT/accuracy.svg,
and ends with one JSON line.
"""
import argparse
import json
import pathlib

import growing_run
import growing_settings
import results

PROFILES = ("default", "upstream")
TRAINED = PROFILES + tuple(growing_settings.VARIANTS)
BASELINES = ("never_grow", "random_legal", "heuristic")
LABELS = {"default": "trained, default", "upstream": "trained, upstream"}
FIGURES = ("return", "accuracy", "epochs", "germinated", "fossilized", "pruned",
           "params")


def play(programs, method, config, folder, episodes):
  """One method on one seed; its result without the key."""
  if method in BASELINES:
    return {"points": [], "episodes": growing_run.play_baseline(
        programs, method, config, folder, episodes)}
  trained = growing_run.train(programs, config, folder)
  return {**trained, "episodes": growing_run.evaluate(
      programs, config, folder, episodes)}


def summarize(done):
  """Figures of one method: means over episodes, then over seeds."""
  summary = {"seeds": len(done)}
  for name in FIGURES:
    mean, half = results.interval(
        [sum(e[name] for e in result["episodes"]) / len(result["episodes"])
         for result in done])
    summary[name] = {"mean": round(mean, 3),
                     "ci95": None if half is None else round(half, 3)}
  if done[0]["points"]:
    summary["steps"] = done[0]["points"][-1]["steps"]
    for name in ("wall_seconds", "cpu_seconds"):
      summary[name] = round(sum(r[name] for r in done) / len(done), 1)
  return summary


def beats(ours, theirs, name="return"):
  """Whether our interval lies above theirs; None without intervals."""
  if ours[name]["ci95"] is None or theirs[name]["ci95"] is None:
    return None
  return (ours[name]["mean"] - ours[name]["ci95"] >
          theirs[name]["mean"] + theirs[name]["ci95"])


def conclude(name, by_method):
  """The JSON line. by_method: method -> results of all its seeds."""
  summary = {"task": name}
  for method, done in by_method.items():
    summary[method] = summarize(done)
  if "default" in summary:
    summary["default_beats"] = {
        other: {"return": beats(summary["default"], summary[other]),
                "accuracy": beats(summary["default"], summary[other],
                                  "accuracy")}
        for other in by_method if other != "default"}
  return summary


def draw(folder, name, by_method, summary):
  """Training curves; of returns only the default profile's, which is scored.

  The means of the baselines are drawn as lines.
  """
  def lines(figure):
    return {summary[b][figure]["mean"]: b for b in BASELINES if b in summary}

  for figure, methods, unit in (
      ("return", ["default"], "mean return of an update's episodes"),
      ("accuracy", list(PROFILES), "mean held-out host accuracy, percent")):
    shown = [m for m in methods if m in by_method]
    results.plot(folder / f"{figure}.svg",
                 [r for method in shown for r in by_method[method]],
                 {method: LABELS[method] for method in shown}, value=figure,
                 title=f"Network growing, {name}: training", unit=unit,
                 lines=lines(figure))


def main():
  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  parser.add_argument("name", choices=sorted(growing_settings.TASKS))
  parser.add_argument("--programs", default="bazel-bin",
                      help="folder of the built programs")
  parser.add_argument("--data", help="data of the task")
  parser.add_argument("--out", type=pathlib.Path)
  parser.add_argument("--methods", default=",".join(PROFILES + BASELINES),
                      help=f"of {', '.join(TRAINED + BASELINES)}; in this "
                      "order, seed by seed")
  parser.add_argument("--seeds", type=int, default=5)
  parser.add_argument("--first_seed", type=int, default=0)
  parser.add_argument("--episodes", type=int, default=10,
                      help="evaluation episodes of one seed")
  options = parser.parse_args()
  results.exit_on_sigterm()
  methods = options.methods.split(",")
  unknown = set(methods) - set(TRAINED) - set(BASELINES)
  if unknown:
    parser.error(f"no method is named {sorted(unknown)[0]}")

  task = growing_settings.TASKS[options.name]
  programs = growing_run.Programs(options.programs, task["task"],
                                  options.data or task["data"])
  store = results.ResultStore(
      options.out or pathlib.Path("runs/learning") / options.name)
  by_method = {method: [] for method in methods}
  for seed in range(options.first_seed, options.first_seed + options.seeds):
    for method in methods:
      config = growing_settings.training_config(
          options.name, method if method in TRAINED else "default", seed)
      run = {"task": options.name, "method": method, "seed": seed,
             "episodes": options.episodes, "config": config}
      result = store.find(run)
      if result is None:
        result = store.add(run, play(programs, method, config,
                                     store.folder / f"{method}-{seed}",
                                     options.episodes))
      by_method[method].append(result)
      mean = summarize([result])
      print(f"{options.name} {method} seed {seed}: return "
            f"{mean['return']['mean']}, accuracy {mean['accuracy']['mean']}",
            flush=True)
  summary = conclude(options.name, by_method)
  store.write_curves([r for done in by_method.values() for r in done],
                     ["steps", "return", "accuracy"])
  draw(store.folder, options.name, by_method, summary)
  print(json.dumps(summary))


if __name__ == "__main__":
  main()
