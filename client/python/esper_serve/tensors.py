"""NumPy arrays as messages and back."""
from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from esper_serve._proto.esper.v1 import tensor_pb2

Array = npt.NDArray[Any]

_DTYPES: dict[int, np.dtype[Any]] = {
    tensor_pb2.DATA_TYPE_FLOAT32: np.dtype("<f4"),
    tensor_pb2.DATA_TYPE_FLOAT64: np.dtype("<f8"),
    tensor_pb2.DATA_TYPE_INT64: np.dtype("<i8"),
    tensor_pb2.DATA_TYPE_INT32: np.dtype("<i4"),
    tensor_pb2.DATA_TYPE_INT8: np.dtype("i1"),
    tensor_pb2.DATA_TYPE_UINT8: np.dtype("u1"),
    tensor_pb2.DATA_TYPE_BOOL: np.dtype("?"),
}
_NUMBERS = {dtype: number for number, dtype in _DTYPES.items()}


def encode(array: Array) -> Any:
  """A Tensor message. TypeError for a dtype that the protocol lacks."""
  array = np.ascontiguousarray(array)
  number = _NUMBERS.get(array.dtype.newbyteorder("<"))
  if number is None:
    raise TypeError(f"the protocol has no tensors of {array.dtype}")
  array = array.astype(_DTYPES[number], copy=False)
  return tensor_pb2.Tensor(
      dtype=number,  # type: ignore[arg-type]
      shape=array.shape, data=array.tobytes())


def decode(message: Any) -> Array:
  """The array of a Tensor message; read-only, on the message's bytes.

  ValueError if dtype, shape and data do not fit together.
  """
  dtype = _DTYPES.get(message.dtype)
  if dtype is None:
    raise ValueError(f"tensors of dtype number {message.dtype} are not known")
  flat: Array = np.frombuffer(message.data, dtype)
  return flat.reshape(tuple(message.shape))
