"""Client of Esper Serve: policies for partially observed environments.

  PolicySpec    what a policy observes and decides
  PolicyClient  open, act, close
  VectorRunner  whole episodes from Gymnasium's vector environments
  Trainer       PPO updates and checkpoints
  LocalServer   a server process on this machine
"""
from esper_serve.client import (ABORTED, TERMINATED, TRUNCATED, Actions, Closed,
                                OpenEpisode, Outcome, PolicyClient)
from esper_serve.connection import RetryPolicy
from esper_serve.episode import Episode
from esper_serve.errors import (BehaviourMismatchError, BudgetExceededError,
                                EpisodeLostError, EsperError,
                                InvalidRequestError, ServerError,
                                StaleLeaseError, StateError,
                                StepOutOfOrderError, UnavailableError)
from esper_serve.local import LocalServer
from esper_serve.runner import VectorRunner
from esper_serve.spaces import decode_actions, encode_observations
from esper_serve.spec import Head, PolicySpec
from esper_serve.trainer import Trainer, UpdateReport

__all__ = [
    "ABORTED", "TERMINATED", "TRUNCATED", "Actions", "BehaviourMismatchError",
    "BudgetExceededError", "Closed", "Episode", "EpisodeLostError",
    "EsperError", "Head", "InvalidRequestError", "LocalServer", "OpenEpisode",
    "Outcome", "PolicyClient", "PolicySpec", "RetryPolicy", "ServerError",
    "StaleLeaseError", "StateError", "StepOutOfOrderError", "Trainer",
    "UnavailableError", "UpdateReport", "VectorRunner", "decode_actions",
    "encode_observations"
]
