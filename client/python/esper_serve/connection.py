"""Channels, deadlines and retries."""
from __future__ import annotations

import dataclasses
import random
import time
from typing import Any, Callable, Optional

import grpc

from esper_serve import errors


@dataclasses.dataclass(frozen=True)
class RetryPolicy:
  """When and how often a call is tried again.

  Only UNAVAILABLE and DEADLINE_EXCEEDED are, and every call of this package is
  safe to repeat: steps and writes are exactly-once on the server.

  Attributes:
    attempt_timeout: deadline of one attempt, seconds, > 0.
    give_up_after: no new attempt starts this long after the first, seconds.
    initial_backoff: pause before the second attempt, seconds; doubles.
    max_backoff: longest pause, seconds.
  """
  attempt_timeout: float = 20.0
  give_up_after: float = 60.0
  initial_backoff: float = 0.05
  max_backoff: float = 2.0


_RETRYABLE = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


class Connection:
  """A channel to one server, with a deadline on every call.

  Thread safety: any thread may call.
  """

  def __init__(self,
               address: str,
               *,
               timeout: float = 10.0,
               retry: RetryPolicy = RetryPolicy(),
               credentials: Optional[grpc.ChannelCredentials] = None,
               max_message_bytes: int = 64 << 20) -> None:
    """Connects to host:port or unix:PATH.

    Raises:
      UnavailableError: nothing answers within `timeout` seconds.
    """
    options = [
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 2000),
        ("grpc.max_reconnect_backoff_ms", 2000),
    ]
    if credentials is None:
      self.channel = grpc.insecure_channel(address, options)
    else:
      self.channel = grpc.secure_channel(address, credentials, options)
    self.retry = retry
    try:
      grpc.channel_ready_future(self.channel).result(timeout=timeout)
    except grpc.FutureTimeoutError:
      self.channel.close()
      raise errors.UnavailableError(
          "Connect", grpc.StatusCode.UNAVAILABLE,
          f"Nothing answers at {address} within {timeout:g} s. "
          "Is the server running?") from None

  def call(self,
           method: Callable[..., Any],
           request: Any,
           name: str,
           before_retry: Optional[Callable[[], None]] = None) -> Any:
    """Calls until it succeeds, fails for good, or the policy gives up.

    `before_retry` runs before each further attempt; it may change `request`.

    Raises:
      EsperError: of the kind that fits; see errors.py.
    """
    give_up = time.monotonic() + self.retry.give_up_after
    backoff = self.retry.initial_backoff
    attempts = 0
    while True:
      attempts += 1
      try:
        return method(request, timeout=self.retry.attempt_timeout)
      except grpc.RpcError as error:
        pause = backoff * random.uniform(0.8, 1.2)
        if (error.code() not in _RETRYABLE or
            time.monotonic() + pause > give_up):
          raise errors.from_rpc_error(name, error, attempts) from error
      time.sleep(pause)
      backoff = min(2 * backoff, self.retry.max_backoff)
      if before_retry is not None:
        before_retry()

  def close(self) -> None:
    self.channel.close()
