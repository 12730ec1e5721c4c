"""esper-convert: checkpoints of the Python project, as safetensors and back.

  esper-convert to-safetensors CHECKPOINT.pt POLICY.safetensors
  esper-convert to-pytorch POLICY.safetensors CHECKPOINT.pt

What comes out of the first is what `esperctl import` takes; what `esperctl
export` writes is what the second takes. Weights are copied bit by bit, with the
statistics of observations, values and rewards; optimisers begin anew on either
side. Pickles are read with `weights_only`, so that nothing in them is run.

Needs the extra: pip install esper-serve[convert]
"""
from __future__ import annotations

import argparse
import json
import os
import pathlib
import sys
from typing import Any, Mapping, Optional, Sequence

# Formats of the Python project that are read and written.
CHECKPOINT_VERSION = 2
VALUE_HEAD_SCHEMA_VERSION = 2
# Of the observation: a base, and a part for every slot.
SCHEMA_VERSION = 1
BASE_FEATURES = 23
SLOT_FEATURES = 31
UNKNOWN_SENTINEL = -1.0
# Columns of the first layer for each slot's blueprint.
EMBEDDING_WIDTH = 4

_COMPILED_PREFIX = "_orig_mod."
_REQUIRED = ("checkpoint_version", "network_state_dict", "architecture")


class ConversionError(Exception):
  """The file is not what it should be; the words say in which respect."""


def to_safetensors(checkpoint: Mapping[str, Any]
                  ) -> tuple[dict[str, Any], dict[str, str]]:
  """Weights and metadata for `esperctl import` out of a loaded checkpoint.

  Args:
    checkpoint: the dictionary that the Python project saves.

  Returns:
    The tensors by state-dict name, float32 and one int64, and the metadata.

  Raises:
    ConversionError: another version, a missing part, or a network that was made
      before its value head was renamed.
  """
  import torch  # Of the extra.

  for name in _REQUIRED:
    if name not in checkpoint:
      raise ConversionError(f"the checkpoint has no {name}")
  for name, expected in (("checkpoint_version", CHECKPOINT_VERSION),
                         ("value_head_schema_version",
                          VALUE_HEAD_SCHEMA_VERSION)):
    found = checkpoint.get(name, expected)
    if found != expected:
      raise ConversionError(f"{name} is {found}, this program reads {expected}")
  weights: dict[str, Any] = {}
  for name, value in checkpoint["network_state_dict"].items():
    plain = name.removeprefix(_COMPILED_PREFIX)
    whole = value.dtype in (torch.int64, torch.int32)
    weights[plain] = value.detach().to(
        "cpu", torch.int64 if whole else torch.float32).contiguous().clone()
  _check_generation(weights)

  slot_ids = [str(slot) for slot in checkpoint["architecture"]["slot_ids"]]
  slots = weights["slot_head.2.weight"].shape[0]
  if slots != len(slot_ids):
    raise ConversionError(
        f"{len(slot_ids)} slot ids for the {slots} slots of the network")
  metadata = {
      "slot_ids": ",".join(slot_ids),
      "schema_version": str(SCHEMA_VERSION),
      "value_head_schema_version": str(VALUE_HEAD_SCHEMA_VERSION),
      "train_steps": str(int(checkpoint.get("train_steps", 0))),
  }
  # One value has no mean of rows: [mean], [variance], count.
  values = checkpoint.get("value_normalizer_state_dict")
  if values:
    metadata["value_normalizer"] = json.dumps({
        "mean": [_number(values["mean"])],
        "variance": [_number(values["var"])],
        "count": _number(values["count"]),
    })
  more = checkpoint.get("metadata") or {}
  if "obs_normalizer_mean" in more:
    metadata["observation_normalizer"] = json.dumps({
        "mean": [_number(x) for x in more["obs_normalizer_mean"]],
        "variance": [_number(x) for x in more["obs_normalizer_var"]],
        "count": _number(more["obs_normalizer_count"]),
    })
  if "reward_normalizer_mean" in more:
    metadata["reward_normalizer"] = json.dumps({
        "mean": _number(more["reward_normalizer_mean"]),
        "m2": _number(more["reward_normalizer_m2"]),
        "count": int(_number(more["reward_normalizer_count"])),
    })
  return weights, metadata


def to_pytorch(weights: Mapping[str, Any],
               metadata: Mapping[str, str],
               template: Optional[Mapping[str, Any]] = None) -> dict[str, Any]:
  """A checkpoint of the Python project out of `esperctl export`'s file.

  Args:
    weights: tensors by state-dict name.
    metadata: of the file.
    template: a checkpoint of the Python project for a policy of the same
      shape; its configuration is taken over. Without it the configuration is
      the least that loading needs, and all else the project's default.

  Raises:
    ConversionError: not the policy that grows networks, or other shapes or
      slots than the template's.
  """
  import torch  # Of the extra.

  for name in ("slot_head.2.weight", "feature_net.0.weight",
               "lstm.layers.0.weight_hh_l0"):
    if name not in weights:
      raise ConversionError(
          f"there is no {name}: not a policy that grows networks")
  weights = {name: value.clone() for name, value in weights.items()}
  _check_generation(weights)
  slots = weights["slot_head.2.weight"].shape[0]
  slot_ids = [s for s in metadata.get("slot_ids", "").split(",") if s]
  if len(slot_ids) != slots:
    raise ConversionError(
        f"{len(slot_ids)} slot ids for the {slots} slots of the network")
  state_dim = weights["feature_net.0.weight"].shape[1] - EMBEDDING_WIDTH * slots
  if state_dim != BASE_FEATURES + SLOT_FEATURES * slots:
    raise ConversionError(
        f"observations of width {state_dim} are not the Python project's")

  values = _moments(metadata, "value_normalizer")
  observations = _moments(metadata, "observation_normalizer")
  more: dict[str, Any] = {}
  if template is None:
    config: dict[str, Any] = {
        "lstm_hidden_dim": weights["lstm.layers.0.weight_hh_l0"].shape[1],
        "weight_decay": 0.0,
        "compile_mode": "off",
    }
    # A fresh optimiser over all parameters, in their order; the null index of
    # the embedding is a buffer.
    optimizer = torch.optim.Adam(
        [torch.nn.Parameter(value) for value in weights.values()
         if value.is_floating_point()], lr=3e-4, eps=1e-5).state_dict()
  else:
    _check_template(weights, slot_ids, template)
    config = dict(template["config"])
    more.update(template.get("metadata") or {})
    groups = template["optimizer_state_dict"]["param_groups"]
    optimizer = {"state": {}, "param_groups": groups}
  more.setdefault("kind", "last")
  more.setdefault("batches_completed", 0)
  # Statistics that saw nothing yet are the project's own initial ones.
  width = len(observations["mean"]) if observations else 0
  if observations and width not in (0, state_dim):
    raise ConversionError(
        f"statistics of {width} features for observations of {state_dim}")
  seen = width == state_dim and observations["count"] > 0
  more["obs_normalizer_contract"] = {
      "schema_version": SCHEMA_VERSION,
      "slot_ids": slot_ids,
      "base_feature_size": BASE_FEATURES,
      "slot_feature_size": SLOT_FEATURES,
      "state_dim": state_dim,
      "unknown_sentinel": UNKNOWN_SENTINEL,
  }
  more["obs_normalizer_mean"] = (
      observations["mean"] if seen else [0.0] * state_dim)
  more["obs_normalizer_var"] = (
      observations["variance"] if seen else [1.0] * state_dim)
  more["obs_normalizer_count"] = observations["count"] if seen else 1e-4
  more.setdefault("obs_normalizer_momentum", 0.99)
  rewards = _moments(metadata, "reward_normalizer")
  if rewards:
    more["reward_normalizer_mean"] = rewards["mean"]
    more["reward_normalizer_m2"] = rewards["m2"]
    more["reward_normalizer_count"] = int(rewards["count"])
  counted = bool(values) and values["count"] > 0
  return {
      "checkpoint_version": CHECKPOINT_VERSION,
      "value_head_schema_version": VALUE_HEAD_SCHEMA_VERSION,
      "network_state_dict": weights,
      "optimizer_state_dict": optimizer,
      "value_normalizer_state_dict": {
          "mean": torch.tensor(values["mean"][0] if counted else 0.0),
          "var": torch.tensor(values["variance"][0] if counted else 1.0),
          "count": torch.tensor(int(values["count"]) if counted else 0),
      },
      "train_steps": int(metadata.get("train_steps", 0)),
      "aux_training_step": int(metadata.get("train_steps", 0)),
      "config": config,
      "architecture": {
          "state_dim": state_dim,
          "slot_ids": tuple(slot_ids),
          "num_slots": slots,
      },
      "metadata": more,
  }


def load_checkpoint(path: str) -> Mapping[str, Any]:
  """Reads a pickle without running what is in it."""
  import torch  # Of the extra.

  try:
    loaded = torch.load(path, map_location="cpu", weights_only=True)
  except Exception as error:  # Of many kinds, none of them documented.
    raise ConversionError(f"{path} cannot be read: {error}") from error
  if not isinstance(loaded, dict):
    raise ConversionError(f"{path} holds no dictionary")
  return loaded


def read_policy(path: str) -> tuple[dict[str, Any], dict[str, str]]:
  """Tensors, in their file's order, and metadata of a safetensors file."""
  from safetensors import SafetensorError, safe_open  # Of the extra.

  try:
    with safe_open(path, framework="pt") as opened:
      names = opened.offset_keys()
      return ({name: opened.get_tensor(name) for name in names},
              dict(opened.metadata() or {}))
  except (SafetensorError, OSError) as error:
    raise ConversionError(f"{path} cannot be read: {error}") from error


def main(arguments: Optional[Sequence[str]] = None) -> int:
  parser = argparse.ArgumentParser(
      prog="esper-convert",
      description="Converts checkpoints of the Python project to safetensors "
      "and back.")
  ways = parser.add_subparsers(dest="way", required=True)
  way = ways.add_parser("to-safetensors", help="for esperctl import")
  way.add_argument("checkpoint")
  way.add_argument("policy")
  way = ways.add_parser("to-pytorch", help="of what esperctl export wrote")
  way.add_argument("policy")
  way.add_argument("checkpoint")
  way.add_argument("--template",
                   help="checkpoint of the Python project whose configuration "
                   "is taken over")
  options = parser.parse_args(arguments)
  try:
    if options.way == "to-safetensors":
      weights, metadata = to_safetensors(load_checkpoint(options.checkpoint))
      from safetensors.torch import save  # Of the extra.
      _replace(options.policy, save(weights, metadata))
    else:
      import io

      import torch  # Of the extra.
      template = (load_checkpoint(options.template)
                  if options.template else None)
      bytes_out = io.BytesIO()
      torch.save(to_pytorch(*read_policy(options.policy), template), bytes_out)
      _replace(options.checkpoint, bytes_out.getvalue())
  except ImportError as error:
    print(f"esper-convert: {error}; pip install esper-serve[convert]",
          file=sys.stderr)
    return 1
  except (ConversionError, OSError) as error:
    print(f"esper-convert: {error}", file=sys.stderr)
    return 1
  return 0


def _replace(path: str, content: bytes) -> None:
  """Writes a file whole or not at all."""
  partial = pathlib.Path(f"{path}.partial")
  try:
    with open(partial, "wb") as out:
      out.write(content)
      out.flush()
      os.fsync(out.fileno())
    os.replace(partial, path)
  finally:
    partial.unlink(missing_ok=True)


def _check_generation(weights: Mapping[str, Any]) -> None:
  old = any(name.startswith("value_head.") for name in weights)
  new = any(name.startswith("state_value_head.") for name in weights)
  if old and not new:
    raise ConversionError(
        "the network has value_head.* and no state_value_head.*: it was made "
        "before the value head was renamed, and its values depend on the op")


def _check_template(weights: Mapping[str, Any], slot_ids: Sequence[str],
                    template: Mapping[str, Any]) -> None:
  theirs = {
      name.removeprefix(_COMPILED_PREFIX): value
      for name, value in template["network_state_dict"].items()
  }
  for name in sorted(set(theirs) | set(weights)):
    if name not in theirs or name not in weights:
      raise ConversionError(f"{name} is not in both, file and template")
    if theirs[name].shape != weights[name].shape:
      raise ConversionError(
          f"{name} is {tuple(weights[name].shape)}, the template's is "
          f"{tuple(theirs[name].shape)}")
  if list(template["architecture"]["slot_ids"]) != list(slot_ids):
    raise ConversionError("the template has other slots")


def _moments(metadata: Mapping[str, str], name: str) -> dict[str, Any]:
  if name not in metadata:
    return {}
  try:
    return dict(json.loads(metadata[name]))
  except ValueError as error:
    raise ConversionError(f"metadata {name}: {error}") from error


def _number(value: Any) -> float:
  """Of a number or a tensor with one."""
  return float(value.item() if hasattr(value, "item") else value)


if __name__ == "__main__":
  sys.exit(main())
