"""Starts and stops the product's own processes for end-to-end tests."""
import json
import os
import pathlib
import signal
import subprocess
import time

ROOT = pathlib.Path.cwd()
DIGITS = os.environ.get("ESPER_DIGITS", "")


def binary(name):
    """Path of a built binary, e.g. "server/esper_server"."""
    return str(ROOT / name)


class Process:
    """A process of ours, with its output in a file."""

    def __init__(self, name, arguments, log_dir):
        self.name = name
        self.log = pathlib.Path(log_dir, f"{name}.log")
        with open(self.log, "ab") as out:
            self.popen = subprocess.Popen(
                [str(a) for a in arguments], stdout=out, stderr=out)

    def wait(self, timeout):
        try:
            return self.popen.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(
                f"{self.name} still runs after {timeout} s:\n{self.tail()}")

    def stop(self, how=signal.SIGTERM, timeout=30):
        if self.popen.poll() is None:
            self.popen.send_signal(how)
        return self.wait(timeout)

    def tail(self, lines=40):
        return "\n".join(
            self.log.read_text(errors="replace").splitlines()[-lines:])

    def alive(self):
        return self.popen.poll() is None


class Cluster:
    """A server, a coordinator and environment processes in one folder.

    Use as a context manager: whatever still runs is stopped at the end.
    """

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        (self.folder / "checkpoints").mkdir(parents=True, exist_ok=True)
        self.processes = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in reversed(self.processes):
            if process.alive():
                process.popen.kill()
                process.popen.wait()

    def start(self, name, *arguments):
        process = Process(name, arguments, self.folder)
        self.processes.append(process)
        return process

    def start_server(self, *flags):
        port_file = self.folder / "server.port"
        port_file.unlink(missing_ok=True)
        server = self.start(
            "server", binary("server/esper_server"), "--address=127.0.0.1:0",
            f"--port_file={port_file}",
            f"--checkpoint_dir={self.folder / 'checkpoints'}", *flags)
        return server, self.wait_for_port(server, port_file)

    def start_trainer(self, server_port, *flags):
        port_file = self.folder / "trainer.port"
        port_file.unlink(missing_ok=True)
        trainer = self.start(
            "trainer", binary("client/trainer/esper_trainer"),
            f"--policy_address=127.0.0.1:{server_port}",
            "--address=127.0.0.1:0", f"--port_file={port_file}",
            f"--run_dir={self.folder}", *flags)
        return trainer, self.wait_for_port(trainer, port_file)

    def start_environments(self, trainer_port, count, environments):
        return [
            self.start(
                f"env{i}", binary("client/env/esper_env"),
                f"--coordinator=127.0.0.1:{trainer_port}",
                f"--environments={environments}", f"--data={DIGITS}",
                f"--worker_name=worker-{i}") for i in range(count)
        ]

    @staticmethod
    def wait_for_port(process, port_file, timeout=60):
        end = time.time() + timeout
        while time.time() < end and process.alive():
            if port_file.exists() and port_file.read_text().strip():
                return int(port_file.read_text())
            time.sleep(0.05)
        raise AssertionError(f"{process.name} does not listen:\n{process.tail()}")

    def summary(self):
        return json.loads((self.folder / "summary.json").read_text())
