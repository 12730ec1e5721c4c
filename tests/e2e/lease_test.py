"""Two coordinators and one learner lease: only one of them can write."""
import os
import signal
import tempfile
import unittest

from learner_writing import Writing, said, wait_until

PUBLISHED = 2  # Updates that A publishes, so that version 3 acts.


class LeaseTest(unittest.TestCase):

    def setUp(self):
        scratch = tempfile.TemporaryDirectory(dir=os.environ["TEST_TMPDIR"])
        self.addCleanup(scratch.cleanup)
        self.folder = scratch.name

    def start(self, cluster, lease="3s"):
        """A server, and A with a published version and steps after it."""
        cluster.serve(f"--learner_lease={lease}")
        a = cluster.write("A", f"--publishes={PUBLISHED}", "--linger")
        wait_until(lambda: len(said(a, "stepped")) >= 2, a)
        self.assertEqual(cluster.ctl("status")["learner_holder"], "A")
        return a

    def check_takeover(self, cluster, a):
        """B gets the lease by waiting, and goes on where A published last."""
        last = said(a, "published")[-1]
        b = cluster.write("B", "--publishes=1")
        self.assertEqual(b.wait(120), 0, b.tail())
        token, _, dropped, _, version = said(b, "lease")[0]
        self.assertGreater(int(token), int(said(a, "lease")[0][0]))
        # A took at least the steps that it was told of.
        self.assertGreaterEqual(int(dropped), len(said(a, "stepped")))
        self.assertEqual(version, last[0])
        published = said(b, "published")[0]
        self.assertEqual(int(published[0]), int(version) + 1)
        # A's unpublished steps are not in it.
        self.assertEqual(int(published[1]), int(last[1]) + 1)
        return published

    def test_a_stopped_holder_cannot_write_after_the_takeover(self):
        with Writing(self.folder) as cluster:
            a = self.start(cluster)
            a.popen.send_signal(signal.SIGSTOP)
            published = self.check_takeover(cluster, a)
            steps = cluster.ctl("status")["optimizer_steps"]
            a.popen.send_signal(signal.SIGCONT)
            self.assertEqual(a.wait(120), 3, a.tail())
            self.assertEqual(said(a, "refused"), [["STALE_LEASE"]])
            status = cluster.ctl("status")
            self.assertEqual(status["policy_version"], int(published[0]))
            self.assertEqual(status["optimizer_steps"], steps)
            self.assertGreaterEqual(status["refusals"]["STALE_LEASE"], 1)

    def test_a_killed_holder_is_followed_by_another(self):
        with Writing(self.folder) as cluster:
            a = self.start(cluster)
            a.stop(signal.SIGKILL)
            published = self.check_takeover(cluster, a)
            self.assertEqual(cluster.ctl("status")["policy_version"],
                             int(published[0]))

    def test_nobody_takes_a_lease_that_is_alive(self):
        with Writing(self.folder) as cluster:
            a = self.start(cluster, lease="10m")
            b = cluster.write("B", "--publishes=1")
            steps = len(said(a, "stepped"))
            wait_until(lambda: cluster.ctl("status")["refusals"].get(
                "STALE_LEASE", 0) >= 3, b)
            wait_until(lambda: len(said(a, "stepped")) >= steps + 3, a)
            self.assertTrue(b.alive())
            self.assertEqual(said(b, "lease"), [])
            self.assertEqual(cluster.ctl("status")["learner_holder"], "A")


if __name__ == "__main__":
    unittest.main()
