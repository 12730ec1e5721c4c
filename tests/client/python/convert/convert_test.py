"""Checkpoints of the Python project through a server and back."""
import json
import os
import pathlib
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file, save_file

from esper_serve import convert


@pytest.fixture(scope="module")
def ctl(tmp_path_factory):
  """Runs esperctl against a server of a small network-growing policy."""
  folder = tmp_path_factory.mktemp("server")
  port_file = folder / "port"
  server = subprocess.Popen([
      os.environ["ESPER_SERVER"], "--address=127.0.0.1:0",
      f"--port_file={port_file}", f"--checkpoint_dir={folder / 'checkpoints'}",
      "--set=policy.hidden_dim=16", "--log_level=warn"
  ])
  end = time.monotonic() + 120
  while not (port_file.exists() and port_file.read_text().strip()):
    assert server.poll() is None and time.monotonic() < end
    time.sleep(0.05)

  def run(*command, fails=False):
    ran = subprocess.run([
        os.environ["ESPERCTL"], f"--address=127.0.0.1:{port_file.read_text()}",
        "--timeout=60s", "--json", *map(str, command)
    ], capture_output=True, text=True, check=False)
    assert (ran.returncode != 0) == fails, ran.stderr
    return ran.stderr if fails else json.loads(ran.stdout)

  yield run
  server.terminate()
  server.wait()


@pytest.fixture
def exported(ctl, tmp_path):
  path = tmp_path / "exported.safetensors"
  ctl("export", path)
  return path


def esper_convert(*arguments):
  """The program itself, in a process of its own."""
  return subprocess.run(
      [sys.executable, "-m", "esper_serve.convert", *map(str, arguments)],
      capture_output=True, text=True, check=False)


def upstream(exported, **changes):
  """A checkpoint as the Python project saves it, in the middle of a run."""
  checkpoint = convert.to_pytorch(*convert.read_policy(str(exported)))
  generator = torch.Generator().manual_seed(3)
  for name, value in checkpoint["network_state_dict"].items():
    if value.is_floating_point():
      value += torch.randn(value.shape, generator=generator) / 100
  width = checkpoint["architecture"]["state_dim"]
  checkpoint["train_steps"] = 7
  checkpoint["config"]["gamma"] = 0.9
  checkpoint["value_normalizer_state_dict"] = {
      "mean": torch.tensor(0.5), "var": torch.tensor(4.0),
      "count": torch.tensor(640)
  }
  checkpoint["metadata"].update({
      "obs_normalizer_mean": torch.linspace(-1, 1, width).tolist(),
      "obs_normalizer_var": torch.linspace(0.5, 2, width).tolist(),
      "obs_normalizer_count": 1000.0001,
      "reward_normalizer_mean": 0.25, "reward_normalizer_m2": 90.0,
      "reward_normalizer_count": 100, "batches_completed": 7, "n_envs": 4,
  })
  checkpoint.update(changes)
  return checkpoint


def save(checkpoint, path):
  torch.save(checkpoint, path)
  return path


def same(ours, theirs):
  return (list(ours) == list(theirs) and
          all(torch.equal(ours[name], theirs[name]) for name in ours))


def test_a_checkpoint_is_served_and_comes_back(ctl, exported, tmp_path):
  checkpoint = upstream(exported)
  source = save(checkpoint, tmp_path / "upstream.pt")
  policy = tmp_path / "policy.safetensors"
  assert esper_convert("to-safetensors", source, policy).returncode == 0
  imported = ctl("import", policy, "theirs")
  verified = ctl("verify", "theirs")
  assert verified["weights_digest"] == imported["weights_digest"]
  restored = ctl("restore", "theirs")
  assert restored["policy_version"] == imported["policy_version"]
  versions = ctl("versions")["versions"]
  acting = [v for v in versions if "current" in v["labels"]]
  assert acting[0]["weights_digest"] == imported["weights_digest"]

  back = tmp_path / "back.safetensors"
  ctl("export", back)
  target = tmp_path / "back.pt"
  ran = esper_convert("to-pytorch", back, target, f"--template={source}")
  assert ran.returncode == 0, ran.stderr
  loaded = torch.load(target, weights_only=True)
  assert same({k: loaded["network_state_dict"][k]
               for k in checkpoint["network_state_dict"]},
              checkpoint["network_state_dict"])
  assert loaded["config"] == checkpoint["config"]
  assert loaded["architecture"] == checkpoint["architecture"]
  for name in ("obs_normalizer_mean", "obs_normalizer_var",
               "obs_normalizer_count", "obs_normalizer_contract",
               "reward_normalizer_m2", "reward_normalizer_count", "n_envs"):
    assert loaded["metadata"][name] == pytest.approx(
        checkpoint["metadata"][name]) if isinstance(
            checkpoint["metadata"][name], (float, list)) else (
                loaded["metadata"][name] == checkpoint["metadata"][name]), name
  values = loaded["value_normalizer_state_dict"]
  assert values["var"].item() == pytest.approx(4.0)
  assert values["count"].item() == 640


def test_what_was_trained_here_loads_in_pytorch(exported, tmp_path):
  target = tmp_path / "ours.pt"
  ran = esper_convert("to-pytorch", exported, target)
  assert ran.returncode == 0, ran.stderr
  loaded = torch.load(target, weights_only=True)
  ours = load_file(exported)
  assert set(ours) == set(loaded["network_state_dict"])
  for name, value in ours.items():
    assert torch.equal(value, loaded["network_state_dict"][name]), name
  assert loaded["architecture"] == {
      "state_dim": 116, "slot_ids": ("r0c0", "r0c1", "r0c2"), "num_slots": 3
  }
  assert loaded["config"]["lstm_hidden_dim"] == 16
  assert loaded["checkpoint_version"] == 2
  # Modules take the weights by these names, and an optimiser its state.
  lstm = torch.nn.LSTM(16, 16, batch_first=True)
  lstm.load_state_dict({
      name: loaded["network_state_dict"][f"lstm.layers.0.{name}"]
      for name in lstm.state_dict()
  })
  parameters = [
      torch.nn.Parameter(v) for v in loaded["network_state_dict"].values()
      if v.is_floating_point()
  ]
  optimizer = torch.optim.Adam(parameters)
  optimizer.load_state_dict(loaded["optimizer_state_dict"])
  for parameter in parameters:
    parameter.grad = torch.ones_like(parameter)
  optimizer.step()


def test_a_compiled_network_has_its_prefix_taken_away(exported, tmp_path):
  checkpoint = upstream(exported)
  plain = checkpoint["network_state_dict"]
  checkpoint["network_state_dict"] = {
      f"_orig_mod.{name}": value for name, value in plain.items()
  }
  weights, metadata = convert.to_safetensors(
      torch.load(save(checkpoint, tmp_path / "c.pt"), weights_only=True))
  assert same(weights, plain)
  assert metadata["slot_ids"] == "r0c0,r0c1,r0c2"


class Hostile:

  def __init__(self, path):
    self.path = path

  def __reduce__(self):
    return (pathlib.Path.touch, (pathlib.Path(self.path),))


def test_pickles_are_not_run(exported, tmp_path):
  ran = tmp_path / "ran"
  source = save(upstream(exported, more=Hostile(ran)), tmp_path / "bad.pt")
  result = esper_convert("to-safetensors", source, tmp_path / "out")
  assert result.returncode == 1 and "cannot be read" in result.stderr
  assert not ran.exists() and not (tmp_path / "out").exists()


@pytest.mark.parametrize("changes, words", [
    ({"checkpoint_version": 1}, "checkpoint_version is 1"),
    ({"value_head_schema_version": 1}, "value_head_schema_version is 1"),
    ({"architecture": {"slot_ids": ("r0c0",)}}, "1 slot ids for the 3 slots"),
])
def test_other_formats_are_refused(exported, tmp_path, changes, words):
  source = save(upstream(exported, **changes), tmp_path / "old.pt")
  result = esper_convert("to-safetensors", source, tmp_path / "out")
  assert result.returncode == 1 and words in result.stderr


def test_old_value_heads_are_refused(exported, tmp_path):
  checkpoint = upstream(exported)
  checkpoint["network_state_dict"] = {
      name.replace("state_value_head.", "value_head."): value
      for name, value in checkpoint["network_state_dict"].items()
  }
  source = save(checkpoint, tmp_path / "old.pt")
  result = esper_convert("to-safetensors", source, tmp_path / "out")
  assert result.returncode == 1 and "value head was renamed" in result.stderr


def test_a_template_of_another_shape_is_refused(exported, tmp_path):
  checkpoint = upstream(exported)
  checkpoint["network_state_dict"]["op_head.2.bias"] = torch.zeros(99)
  source = save(checkpoint, tmp_path / "other.pt")
  result = esper_convert("to-pytorch", exported, tmp_path / "out",
                         f"--template={source}")
  assert result.returncode == 1 and "op_head.2.bias" in result.stderr


def test_the_server_refuses_other_slots(ctl, exported, tmp_path):
  weights, metadata = convert.to_safetensors(upstream(exported))
  metadata["slot_ids"] = "r0c0,r1c0,r0c2"
  path = tmp_path / "other.safetensors"
  save_file(weights, path, metadata)
  assert "SPEC_MISMATCH" in ctl("import", path, fails=True)
