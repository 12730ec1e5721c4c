"""Runs the programs of a network-growing proof on this machine.

One training run is a policy server, the coordinator and one process of
environments, over loopback. Everything of it lies in one folder.
"""
import contextlib
import csv
import json
import pathlib
import resource
import shutil
import subprocess
import time

import growing_settings

SERVER = "server/esper_server"
TRAINER = "client/trainer/esper_trainer"
WORKER = "client/env/esper_env"
ENVIRONMENTS = 8  # In one process, in two halves.


class Programs:
  """Where the programs and the data of a task are."""

  def __init__(self, folder, task, data):
    self._folder = pathlib.Path(folder)
    self.task = task
    self.data = data

  def path(self, name):
    return str(self._folder / name)

  @property
  def task_flags(self):
    return [f"--task={self.task}", f"--data={self.data}"]


class _Processes(contextlib.ExitStack):
  """Child processes that end with the block, last one first."""

  def __init__(self, logs):
    super().__init__()
    self._logs = logs

  def start(self, name, *command):
    log = self.enter_context(open(self._logs / f"{name}.log", "wb"))
    child = subprocess.Popen(command, stdout=log, stderr=log)
    self.callback(self._stop, child)
    return child

  def wait_for_port(self, name, child, file):
    """The address of a child that writes its port into the file."""
    deadline = time.monotonic() + 60
    while child.poll() is None and time.monotonic() < deadline:
      if file.exists() and file.read_text(encoding="utf-8").strip():
        return f"127.0.0.1:{file.read_text(encoding='utf-8').strip()}"
      time.sleep(0.02)
    raise RuntimeError(f"{name} did not start: {self._words(name)}")

  def succeed(self, **children):
    """Waits for the end of all; the first that fails ends the others."""
    left = dict(children)
    while left:
      for name, child in list(left.items()):
        if child.poll() is None:
          continue
        if child.returncode != 0:
          raise RuntimeError(f"{name} ended with {child.returncode}: "
                             f"{self._words(name)}")
        del left[name]
      time.sleep(0.05)

  def _words(self, name):
    path = self._logs / f"{name}.log"
    return path.read_text(encoding="utf-8", errors="replace")[-2000:]

  @staticmethod
  def _stop(child):
    if child.poll() is not None:
      return
    child.terminate()
    try:
      child.wait(timeout=20)
    except subprocess.TimeoutExpired:
      child.kill()
      child.wait()


def _coordinate(programs, config, checkpoints, folder, server_flags):
  """Runs all three until the coordinator ends; `folder` is made anew."""
  shutil.rmtree(folder, ignore_errors=True)
  folder.mkdir(parents=True)
  checkpoints.mkdir(exist_ok=True)
  config_file = folder / "given_config.json"
  config_file.write_text(json.dumps(config, indent=2), encoding="utf-8")
  configured = f"--config={config_file}"
  with _Processes(folder) as processes:
    port = folder / "server.port"
    server = processes.start(
        "server", programs.path(SERVER), "--address=127.0.0.1:0",
        f"--port_file={port}", f"--checkpoint_dir={checkpoints}", configured,
        *server_flags)
    address = processes.wait_for_port("server", server, port)
    port = folder / "trainer.port"
    trainer = processes.start(
        "trainer", programs.path(TRAINER), f"--policy_address={address}",
        "--address=127.0.0.1:0", f"--port_file={port}",
        f"--run_dir={folder / 'run'}", configured)
    address = processes.wait_for_port("trainer", trainer, port)
    worker = processes.start(
        "worker", programs.path(WORKER), f"--coordinator={address}",
        f"--environments={ENVIRONMENTS}", *programs.task_flags)
    processes.succeed(trainer=trainer, worker=worker)


def _rows(path):
  with open(path, encoding="utf-8", newline="") as file:
    return list(csv.DictReader(file))


def _cpu_seconds():
  """Of all children that have ended."""
  usage = resource.getrusage(resource.RUSAGE_CHILDREN)
  return usage.ru_utime + usage.ru_stime


def train(programs, config, folder):
  """Trains once and remembers it: points of every update, and seconds.

  A run that was cut off starts again.
  """
  done = folder / "trained.json"
  if done.exists():
    return json.loads(done.read_text(encoding="utf-8"))
  wall, cpu = time.monotonic(), _cpu_seconds()
  shutil.rmtree(folder, ignore_errors=True)
  folder.mkdir(parents=True)
  _coordinate(programs, config, folder / "checkpoints", folder / "training", [])
  points, steps = [], 0
  for row in _rows(folder / "training/run/updates.csv"):
    steps += int(row["transitions"])
    points.append({"steps": steps, "return": float(row["mean_return"]),
                   "accuracy": float(row["mean_host_accuracy"])})
  result = {"points": points,
            "wall_seconds": round(time.monotonic() - wall, 1),
            "cpu_seconds": round(_cpu_seconds() - cpu, 1)}
  done.write_text(json.dumps(result), encoding="utf-8")
  return result


def evaluate(programs, config, folder, episodes):
  """Episodes of the trained policy, sampled as in training, default reward.

  They are the first round of another run: nothing has been learnt before it
  ends, and what is learnt from it is thrown away. Its root is the complement of
  the training's, which gives the seeds that baselines play.
  """
  evaluation = folder / "evaluation"
  config = growing_settings.merged(config, {
      "run": {"seed": 2**64 - 1 - config["run"]["seed"], "updates": 1,
              "episodes_per_update": episodes, "min_episodes": episodes},
      "update": {"passes": 1, "minibatches": 1},
      "environment": {"profile": "default"}})
  scratch = folder / "evaluation_checkpoints"
  shutil.rmtree(scratch, ignore_errors=True)
  shutil.copytree(folder / "checkpoints", scratch)
  _coordinate(programs, config, scratch, evaluation, ["--restore=latest"])
  rows = sorted(_rows(evaluation / "run/episodes.csv"),
                key=lambda row: int(row["episode"]))
  return [{"episode": int(row["episode"]), "seed": int(row["seed"]),
           "return": float(row["return"]),
           "accuracy": float(row["host_accuracy"]),
           "epochs": int(row["steps"]),
           "germinated": int(row["seeds_germinated"]),
           "fossilized": int(row["seeds_fossilized"]),
           "pruned": int(row["seeds_pruned"]),
           "params": int(row["total_params"])} for row in rows]


def play_baseline(programs, baseline, config, folder, episodes):
  """The same episodes as `evaluate`, played by a baseline."""
  folder.mkdir(parents=True, exist_ok=True)
  output = folder / "episodes.jsonl"
  with _Processes(folder) as processes:
    processes.succeed(baseline=processes.start(
        "baseline", programs.path(WORKER), f"--baseline={baseline}",
        f"--episodes={episodes}", f"--seed={config['run']['seed']}",
        f"--max_epochs={config['run']['max_epochs']}", "--environments=1",
        f"--env_options={json.dumps(config['environment'])}",
        f"--output={output}", *programs.task_flags))
  lines = output.read_text(encoding="utf-8").splitlines()
  return [{"episode": played["episode"], "seed": played["seed"],
           "return": played["return"],
           "accuracy": played["accuracy"], "epochs": played["steps"],
           "germinated": played["seeds_germinated"],
           "fossilized": played["seeds_fossilized"],
           "pruned": played["seeds_pruned"],
           "params": played["total_params"]}
          for played in map(json.loads, lines)]
