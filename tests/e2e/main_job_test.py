"""The main job with real processes: trains, is killed, resumes, is stopped."""
import json
import math
import os
import signal
import subprocess
import tempfile
import time
import unittest

from processes import Cluster, DIGITS, ROOT, binary

# Short episodes: long enough for seeds to reach BLENDING under the permissive
# gate (ten epochs of training), short enough for a test.
SHORT = ("--max_epochs=16", "--episodes_per_update=6",
         '--env_options={"samples_per_epoch": 256}')


class MainJobTest(unittest.TestCase):

    def setUp(self):
        scratch = tempfile.TemporaryDirectory(dir=os.environ["TEST_TMPDIR"])
        self.addCleanup(scratch.cleanup)
        self.folder = scratch.name

    def check_summary(self, summary, updates, lost_versions=0):
        self.assertGreaterEqual(summary["updates"], updates)
        self.assertEqual(summary["policy_version"],
                         1 + summary["publishes"] + lost_versions)
        self.assertGreater(summary["transitions_trained"], 0)
        self.assertGreaterEqual(summary["env_steps"],
                                summary["transitions_trained"])
        self.assertGreater(summary["seeds_germinated"], 0)
        self.assertLessEqual(summary["ratio_check_max"], 1e-3)
        self.assertGreaterEqual(summary["ratio_check_max"], 0)
        self.assertTrue(math.isfinite(summary["weights_change_l2"]))
        self.assertGreater(summary["weights_change_l2"], 0)
        self.assertEqual(len(summary["host_accuracy"]), summary["episodes"])
        for accuracy in summary["host_accuracy"]:
            self.assertGreater(accuracy, 0)
            self.assertLessEqual(accuracy, 100)

    def test_a_killed_run_resumes_from_its_version(self):
        with Cluster(self.folder) as cluster:
            server, port = cluster.start_server()
            trainer, trainer_port = cluster.start_trainer(
                port, "--resume_if_any", "--updates=2", "--checkpoint_every=1",
                *SHORT)
            environments = cluster.start_environments(trainer_port, 2, 3)
            self.assertEqual(trainer.wait(300), 0, trainer.tail())
            for environment in environments:
                self.assertEqual(environment.wait(30), 0, environment.tail())
            first = cluster.summary()
            self.check_summary(first, updates=2)
            self.assertEqual(first["policy_version"], 3)
            status = subprocess.run(
                [binary("client/ctl/esperctl"), f"--address=127.0.0.1:{port}",
                 "status", "--json"],
                capture_output=True, text=True, check=True).stdout
            self.assertIn('"policy_version": 3', status)

            # A second run is killed in the middle, all of it.
            trainer, trainer_port = cluster.start_trainer(
                port, "--resume", "--updates=100", "--checkpoint_every=1",
                *SHORT)
            environments = cluster.start_environments(trainer_port, 2, 3)
            end = time.time() + 300
            while cluster.summary()["policy_version"] < 4:
                self.assertLess(time.time(), end, trainer.tail())
                self.assertTrue(trainer.alive(), trainer.tail())
                time.sleep(0.2)
            for process in [trainer, server, *environments]:
                process.popen.kill()
                process.popen.wait()
            before = max(
                json.loads(manifest.read_text())["policy_version"]
                # Without the one that was being written when it was killed.
                for manifest in cluster.folder.glob(
                    "checkpoints/[!.]*/manifest.json"))
            self.assertGreaterEqual(before, 3)
            # Versions published after that checkpoint are gone for good.
            highest = int(
                (cluster.folder / "checkpoints/highest_version").read_text())
            self.assertGreaterEqual(highest, before)

            server, port = cluster.start_server("--restore=latest")
            trainer, trainer_port = cluster.start_trainer(
                port, "--resume_if_any", "--updates=1", *SHORT)
            cluster.start_environments(trainer_port, 2, 3)
            self.assertEqual(trainer.wait(300), 0, trainer.tail())
            second = cluster.summary()
            self.assertEqual(second["policy_version"], highest + 1)
            self.check_summary(second, updates=4,
                               lost_versions=highest - before)
            self.assertEqual(server.stop(), 0, server.tail())
            self.assertIn("clean exit", server.tail())

    def quickstart(self, run_dir, *arguments):
        """Runs the quickstart to its end and returns the run's summary."""
        done = subprocess.run(
            ["deploy/quickstart.sh", "--prebuilt", str(ROOT), "--data", DIGITS,
             "--minutes", "0.15", "--run_dir", run_dir, *arguments, "--",
             *SHORT],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=180)
        self.assertEqual(done.returncode, 0, done.stdout.decode())
        self.assertEqual(self.processes_of(run_dir), [])
        with open(os.path.join(run_dir, "summary.json")) as f:
            return json.load(f)

    def test_the_quickstart_ends_well_and_resumes(self):
        run_dir = os.path.join(self.folder, "run")
        first = self.quickstart(run_dir)
        self.check_summary(first, updates=1)
        second = self.quickstart(run_dir, "--resume")
        self.check_summary(second, updates=first["updates"] + 1)
        self.assertGreater(second["policy_version"], first["policy_version"])
        with open(os.path.join(run_dir, "report.html")) as f:
            self.assertIn("<svg", f.read())

    def test_ctrl_c_stops_every_process_of_the_quickstart(self):
        marker = os.path.join(self.folder, "run")
        quickstart = subprocess.Popen(
            ["deploy/quickstart.sh", "--prebuilt", str(ROOT), "--data", DIGITS,
             "--minutes", "10", "--run_dir", marker, "--", *SHORT],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            start_new_session=True)
        try:
            end = time.time() + 120
            while not os.path.exists(os.path.join(marker, "logs", "env2.log")):
                self.assertLess(time.time(), end)
                self.assertIsNone(quickstart.poll())
                time.sleep(0.2)
            time.sleep(5)
            self.assertEqual(len(self.processes_of(marker)), 2)
            quickstart.send_signal(signal.SIGINT)
            output, _ = quickstart.communicate(timeout=90)
        finally:
            if quickstart.poll() is None:
                os.killpg(quickstart.pid, signal.SIGKILL)
        self.assertEqual(quickstart.returncode, 130, output.decode())
        self.assertEqual(self.processes_of(marker), [])
        for name in ("summary.json", "episodes.csv", "report.html"):
            self.assertTrue(os.path.exists(os.path.join(marker, name)), name)

    @staticmethod
    def processes_of(marker):
        """Server and trainer of a run folder: both name it in their flags."""
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{pid}/cmdline", "rb") as f:
                    command = f.read().decode(errors="replace")
            except OSError:
                continue
            if marker in command and "esper_" in command.split("\0")[0]:
                found.append(command)
        return found


if __name__ == "__main__":
    unittest.main()
