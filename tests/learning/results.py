"""Finished runs on disk, their curves, and numbers over seeds."""
import csv
import json
import math
import pathlib
import signal
import sys

# Two-sided 95 % quantiles of Student's t by degrees of freedom, 1 to 9.
_T95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)


def exit_on_sigterm():
  """Lets a terminated program end what it started."""
  signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


def interval(values):
  """Mean and half-width of its 95 % interval; None for a single value."""
  count = len(values)
  mean = sum(values) / count
  if count < 2:
    return mean, None
  variance = sum((v - mean)**2 for v in values) / (count - 1)
  quantile = _T95[count - 2] if count <= 10 else 1.96
  return mean, quantile * math.sqrt(variance / count)


def cpu_seconds(process_id):
  """User and system time of a process so far (Linux)."""
  stat = pathlib.Path(f"/proc/{process_id}/stat").read_text(encoding="ascii")
  fields = stat.rpartition(")")[2].split()
  return (int(fields[11]) + int(fields[12])) / 100


class ResultStore:
  """JSON lines of finished runs in a folder, one per run, keyed by `run`."""

  def __init__(self, folder):
    self.folder = pathlib.Path(folder)
    self.folder.mkdir(parents=True, exist_ok=True)
    self._path = self.folder / "results.jsonl"

  def all(self):
    if not self._path.exists():
      return []
    lines = self._path.read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines if line.endswith("}")]

  def find(self, run):
    """The result of this run; None if it has not finished."""
    # As it reads from disk: tuples are lists there.
    run = json.loads(json.dumps(run))
    for result in self.all():
      if result["run"] == run:
        return result
    return None

  def add(self, run, result):
    with open(self._path, "a", encoding="utf-8") as file:
      file.write(json.dumps({"run": run, **result}) + "\n")
    return self.find(run)

  def write_curves(self, results, columns):
    """curves.csv: one row per evaluation of each run."""
    with open(self.folder / "curves.csv", "w", encoding="utf-8") as file:
      writer = csv.writer(file, lineterminator="\n")
      writer.writerow(["method", "seed", *columns])
      for result in results:
        run = result["run"]
        for point in result["points"]:
          writer.writerow([run["method"], run["seed"],
                           *(point[column] for column in columns)])


def plot(path, results, labels, *, value, title, unit, lines):
  """Curves of every run over steps, one colour per method.

  labels: method -> name in the legend. lines: height -> name of it.
  """
  import matplotlib
  matplotlib.use("Agg")
  from matplotlib import pyplot
  matplotlib.rcParams["svg.hashsalt"] = "esper"
  figure, axes = pyplot.subplots(figsize=(7, 4))
  colours = {method: f"C{i}" for i, method in enumerate(labels)}
  seen = set()
  for result in results:
    method = result["run"]["method"]
    points = result["points"]
    axes.plot([p["steps"] / 1000 for p in points],
              [p[value] for p in points], color=colours[method], alpha=0.7,
              label=None if method in seen else labels[method])
    seen.add(method)
  for height, name in lines.items():
    axes.axhline(height, color="0.5", linestyle="--", linewidth=1)
    axes.annotate(name, (0, height), xytext=(2, 2), fontsize=8,
                  textcoords="offset points", color="0.3")
  axes.set_xlabel("environment steps, thousands")
  axes.set_ylabel(unit)
  axes.set_title(title)
  axes.legend(loc="lower right")
  figure.tight_layout()
  figure.savefig(path, metadata={"Date": None})
  pyplot.close(figure)
