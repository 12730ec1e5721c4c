"""A server process for the tests that ask for one."""
import os
import pathlib

import gymnasium as gym
import numpy as np
import pytest

from esper_serve import Head, LocalServer, PolicyClient, PolicySpec

OBSERVATIONS = gym.spaces.Box(-1, 1, (3,))
CHOICES = gym.spaces.Discrete(4)


def server_binary():
  return os.environ.get("ESPER_SERVER", "bazel-bin/server/esper_server")


@pytest.fixture(scope="session")
def start_server():
  """Starts a server for a specification; returns its address."""
  servers = []

  def start(spec, **options):
    server = LocalServer(server_binary(), spec, **options)
    servers.append(server)
    return server.__enter__()

  yield start
  for server in servers:
    server.__exit__()


@pytest.fixture(scope="module")
def spec():
  return PolicySpec.from_spaces(OBSERVATIONS, CHOICES, hidden_dim=64)


@pytest.fixture(scope="module")
def address(start_server, spec, tmp_path_factory):
  checkpoints = tmp_path_factory.mktemp("checkpoints")
  return start_server(spec, flags=[f"--checkpoint_dir={checkpoints}"])


@pytest.fixture
def client(address):
  with PolicyClient(address) as connected:
    yield connected


@pytest.fixture(scope="session")
def factored_spec():
  """An op that drives a target, whose mask depends on the op."""
  return PolicySpec(
      name="factored",
      observation=[("state", 2)],
      heads=[
          Head("op", 3, labels=["wait", "push", "pull"], idle_choice=0),
          Head("speed", 2),
          Head("target", 5, driver="op", relevant_when=[1, 2],
               conditional_mask=True),
      ],
      hidden_dim=64,
      mask_optional=False)


@pytest.fixture
def observations():
  return np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)


@pytest.fixture(scope="session")
def readme():
  return pathlib.Path(
      os.environ.get("ESPER_README", "README.md")).read_text(encoding="utf-8")
