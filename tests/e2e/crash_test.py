"""The server is killed at random moments, again and again.

Each time it must come back from a whole checkpoint, one that is not older than
the last that a client was told of, and no version number may ever have meant
two policies.
"""
import os
import random
import signal
import tempfile
import time
import unittest

from learner_writing import Writing, said, wait_until

ROUNDS = int(os.environ.get("ESPER_CRASH_ROUNDS") or 10)
SEED = int(os.environ.get("ESPER_CRASH_SEED") or 20)


class CrashTest(unittest.TestCase):

    def setUp(self):
        scratch = tempfile.TemporaryDirectory(dir=os.environ["TEST_TMPDIR"])
        self.addCleanup(scratch.cleanup)
        self.folder = scratch.name
        self.digests = {}  # Of every version that anybody was told of.
        self.tokens = [0]

    def learn_digest(self, version, digest):
        self.assertEqual(self.digests.setdefault(version, digest), digest,
                         f"version {version} was published twice")

    def test_it_always_comes_back_whole(self):
        moments = random.Random(SEED)
        told = 0  # Optimiser steps in the newest checkpoint a client knows of.
        unfinished = set()  # What kills left of checkpoints.
        with Writing(self.folder) as cluster:
            cluster.serve().stop(signal.SIGKILL)
            for round_number in range(ROUNDS):
                first = round_number == 0
                server = cluster.serve(*([] if first else ["--restore=latest"]))
                for version, entry in cluster.versions().items():
                    self.learn_digest(version, entry["weights_digest"])
                if not first:
                    newest = cluster.ctl("verify")
                    self.assertGreaterEqual(newest["optimizer_steps"], told)
                    self.assertEqual(
                        cluster.ctl("status")["optimizer_steps"],
                        newest["optimizer_steps"])
                    current = [
                        version for version in cluster.versions().values()
                        if "current" in version["labels"]
                    ]
                    self.assertEqual([v["weights_digest"] for v in current],
                                     [newest["weights_digest"]])
                if round_number % 10 == 9:
                    for checkpoint in cluster.ctl("checkpoints")["checkpoints"]:
                        cluster.ctl("verify", checkpoint["checkpoint"])

                writer = cluster.write("writer", "--save")
                wait_until(lambda: said(writer, "saved"), writer)
                time.sleep(moments.uniform(0, 0.5))
                server.stop(signal.SIGKILL)
                writer.wait(90)

                for version, _, digest in said(writer, "published"):
                    self.learn_digest(int(version), digest)
                told = max(int(saved[2]) for saved in said(writer, "saved"))
                self.tokens.append(int(said(writer, "lease")[0][0]))
                unfinished.update(cluster.folder.glob("checkpoints/.*.tmp"))
                print(f"kill {round_number + 1}: {told} optimiser steps told",
                      flush=True)
        self.assertEqual(self.tokens, sorted(set(self.tokens)))
        self.assertGreater(len(self.digests), ROUNDS)
        print(f"{ROUNDS} kills, {len(unfinished)} checkpoints left unfinished; "
              f"{len(self.digests)} versions, {told} optimiser steps")


if __name__ == "__main__":
    unittest.main()
