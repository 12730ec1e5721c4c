"""Runs the serving benchmark in turns and prints what it measured.

Started by compare.sh. All servers are up all the time; one of them is asked at
a time, and a repeat asks each of them under each workload before the next
repeat begins, so that whatever else the machine does meets all alike. Figures
are medians over the repeats of ratios within a repeat.
"""
import argparse
import json
import os
import pathlib
import platform
import statistics
import subprocess
import tempfile
import time

SERVING = "bazel-bin/tests/bench/serving"
SERVER = "bazel-bin/server/esper_server"
PYTHON_SERVER = "tests/bench/serving_python.py"

# Flags of the load generator.
WORKLOADS = {
    "1 environment": dict(environments=1, rows=1),
    "64 environments, one row per call": dict(environments=64, rows=1),
    "64 rows per call, 2 in flight": dict(environments=128, rows=64),
    "1,024 environments, 8 connections": dict(
        environments=1024, rows=1, connections=8),
}
ONE, SINGLE, WIDE, MANY = WORKLOADS
FEW, MANY_EPISODES = 128, 100032

# Figure: (must, goal, whether larger is better).
FIGURES = {
    "64 rows per call: share of the forward pass": (0.75, 0.9, True),
    "64 rows per call: over plain PyTorch": (8, 12, True),
    "64 rows per call: over lean PyTorch": (4, 6, True),
    "64 environments: over plain PyTorch": (5, 8, True),
    "64 environments: share of the empty echo": (0.7, 0.85, True),
    "1 environment: p50 over echo p50 + forward": (1.25, 1.1, False),
    "p99 over p50 at half of peak load": (3, 2, False),
    "p99 with gradient work over without": (2, 1.5, False),
    "throughput with 10^5 open episodes over 10^2": (0.9, None, True),
    "KiB an open episode": (6, None, False),
}


class Server:
    """A server process, and the load generator against it."""

    def __init__(self, folder, name, arguments, environment=None):
        port_file = pathlib.Path(folder, name + ".port")
        self.log = pathlib.Path(folder, name + ".log")
        self.name = name
        self.incarnation = 0
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [*arguments, f"--port_file={port_file}"], stdout=log,
                stderr=log, env=environment)
        end = time.time() + 120
        while not port_file.exists():
            if self.process.poll() is not None or time.time() > end:
                raise SystemExit(
                    f"{name} does not listen:\n{self.log.read_text()}")
            time.sleep(0.05)
        self.address = f"127.0.0.1:{port_file.read_text().strip()}"

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def load(self, seconds, **flags):
        self.incarnation += 1
        return run_part(
            "load", address=self.address, server_pid=self.process.pid,
            incarnation=self.incarnation, seconds=seconds,
            warmup=min(0.5, seconds), **flags)


def run_part(part, **flags):
    done = subprocess.run(
        [SERVING, part, *(f"--{k}={v}" for k, v in flags.items())],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise SystemExit(f"serving {part} {flags} failed:\n{done.stderr}")
    return json.loads(done.stdout)


def start_servers(folder, arguments):
    servers = {}
    try:
        servers["esper"] = Server(
            folder, "esper", [SERVER, "--address=127.0.0.1:0"])
        servers["two workers"] = Server(
            folder, "two", [SERVER, "--address=127.0.0.1:0", "--workers=2"])
        # The answers of the echo have the size of the workload's.
        for rows in (1, 64):
            servers[f"echo{rows}"] = Server(
                folder, f"echo{rows}", [SERVING, "echo", f"--rows={rows}"])
        servers["open"] = Server(
            folder, "open", [SERVER, "--address=127.0.0.1:0",
                             f"--max_episodes={MANY_EPISODES + 1024}"])
        if not arguments.quick:
            descriptors = pathlib.Path(folder, "esper.pb")
            protos = sorted(
                str(p) for p in pathlib.Path("proto/esper/v1").glob("*.proto"))
            subprocess.run(
                ["protoc", "-Iproto", "-I/usr/include", "--include_imports",
                 f"--descriptor_set_out={descriptors}", *protos], check=True)
            for variant in ("plain", "lean"):
                servers[variant] = Server(
                    folder, variant,
                    ["/usr/bin/python3", PYTHON_SERVER, "--variant", variant,
                     "--descriptors", str(descriptors)],
                    dict(os.environ, PYTHONPATH=arguments.site))
    except BaseException:
        stop_servers(servers)
        raise
    return servers


def stop_servers(servers):
    for server in servers.values():
        server.stop()


def measure(servers, seconds, quick):
    """One repeat: reports by (workload, target)."""
    reports = {}
    for workload, flags in WORKLOADS.items():
        rows = flags["rows"]
        targets = {"esper": servers["esper"], "echo": servers[f"echo{rows}"]}
        for variant in ("plain", "lean"):
            if variant in servers:
                targets[variant] = servers[variant]
        if workload in (SINGLE, WIDE):
            targets["esper, 2 workers"] = servers["two workers"]
        for target, server in targets.items():
            reports[workload, target] = server.load(seconds, **flags)
        if workload in (ONE, WIDE):
            # One environment leaves the server idle for a round trip.
            pause = (reports[ONE, "echo"]["p50_us"] * 1e-6
                     if workload == ONE else 0)
            reports[workload, "forward"] = run_part(
                "forward", seconds=seconds, rows=rows, pause=pause,
                environments=flags["environments"])
    esper = servers["esper"]
    peak = reports[SINGLE, "esper"]["calls_per_second"]
    flags = WORKLOADS[SINGLE]
    reports["half of peak", "esper"] = esper.load(
        seconds, calls_per_second=peak / 2, **flags)
    reports["quarter of peak", "esper"] = esper.load(
        seconds, calls_per_second=peak / 4, **flags)
    train = subprocess.Popen(
        [SERVING, "train", f"--address={esper.address}"],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        time.sleep(1 if quick else 3)
        reports["quarter of peak, training", "esper"] = esper.load(
            seconds, calls_per_second=peak / 4, **flags)
        if train.poll() is not None:
            raise SystemExit(f"serving train ended: {train.stderr.read()}")
    finally:
        train.terminate()
        train.wait()
    for name, episodes in (("10^2 open episodes", FEW),
                           ("10^5 open episodes",
                            1280 if quick else MANY_EPISODES)):
        reports[name, "esper"] = servers["open"].load(
            seconds, environments=episodes, rows=64, in_flight=2)
    return reports


def ratios(reports):
    """Figures of one repeat; those that were not measured are missing."""
    speed = lambda workload, target: reports[workload, target][
        "actions_per_second"]
    report = lambda workload: reports[workload, "esper"]
    values = {}
    values["64 rows per call: share of the forward pass"] = (
        speed(WIDE, "esper") / speed(WIDE, "forward"))
    for variant in ("plain", "lean"):
        if (WIDE, variant) in reports:
            values[f"64 rows per call: over {variant} PyTorch"] = (
                speed(WIDE, "esper") / speed(WIDE, variant))
    if (SINGLE, "plain") in reports:
        values["64 environments: over plain PyTorch"] = (
            speed(SINGLE, "esper") / speed(SINGLE, "plain"))
    values["64 environments: share of the empty echo"] = (
        speed(SINGLE, "esper") / speed(SINGLE, "echo"))
    values["1 environment: p50 over echo p50 + forward"] = (
        report(ONE)["p50_us"] / (reports[ONE, "echo"]["p50_us"] +
                                 reports[ONE, "forward"]["p50_us"]))
    half = report("half of peak")
    values["p99 over p50 at half of peak load"] = (
        half["p99_us"] / half["p50_us"])
    values["p99 with gradient work over without"] = (
        report("quarter of peak, training")["p99_us"] /
        report("quarter of peak")["p99_us"])
    few, many = report("10^2 open episodes"), report("10^5 open episodes")
    values["throughput with 10^5 open episodes over 10^2"] = (
        many["actions_per_second"] / few["actions_per_second"])
    return values


def median_reports(repeats):
    return {
        key: {
            field: statistics.median(r[key][field] for r in repeats)
            for field in repeats[0][key]
        } for key in repeats[0]
    }


def print_reports(reports):
    print("| workload | target | actions/s | p50 | p99 | CPU ms for 1,000 "
          "actions: client | server |")
    print("|---|---|---|---|---|---|---|")
    for (workload, target), r in reports.items():
        # The forward pass is neither client nor server.
        cpu = ("–", "–") if target == "forward" else (
            f"{1000 * r['client_cpu']:.0f}", f"{1000 * r['server_cpu']:.0f}")
        print(f"| {workload} | {target} | {r['actions_per_second']:,.0f} | "
              f"{r['p50_us'] / 1000:.2f} ms | {r['p99_us'] / 1000:.2f} ms | "
              f"{cpu[0]} | {cpu[1]} |")


def print_figures(figures):
    print("\n| figure | must | goal | measured | |")
    print("|---|---|---|---|---|")
    for name, (must, goal, larger) in FIGURES.items():
        sign = "≥" if larger else "≤"
        if name not in figures:
            print(f"| {name} | {sign} {must} | {goal or '–'} | – | not run |")
            continue
        value = figures[name]
        reaches = lambda bound: bound is not None and (
            value >= bound if larger else value <= bound)
        verdict = ("goal" if reaches(goal) else
                   "must" if reaches(must) else "missed")
        print(f"| {name} | {sign} {must} | {goal or '–'} | {value:.2f} | "
              f"{verdict} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--site", required=True)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.seconds, arguments.repeats = 0.3, 1
    with tempfile.TemporaryDirectory() as folder:
        servers = start_servers(folder, arguments)
        repeats, figures, growth = [], [], None
        try:
            for _ in range(arguments.repeats):
                reports = measure(servers, arguments.seconds, arguments.quick)
                repeats.append(reports)
                figures.append(ratios(reports))
                if growth is None and not arguments.quick:
                    # Later repeats begin with memory that is in use already.
                    growth = (reports["10^5 open episodes", "esper"]
                              ["server_bytes"] -
                              reports["10^2 open episodes", "esper"]
                              ["server_bytes"]) / (MANY_EPISODES - FEW)
        finally:
            stop_servers(servers)
    medians = {
        name: statistics.median(f[name] for f in figures) for name in figures[0]
    }
    if growth is not None:
        medians["KiB an open episode"] = growth / 1024
    reports = median_reports(repeats)
    print_reports(reports)
    print_figures(medians)
    print(json.dumps({
        "figures": {k: round(v, 4) for k, v in medians.items()},
        "spread": {
            name: [round(min(f[name] for f in figures), 4),
                   round(max(f[name] for f in figures), 4)]
            for name in figures[0]
        },
        "workloads": {
            f"{workload} / {target}": {k: round(v, 5) for k, v in r.items()}
            for (workload, target), r in reports.items()
        },
        "repeats": arguments.repeats,
        "seconds": arguments.seconds,
        "machine": {"cores": os.cpu_count(), "kernel": platform.release(),
                    "load_average": os.getloadavg()[0]},
    }))


if __name__ == "__main__":
    main()
