"""Short versions of the learning proofs: enough to see that it learns."""
import os
import types

import cartpole
import cartpole_esper
import slot_game
import slot_game_env

SERVER = os.environ.get("ESPER_SERVER", "bazel-bin/server/esper_server")


def test_memory_improves_cartpole():
  # A policy that acts at random balances the pole for about 22 steps.
  options = types.SimpleNamespace(
      server=SERVER, steps=20_000, eval_every=8_000, eval_episodes=10,
      max_minutes=10)
  cartpole.SETTINGS["esper"] = {**cartpole_esper.SETTINGS, "envs": 8}
  result = cartpole.train("esper", 0, options)
  assert result["finished"]
  assert result["points"][-1]["return"] > 60


def test_masked_factored_heads_improve_the_slot_game():
  returns = []
  slot_game.train(
      SERVER, 0, {**slot_game.SETTINGS, "steps": 20_000}, eval_every=20_000,
      eval_episodes=50, on_point=lambda *point: returns.append(point[2].mean()))
  at_random = slot_game.random_return(200, seed=0)
  assert at_random < 6
  assert returns[-1] > at_random + 4


def test_figures_of_a_run_are_those_of_its_points():
  def point(steps, value):
    return {"steps": steps, "return": value, "wall_seconds": steps / 10,
            "cpu_seconds": steps / 20}

  good = {"run": {"seed": 3}, "finished": True, "points": [
      point(s, v) for s, v in
      [(1, 20), (2, 480), (3, 440), (4, 470), (5, 455), (6, 500), (7, 476),
       (8, 490)]]}
  figures = cartpole.judge(good)
  assert figures["steps_to_goal"] == 2 and figures["wall_seconds_to_goal"] == .2
  assert figures["worst_of_last_five"] == 455 and figures["passed"]
  touched = {**good, "points": good["points"][:-1] + [point(8, 449)]}
  assert not cartpole.judge(touched)["passed"]
  never = {**good, "points": [point(1, 20), point(2, 30)]}
  summary = cartpole.summarize([figures, cartpole.judge(never)])
  assert summary["seeds_passed"] == 1
  assert summary["steps_to_goal"] == 2 and summary["steps_to_goal_is_lower_bound"]
  assert summary["final_return"]["mean"] == 260
  assert not slot_game_env.STEPS % 6


def test_finished_seeds_are_kept(tmp_path):
  import results
  store = results.ResultStore(tmp_path)
  run = {"seed": 1, "settings": {"rate": (1, 2)}}
  assert store.find(run) is None
  added = store.add(run, {"points": []})
  assert results.ResultStore(tmp_path).find(run) == added
  # A line that was cut off by a crash does not count.
  with open(tmp_path / "results.jsonl", "a", encoding="utf-8") as file:
    file.write('{"run": {"seed": 2')
  assert len(store.all()) == 1


def test_intervals_are_those_of_students_t():
  import results
  mean, half = results.interval([1.0, 2.0, 3.0, 4.0, 5.0])
  assert mean == 3.0
  assert abs(half - 1.963) < 1e-3  # 2.776 * sqrt(2.5 / 5)
  assert results.interval([7.0]) == (7.0, None)
