"""A server process on this machine, for examples and tests."""
from __future__ import annotations

import os
import pathlib
import subprocess
import tempfile
import time
from typing import Optional, Sequence

from esper_serve.spec import PolicySpec


class LocalServer:
  """Runs esper_server for one policy on a free loopback port.

  A context manager that gives the address:

    with LocalServer("bazel-bin/server/esper_server", spec) as address:
      client = PolicyClient(address)
  """

  def __init__(self,
               binary: str,
               spec: PolicySpec,
               *,
               init_seed: int = 0,
               flags: Sequence[str] = (),
               timeout: float = 60.0) -> None:
    """`flags`: more of esper_server's. `timeout`: to start, seconds."""
    self._command = [binary, f"--init_seed={init_seed}", *flags]
    self._spec = spec
    self._timeout = timeout
    self._folder: Optional[tempfile.TemporaryDirectory[str]] = None
    self._process: Optional[subprocess.Popen[bytes]] = None

  @property
  def process_id(self) -> int:
    """Of the running server. RuntimeError if there is none."""
    if self._process is None:
      raise RuntimeError("the server is not running")
    return self._process.pid

  def __enter__(self) -> str:
    """Raises RuntimeError with the server's words if it does not start."""
    self._folder = tempfile.TemporaryDirectory(prefix="esper-")
    folder = pathlib.Path(self._folder.name)
    self._spec.save(folder / "spec.json")
    port_file = folder / "port"
    log = folder / "log"
    # Threads that spin on a shared core cost more than they bring.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with open(log, "wb") as output:
      self._process = subprocess.Popen(
          [
              *self._command, "--address=127.0.0.1:0",
              f"--policy_spec={folder / 'spec.json'}",
              f"--port_file={port_file}", "--log_level=warn"
          ],
          stdout=output,
          stderr=output,
          env=environment)
    deadline = time.monotonic() + self._timeout
    while self._process.poll() is None and time.monotonic() < deadline:
      if port_file.exists() and port_file.read_text(encoding="utf-8").strip():
        return f"127.0.0.1:{port_file.read_text(encoding='utf-8').strip()}"
      time.sleep(0.02)
    words = log.read_text(encoding="utf-8", errors="replace")
    self.__exit__()
    raise RuntimeError(f"esper_server did not start: {words}")

  def __exit__(self, *_: object) -> None:
    if self._process is not None:
      self._process.terminate()
      try:
        self._process.wait(timeout=20)
      except subprocess.TimeoutExpired:
        self._process.kill()
        self._process.wait()
      self._process = None
    if self._folder is not None:
      self._folder.cleanup()
      self._folder = None
