"""The proofs of network growing, with runs of seconds."""
import json
import os
import pathlib

import pytest

import growing
import growing_run
import growing_settings

PROGRAMS = os.environ.get("ESPER_PROGRAMS", "bazel-bin")
DIGITS = os.environ.get("ESPER_DIGITS", "data/digits.csv.gz")
SHORT = {
    "run": {"max_epochs": 14, "episodes_per_update": 4, "updates": 2},
    "update": {"passes": 1, "minibatches": 1},
    "environment": {"samples_per_epoch": 64},
}


def short_config(profile):
  return growing_settings.training_config("digits", profile, 100, SHORT)


@pytest.mark.parametrize("profile", growing.PROFILES)
def test_trains_and_plays_the_episodes_of_the_baselines(tmp_path, profile):
  programs = growing_run.Programs(PROGRAMS, "digits_impaired", DIGITS)
  config = short_config(profile)
  result = growing.play(programs, profile, config, tmp_path / "p", episodes=2)
  assert [p["steps"] for p in result["points"]] == [56, 112]
  assert all(0 < p["accuracy"] < 100 for p in result["points"])
  assert [e["epochs"] for e in result["episodes"]] == [14, 14]
  if profile == "default":  # Trained once, and played anew alike.
    trained = tmp_path / "p/training/run/updates.csv"
    before = trained.stat().st_mtime_ns
    again = growing.play(programs, profile, config, tmp_path / "p", episodes=2)
    assert again["episodes"] == result["episodes"]
    assert trained.stat().st_mtime_ns == before

  never = growing.play(programs, "never_grow", short_config("default"),
                       tmp_path / "n", episodes=2)["episodes"]
  assert [e["germinated"] for e in never] == [0, 0]
  # Of equal seeds, in the environment of the default profile.
  effective = json.loads(
      (tmp_path / "p/evaluation/run/config.json").read_text("utf-8"))
  assert effective["environment"]["profile"] == "default"
  assert ([e["seed"] for e in result["episodes"]] ==
          [e["seed"] for e in never])
  for mine, theirs in zip(result["episodes"], never):
    if mine["germinated"] == 0:
      assert mine["accuracy"] == pytest.approx(theirs["accuracy"])
      assert mine["return"] == pytest.approx(theirs["return"], abs=1e-5)


def test_a_program_that_does_not_start_says_why(tmp_path):
  programs = growing_run.Programs(PROGRAMS, "digits_impaired", DIGITS)
  config = growing_settings.merged(short_config("default"),
                                   {"ppo": {"gama": 1}})
  with pytest.raises(RuntimeError, match="gamma"):
    growing_run.train(programs, config, tmp_path / "run")
  assert not (tmp_path / "run/trained.json").exists()


def test_a_worker_that_fails_ends_the_run(tmp_path):
  programs = growing_run.Programs(PROGRAMS, "digits_impaired", "nowhere.csv")
  with pytest.raises(RuntimeError, match="worker ended with 1.*nowhere"):
    growing_run.train(programs, short_config("default"), tmp_path)


def episodes(*returns):
  figures = {name: 1 for name in growing.FIGURES}
  return {"points": [], "episodes": [{**figures, "return": r, "accuracy": 2 * r}
                                     for r in returns]}


def test_intervals_decide_what_beats_what():
  summary = growing.conclude("digits", {
      "default": [episodes(9, 11), episodes(11, 13), episodes(10, 12)],
      "never_grow": [episodes(1), episodes(2), episodes(1.5)],
      "heuristic": [episodes(9), episodes(2), episodes(13)]})
  assert summary["default"]["return"] == {"mean": 11.0, "ci95": 2.484}
  assert summary["default_beats"]["never_grow"] == {"return": True,
                                                    "accuracy": True}
  # Better on average, but the intervals overlap.
  assert summary["default_beats"]["heuristic"]["return"] is False
  single = growing.conclude("digits", {"default": [episodes(9)],
                                       "never_grow": [episodes(1)]})
  assert single["default_beats"]["never_grow"]["return"] is None


def test_later_layers_win_key_by_key():
  assert growing_settings.merged(
      {"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"c": 4}, "d": {"e": 5}}) == {
          "a": {"b": 1, "c": 4}, "d": {"e": 5}}
  variant = growing_settings.training_config("text", "upstream_averages", 3)
  plain = growing_settings.training_config("text", "default", 3)
  assert variant["profile"] == "default"
  assert variant["ppo"].pop("policy_mean") == "upstream"
  assert variant["ppo"].pop("entropy_over") == "upstream"
  assert variant["ppo"].pop("statistics_over") == "upstream"
  assert variant == plain
  config = growing_settings.training_config("digits", "upstream", 3)
  assert config["policy"]["init_seed"] == config["run"]["seed"] == 3
  assert 40 <= config["run"]["max_epochs"] <= 60
