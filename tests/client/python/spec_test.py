"""PolicySpec: what it writes is what the server reads."""
import json

import gymnasium as gym
import numpy as np
import pytest

from esper_serve import (Head, PolicyClient, PolicySpec, decode_actions,
                         encode_observations)


def test_server_gives_back_the_specification_it_was_started_with(
    start_server, factored_spec):
  with PolicyClient(start_server(factored_spec)) as client:
    assert json.loads(client.spec.to_json()) == json.loads(
        factored_spec.to_json())
    assert client.spec.driver == 0


def test_server_refuses_a_bad_specification_with_the_field(start_server):
  bad = PolicySpec("bad", [("x", 1)], [Head("a", 2, floor=1.5)])
  with pytest.raises(RuntimeError, match="floor"):
    start_server(bad)


def test_heads_of_action_spaces():
  box = gym.spaces.Box(-1, 1, (2,))
  discrete = PolicySpec.from_spaces(box, gym.spaces.Discrete(3))
  assert [(h.name, h.size) for h in discrete.heads] == [("action", 3)]
  multi = PolicySpec.from_spaces(box, gym.spaces.MultiDiscrete([2, 5]))
  assert [h.size for h in multi.heads] == [2, 5]
  assert multi.continuous_width == 0


def test_box_actions_make_a_gaussian_head_with_its_bounds():
  spec = PolicySpec.from_spaces(
      gym.spaces.Discrete(2),
      gym.spaces.Box(np.array([-2.0, 0.0]), np.array([2.0, 1.0])))
  (head,) = json.loads(spec.to_json())["heads"]
  assert head["kind"] == "gaussian"
  assert (head["low"], head["high"]) == ([-2.0, 0.0], [2.0, 1.0])
  assert "floor" not in head and "placeholder" not in head
  assert spec.continuous_width == 2
  assert spec.pack_masks({}, 3).shape == (3, 0)
  assert json.loads(PolicySpec.from_json(spec.to_json()).to_json()) == (
      json.loads(spec.to_json()))


def test_unsupported_spaces_are_refused():
  box = gym.spaces.Box(-1, 1, (2,))
  with pytest.raises(TypeError, match="actions of Text"):
    PolicySpec.from_spaces(box, gym.spaces.Text(5))
  with pytest.raises(TypeError, match="observations of Text"):
    PolicySpec.from_spaces(gym.spaces.Text(5), gym.spaces.Discrete(2))


def test_unknown_field_and_version_are_refused():
  spec = PolicySpec("p", [("x", 1)], [Head("a", 2)])
  data = json.loads(spec.to_json())
  with pytest.raises(TypeError, match="colour"):
    PolicySpec.from_json(json.dumps({**data, "colour": 1}))
  with pytest.raises(ValueError, match="version"):
    PolicySpec.from_json(json.dumps({**data, "format_version": 2}))


def test_masks_are_packed_conditional_first_least_bit_first(factored_spec):
  target = np.zeros((1, 3, 5), bool)
  target[0, 0, 0] = True  # Bit 0.
  target[0, 2, 4] = True  # Bit 14.
  op = np.array([[True, False, True]])  # Bits 15 to 17.
  packed = factored_spec.pack_masks({"target": target, "op": op}, 1)
  bits = 1 << 0 | 1 << 14 | 1 << 15 | 1 << 17 | 3 << 18  # All of speed.
  assert packed.tolist() == [list(bits.to_bytes(3, "little"))]


def test_bad_masks_are_refused(factored_spec):
  with pytest.raises(ValueError, match="no head is named sped"):
    factored_spec.pack_masks({"sped": np.ones((1, 2), bool)}, 1)
  with pytest.raises(ValueError, match=r"target must have shape \(1, 3, 5\)"):
    factored_spec.pack_masks({"target": np.ones((1, 5), bool)}, 1)


def test_observations_of_nested_spaces_are_one_vector():
  space = gym.spaces.Dict({
      "where": gym.spaces.Box(-1, 1, (2, 2)),
      "what": gym.spaces.Discrete(3, start=5),
      "which": gym.spaces.MultiDiscrete([2, 2]),
  })
  batch = {
      "where": np.arange(8, dtype=np.float32).reshape(2, 2, 2),
      "what": np.array([5, 7]),
      "which": np.array([[0, 1], [1, 0]]),
  }
  spec = PolicySpec.from_spaces(space, gym.spaces.Discrete(2))
  vectors = encode_observations(space, batch)
  assert vectors.shape == (2, spec.observation_width)
  by_name = {}
  for name, width in spec.observation:
    by_name[name] = vectors[:, :width].tolist()
    vectors = vectors[:, width:]
  assert by_name == {
      "observation.where": [[0, 1, 2, 3], [4, 5, 6, 7]],
      "observation.what": [[1, 0, 0], [0, 0, 1]],
      "observation.which": [[1, 0, 0, 1], [0, 1, 1, 0]],
  }


def test_actions_come_back_as_the_environment_takes_them():
  nothing = np.zeros((2, 0), np.float32)
  chosen = np.array([[1], [0]])
  assert decode_actions(
      gym.spaces.Discrete(2, start=3), chosen, nothing).tolist() == [4, 3]
  grid = gym.spaces.MultiDiscrete([[2], [3]])
  assert decode_actions(grid, np.array([[1, 2], [0, 1]]),
                        nothing).tolist() == [[[1], [2]], [[0], [1]]]
  box = gym.spaces.Box(-1, 1, (1, 2))
  assert decode_actions(box, chosen, np.array(
      [[-3, 0.5], [0.25, 9]], np.float32)).tolist() == [[[-1, 0.5]],
                                                        [[0.25, 1]]]
