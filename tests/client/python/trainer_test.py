"""Trainer against a real server."""
import dataclasses

import numpy as np
import pytest

from client_test import lose_replies
from esper_serve import (TERMINATED, BehaviourMismatchError, Episode,
                         EsperError, InvalidRequestError, Outcome, PolicyClient,
                         StaleLeaseError, Trainer)
from esper_serve._proto.esper.v1 import policy_admin_pb2


def play(client, count=4, steps=6, reward=lambda action: float(action == 2)):
  """Episodes of a task in which choice 2 is the good one."""
  episodes = client.open([f"play-{i}" for i in range(count)],
                         list(range(count)),
                         incarnations=[play.incarnation] * count)
  play.incarnation += 1
  columns = []
  observations = np.ones((count, 3), np.float32)
  for _ in range(steps):
    columns.append(client.act(episodes, observations))
  client.close(episodes, [TERMINATED] * count)

  def column(name, i):
    return np.stack([getattr(c, name)[i] for c in columns])

  return [
      Episode(
          key=str(i), observations=np.ones((steps, 3), np.float32), masks=None,
          categorical=None, actions=column("actions", i),
          continuous=column("continuous", i), log_probs=column("log_probs", i),
          values=column("values", i), versions=column("versions", i),
          rewards=np.array([reward(a) for a in column("actions", i)[:, 0]],
                           np.float32),
          effective_choices=None, forced=np.zeros(steps, bool), end=TERMINATED)
      for i in range(count)
  ]


play.incarnation = 1


def test_recorded_episodes_train_without_upload(client, trainer):
  count, steps = 3, 5
  episodes = client.open([f"kept-{i}" for i in range(count)],
                         list(range(count)), record=True)
  observations = np.ones((count, 3), np.float32)
  outcomes = None
  for _ in range(steps):
    client.act(episodes, observations, outcomes=outcomes)
    outcomes = [Outcome(1.0)] * count
  with pytest.raises(InvalidRequestError):
    client.act(episodes, observations)
  with pytest.raises(EsperError):
    trainer.update(episodes)  # They are still open.
  client.close(episodes, [TERMINATED] * count, outcomes=outcomes)
  report = trainer.update(episodes)
  assert report.transitions == count * steps
  assert report.optimizer_steps > 0
  assert trainer.discard(episodes) == count
  assert trainer.discard(episodes) == 0


@pytest.fixture
def trainer(client):
  with Trainer(client, holder="test") as held:
    yield held


def optimizer_steps(trainer):
  status = trainer._connection.call(trainer._admin.GetStatus,
                                    policy_admin_pb2.GetStatusRequest(),
                                    "GetStatus")
  return status.optimizer_steps


def test_updates_teach_the_good_choice(client, trainer):
  before = np.mean([e.total_reward for e in play(client, 16)])
  for _ in range(15):
    trainer.update(play(client, 16), passes=4, minibatches=2,
                   learning_rate=3e-3, entropy_coef=0.0, target_kl=1.0)
  after = np.mean([e.total_reward for e in play(client, 16)])
  assert before < 4 and after > 5  # Of 6.


def test_an_update_publishes_once_and_acting_agrees_with_training(
    client, trainer):
  version = client.policy_version()
  steps = optimizer_steps(trainer)
  report = trainer.update(play(client), passes=3, minibatches=2, target_kl=9.0)
  assert report.policy_version == version + 1 == client.policy_version()
  assert report.optimizer_steps == 6 == optimizer_steps(trainer) - steps
  assert report.transitions == 24
  assert report.ratio_check_max < 1e-4
  assert not report.kl_stopped


def test_a_lost_reply_does_not_step_twice(client, trainer):
  steps = optimizer_steps(trainer)
  lose_replies(trainer._training, "OptimStep", 2)
  lose_replies(trainer._training, "ForwardBackward", 2)
  report = trainer.update(play(client), passes=2, target_kl=9.0)
  assert report.optimizer_steps == 2 == optimizer_steps(trainer) - steps


def test_divergence_ends_an_update(client, trainer):
  report = trainer.update(play(client, 16), passes=50, learning_rate=0.03,
                          target_kl=1e-3)
  assert report.kl_stopped
  assert 0 < report.optimizer_steps < 50
  assert report.policy_version == client.policy_version()


def test_altered_behaviour_is_refused_and_the_trainer_goes_on(client, trainer):
  good = play(client)
  bad = [dataclasses.replace(good[0], log_probs=good[0].log_probs - 0.5)]
  with pytest.raises(BehaviourMismatchError) as error:
    trainer.update(bad)
  assert error.value.row == 0
  trainer.update(good)


def test_wrong_settings_are_refused(client, trainer):
  episodes = play(client)
  with pytest.raises(TypeError, match="no setting gama; it has .*gamma"):
    trainer.update(episodes, gama=0.9)
  with pytest.raises(InvalidRequestError, match="gamma"):
    trainer.update(episodes, gamma=1.5)
  with pytest.raises(ValueError):
    trainer.update([])


def test_one_learner_at_a_time(address, client, trainer):
  with PolicyClient(address) as other:
    with pytest.raises(StaleLeaseError) as error:
      Trainer(other, holder="intruder")
    assert error.value.reason == "STALE_LEASE"
    # The same holder comes back after a crash; the older one may not write.
    again = Trainer(other, holder="test")
    with pytest.raises(StaleLeaseError):
      trainer.update(play(client))
    again.release()
  trainer.acquire()


def test_a_checkpoint_brings_weights_and_version_back(client, trainer):
  trainer.update(play(client), learning_rate=1e-2)
  observations = np.ones((1, 3), np.float32)

  def value(key):
    return float(client.act(client.open([key], [1]), observations).values[0])

  saved = value("before")
  version = client.policy_version()
  name = trainer.save_checkpoint("kept")
  assert name == "kept"
  trainer.update(play(client), learning_rate=1e-2)
  assert value("between") != saved
  assert trainer.restore_checkpoint(name) == version
  assert value("after") == saved
  trainer.update(play(client))
