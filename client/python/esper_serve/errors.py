"""Refusals of the server as exceptions."""
from __future__ import annotations

from typing import Any, Optional, Type

import grpc

from esper_serve._proto.esper.v1 import errors_pb2

_TRAILER = "esper-error-detail-bin"


class EsperError(Exception):
  """A call that the server refused, or that never reached it.

  Attributes:
    code: the gRPC status code.
    method: name of the call.
    reason: stable upper-case name, e.g. "STEP_OUT_OF_ORDER"; "" without detail.
    field: request field or policy head at fault; "" if there is none.
    row, step: where in the request; None if in no single row or step. For
      StepOutOfOrderError `step` is the step that the server expects.
    tensor: tensor at fault; "" if there is none.
    hint: what to do instead.
    attempts: how often the call was tried.
  """

  def __init__(self,
               method: str,
               code: grpc.StatusCode,
               message: str,
               detail: Optional[Any] = None,
               attempts: int = 1) -> None:
    self.method = method
    self.code = code
    self.attempts = attempts
    self.reason: str = detail.reason if detail else ""
    self.field: str = detail.field if detail else ""
    self.row: Optional[int] = None
    self.step: Optional[int] = None
    if detail is not None and detail.HasField("row"):
      self.row = int(detail.row)
    if detail is not None and detail.HasField("step"):
      self.step = int(detail.step)
    self.tensor: str = detail.tensor if detail else ""
    self.hint: str = detail.hint if detail else ""
    tries = f" (gave up after {attempts} attempts)" if attempts > 1 else ""
    name = self.reason or code.name
    super().__init__(f"{method}: {name}: {message}{tries}")


class InvalidRequestError(EsperError):
  """The request itself is wrong: INVALID_ARGUMENT."""


class EpisodeLostError(EsperError):
  """The server does not hold the episode (any more): open a new one."""


class StepOutOfOrderError(EsperError):
  """The step is neither the next one nor the last one again."""


class StateError(EsperError):
  """The request does not fit the server's state: FAILED_PRECONDITION."""


class BehaviourMismatchError(StateError):
  """Recorded log-probabilities are not what the same weights give now."""


class StaleLeaseError(EsperError):
  """Another learner holds the lease, or has taken it."""


class BudgetExceededError(EsperError):
  """A limit of the server; `field` names it."""


class UnavailableError(EsperError):
  """The server is gone, full, draining or too slow; retries did not help."""


class ServerError(EsperError):
  """The server's fault: INTERNAL and anything unforeseen."""


_BY_REASON: dict[str, Type[EsperError]] = {
    "UNKNOWN_EPISODE": EpisodeLostError,
    "EPISODE_EXPIRED": EpisodeLostError,
    "WRONG_INCARNATION": EpisodeLostError,
    "STEP_OUT_OF_ORDER": StepOutOfOrderError,
    "BEHAVIOUR_MISMATCH": BehaviourMismatchError,
    "STALE_LEASE": StaleLeaseError,
    "BUDGET_EXCEEDED": BudgetExceededError,
}

_BY_CODE: dict[grpc.StatusCode, Type[EsperError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequestError,
    grpc.StatusCode.FAILED_PRECONDITION: StateError,
    grpc.StatusCode.ABORTED: StaleLeaseError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: BudgetExceededError,
    grpc.StatusCode.UNAVAILABLE: UnavailableError,
    grpc.StatusCode.DEADLINE_EXCEEDED: UnavailableError,
}


def error_detail(error: grpc.RpcError) -> Optional[Any]:
  """The server's ErrorDetail message, if the call has one."""
  for key, value in error.trailing_metadata() or ():
    if key == _TRAILER:
      return errors_pb2.ErrorDetail.FromString(value)
  return None


def from_rpc_error(method: str,
                   error: grpc.RpcError,
                   attempts: int = 1) -> EsperError:
  """The exception that a failed call is turned into."""
  detail = error_detail(error)
  code = error.code()
  kind = _BY_REASON.get(detail.reason) if detail is not None else None
  kind = kind or _BY_CODE.get(code, ServerError)
  return kind(method, code, error.details() or "", detail, attempts)
