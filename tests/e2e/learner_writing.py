"""A server with a small policy, and learners that write to it."""
import json
import subprocess
import time

from processes import Cluster, binary

# Kills must find the server at work, not loading a large network.
SMALL = ("--set=policy.hidden_dim=16,learner.max_version_lag=1",
         "--log_level=info")


class Writing(Cluster):
    """Starts servers and writers, and asks the server with esperctl."""

    def __init__(self, folder):
        super().__init__(folder)
        self.address = ""
        self.writers = 0

    def serve(self, *flags):
        server, port = self.start_server(*SMALL, *flags)
        self.address = f"127.0.0.1:{port}"
        return server

    def write(self, holder, *flags):
        self.writers += 1
        return self.start(
            f"{holder}-{self.writers}", binary("tests/e2e/learner_writer"),
            f"--address={self.address}", f"--holder={holder}",
            f"--seed={1000 * self.writers}", *flags)

    def ctl(self, *command):
        ran = subprocess.run(
            [binary("client/ctl/esperctl"), f"--address={self.address}",
             "--timeout=60s", "--json", *command],
            capture_output=True, text=True)
        if ran.returncode != 0:
            raise AssertionError(f"esperctl {command}: {ran.stderr}")
        return json.loads(ran.stdout)

    def versions(self):
        return {
            version["policy_version"]: version
            for version in self.ctl("versions")["versions"]
        }


def said(writer, word):
    """The lines of a writer that begin with the word, as fields without it.

    A line that is still being written is left out.
    """
    whole = writer.log.read_text(errors="replace").rpartition("\n")[0]
    lines = [line.split() for line in whole.splitlines()]
    return [line[1:] for line in lines if line and line[0] == word]


def wait_until(condition, process, timeout=180):
    """Waits for a condition that the process brings about."""
    end = time.time() + timeout
    while not condition():
        if not process.alive() and not condition():
            raise AssertionError(f"{process.name} ended:\n{process.tail()}")
        if time.time() > end:
            raise AssertionError(f"{process.name} is late:\n{process.tail()}")
        time.sleep(0.02)
