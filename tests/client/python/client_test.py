"""PolicyClient against a real server: steps, retries, refusals."""
import grpc
import numpy as np
import pytest

from esper_serve import (ABORTED, TERMINATED, TRUNCATED, BudgetExceededError,
                         EpisodeLostError, InvalidRequestError, Outcome,
                         PolicyClient, RetryPolicy, StepOutOfOrderError,
                         UnavailableError)


class Unavailable(grpc.RpcError):
  """A reply that got lost on the way."""

  def code(self):
    return grpc.StatusCode.UNAVAILABLE

  def details(self):
    return "lost"

  def trailing_metadata(self):
    return ()


def lose_replies(stub, method, count):
  """Lets `count` calls of `method` reach the server and loses their replies."""
  real = getattr(stub, method)
  left = [count]

  def call(*args, **kwargs):
    reply = real(*args, **kwargs)
    if left[0] > 0:
      left[0] -= 1
      raise Unavailable()
    return reply

  setattr(stub, method, call)


def test_same_seed_gives_same_actions_whoever_shares_the_batch(
    client, observations):
  together = client.open(["a", "b", "c", "d"], [1, 2, 3, 4])
  alone = client.open(["e"], [3])
  for _ in range(5):
    batch = client.act(together, observations)
    single = client.act(alone, observations[2:3])
    assert batch.actions[2].tolist() == single.actions[0].tolist()
    np.testing.assert_allclose(batch.log_probs[2], single.log_probs[0],
                               atol=1e-6)
  client.close(together + alone, [ABORTED] * 5)


def test_a_lost_reply_does_not_advance_the_episode_twice(client, observations):
  kept = client.open(["kept"], [5])
  lost = client.open(["lost"], [5])
  lose_replies(client._stub, "GetAction", 2)
  for step in range(3):
    second = client.act(lost, observations[:1])
    first = client.act(kept, observations[:1])
    assert first.actions.tolist() == second.actions.tolist()
    assert first.values.tolist() == second.values.tolist()
    assert lost[0].step == step + 1
  client.close(kept + lost, [ABORTED] * 2)


def test_a_lost_reply_of_open_is_superseded(client, observations):
  lose_replies(client._stub, "OpenEpisodes", 1)
  episodes = client.open(["reopened"], [5], incarnations=[7])
  assert episodes[0].incarnation == 8
  client.act(episodes, observations[:1])


def test_deterministic_episodes_take_the_most_probable_action(
    client, observations):
  episodes = client.open(["d"] * 1, [1], deterministic=True)
  again = client.open(["d2"], [2], deterministic=True)
  one = client.act(episodes, observations[:1])
  two = client.act(again, observations[:1])
  assert one.actions.tolist() == two.actions.tolist()
  assert one.log_probs[0, 0] >= np.log(1 / 4)
  client.close(episodes + again, [ABORTED] * 2)


def test_truncation_has_a_bootstrap_value_and_termination_none(
    client, observations):
  episodes = client.open(["t1", "t2"], [1, 2])
  client.act(episodes, observations[:2])
  with pytest.raises(ValueError, match="final observation"):
    client.close(episodes, [TERMINATED, TRUNCATED])
  closed = client.close(
      episodes, [TERMINATED, TRUNCATED],
      outcomes=[Outcome(1.5), Outcome(-2.0)],
      final_observations=observations[2:4])
  assert closed.bootstrap_values[0] == 0
  assert closed.bootstrap_values[1] != 0
  assert closed.returns.tolist() == [1.5, -2.0]


def test_a_step_out_of_order_names_the_expected_one(client, observations):
  (episode,) = client.open(["order"], [1])
  episode.step = 3
  with pytest.raises(StepOutOfOrderError) as error:
    client.act([episode], observations[:1])
  assert error.value.reason == "STEP_OUT_OF_ORDER"
  assert error.value.step == 0
  assert error.value.row == 0


def test_a_refused_row_advances_no_episode(client, observations):
  episodes = client.open(["r1", "r2"], [1, 2])
  bad = observations[:2].copy()
  bad[1, 0] = np.nan
  with pytest.raises(InvalidRequestError) as error:
    client.act(episodes, bad)
  assert error.value.reason == "NONFINITE_INPUT"
  assert error.value.row == 1
  assert error.value.code == grpc.StatusCode.INVALID_ARGUMENT
  assert [episode.step for episode in episodes] == [0, 0]
  client.act(episodes, observations[:2])


def test_a_closed_episode_is_lost(client, observations):
  episodes = client.open(["gone"], [1])
  client.act(episodes, observations[:1])
  client.close(episodes, [TERMINATED])
  with pytest.raises(EpisodeLostError) as error:
    client.act(episodes, observations[:1])
  assert error.value.reason == "UNKNOWN_EPISODE"
  assert error.value.hint


def test_a_higher_incarnation_takes_the_environment_over(client, observations):
  old = client.open(["twice"], [1], incarnations=[1])
  with pytest.raises(EpisodeLostError, match="WRONG_INCARNATION"):
    client.open(["twice"], [1], incarnations=[1])
  client.open(["twice"], [1], incarnations=[2])
  with pytest.raises(EpisodeLostError, match="WRONG_INCARNATION"):
    client.act(old, observations[:1])


def test_a_wrong_width_names_the_field(client):
  episodes = client.open(["width"], [1])
  with pytest.raises(InvalidRequestError) as error:
    client.act(episodes, np.zeros((1, 2)))
  assert error.value.reason == "BAD_SHAPE"
  assert error.value.field == "observations"


def test_more_rows_than_the_server_takes_exceed_a_budget(client):
  count = client.max_rows + 1
  with pytest.raises(BudgetExceededError) as error:
    client.open([f"many-{i}" for i in range(count)], [0] * count)
  assert error.value.field == "max_rows_per_call"


def test_masks_forbid_choices_and_must_leave_one(start_server, factored_spec):
  with PolicyClient(start_server(factored_spec)) as client:
    episodes = client.open([f"m{i}" for i in range(8)], list(range(8)))
    target = np.zeros((8, 3, 5), bool)
    target[:, 1, 3] = True  # Pushing reaches target 3, pulling target 4.
    target[:, 2, 4] = True
    op = np.tile([False, True, True], (8, 1))
    seen = set()
    for _ in range(20):
      actions = client.act(episodes, np.zeros((8, 2)),
                           masks={"op": op, "target": target}).actions
      seen |= {(int(a[0]), int(a[2])) for a in actions}
    assert seen == {(1, 3), (2, 4)}
    target[5] = False
    with pytest.raises(InvalidRequestError) as error:
      client.act(episodes, np.zeros((8, 2)), masks={"op": op,
                                                    "target": target})
    assert error.value.reason == "EMPTY_ACTION_MASK"
    assert error.value.row == 5
    assert error.value.field == "target"


def test_nobody_listens():
  with pytest.raises(UnavailableError, match="Is the server running"):
    PolicyClient("127.0.0.1:1", timeout=0.2)


def test_giving_up_says_how_often_it_tried(address, observations):
  retry = RetryPolicy(give_up_after=0.3, initial_backoff=0.01)
  with PolicyClient(address, retry=retry) as client:
    episodes = client.open(["impatient"], [1])
    lose_replies(client._stub, "GetAction", 1000)
    with pytest.raises(UnavailableError, match="gave up after") as error:
      client.act(episodes, observations[:1])
    assert error.value.attempts > 1
    assert episodes[0].step == 0
