"""Runs the training benchmark in turns and prints what it measured.

Started by training.sh. Every side is a process that is up all the time and
waits for the next order; one of them works at a time, and a repeat asks all of
them before the next repeat begins, so that whatever else the machine does meets
all alike. Figures are medians over the repeats of ratios within a repeat.
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

TRAINING = "bazel-bin/tests/bench/training"
SERVER = "bazel-bin/server/esper_server"
TWIN = "tests/bench/training_twin.py"
BATCHES = ((4, 25), (8, 150))

# Figure: (must, goal, whether larger is better).
FIGURES = {}
for _rows, _steps in BATCHES:
    _batch = f"{_rows}x{_steps}"
    FIGURES[f"{_batch} fp32 over PyTorch"] = (1.1, 1.25, True)
    FIGURES[f"{_batch} bf16 over PyTorch"] = (1.5, 2.5, True)
    FIGURES[f"{_batch} through gRPC over in process"] = (0.9, 0.97, True)
ABANDONED = "server memory after abandoned streams over start"
FIGURES[ABANDONED] = (1.02, 1.005, False)


class Side:
    """A process that takes steps when told."""

    def __init__(self, name, arguments, environment=None):
        self.name = name
        self.process = subprocess.Popen(
            arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            text=True, env=environment)
        self.ready = self.read()

    def read(self):
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} ended: {self.process.wait()}")
        return json.loads(line)

    def steps(self, count):
        self.process.stdin.write(f"{count}\n")
        self.process.stdin.flush()
        return self.read()

    def stop(self):
        self.process.kill()
        self.process.wait()


def run_part(part, **flags):
    done = subprocess.run(
        [TRAINING, part, *(f"--{k}={v}" for k, v in flags.items())],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise SystemExit(f"training {part} {flags} failed:\n{done.stderr}")
    return json.loads(done.stdout) if done.stdout else None


def start_server(folder, stop):
    port_file = pathlib.Path(folder, "port")
    port_file.unlink(missing_ok=True)
    # As the other sides: no dropout, raw observations, the same floors.
    process = subprocess.Popen(
        [SERVER, "--address=127.0.0.1:0", f"--port_file={port_file}",
         "--log_level=warn",
         "--set=policy.floor=upstream,"
         "learner.predictor_dropout=false,"
         "learner.normalize_observations=false"])
    stop.append(process)
    end = time.time() + 120
    while not port_file.exists() or not port_file.read_text().strip():
        if process.poll() is not None or time.time() > end:
            raise SystemExit("the server does not listen")
        time.sleep(0.05)
    return process, int(port_file.read_text())


def stop_server(process):
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def start_sides(rows, steps, port, folder, site):
    batch = dict(rows=rows, steps=steps)
    flags = [f"--{k}={v}" for k, v in batch.items()]
    sides = {
        "fp32": Side("fp32", [TRAINING, "in_process", *flags]),
        "bf16": Side("bf16",
                     [TRAINING, "in_process", "--precision=bf16", *flags]),
        "gRPC": Side("gRPC", [TRAINING, "stream", f"--port={port}", *flags]),
    }
    if site is not None:
        file = pathlib.Path(folder, f"{rows}x{steps}.safetensors")
        run_part("export", file=file, **batch)
        sides["PyTorch"] = Side(
            "PyTorch", ["/usr/bin/python3", TWIN, "--batch", str(file)],
            dict(os.environ, PYTHONPATH=site))
        worst = max(sides["PyTorch"].ready.values())
        if not worst < 1e-3:
            raise SystemExit(f"the twin computes something else: {worst}")
    return sides


def compare(sides, repeats, count):
    """Reports by side and repeat, in turns."""
    for side in sides.values():
        side.steps(2)  # Warm-up.
    return [{name: side.steps(count) for name, side in sides.items()}
            for _ in range(repeats)]


def ratios(repeats, clock):
    """By figure, of each repeat; `clock`: seconds or cpu."""
    def speed(repeat, side):
        return 1 / statistics.median(repeat[side][clock])
    result = {}
    pairs = {"fp32 over PyTorch": ("fp32", "PyTorch"),
             "bf16 over PyTorch": ("bf16", "PyTorch"),
             "bf16 over fp32": ("bf16", "fp32"),
             "through gRPC over in process": ("gRPC", "fp32")}
    for name, (one, other) in pairs.items():
        if one in repeats[0] and other in repeats[0]:
            result[name] = [speed(r, one) / speed(r, other) for r in repeats]
    return result


def print_figures(figures):
    print("| figure | must | goal | measured | |")
    print("|---|---|---|---|---|")
    for name, value in figures.items():
        must, goal, larger = FIGURES.get(name, (None, None, True))
        sign = "≥" if larger else "≤"
        reaches = lambda bound: value >= bound if larger else value <= bound
        verdict = ("" if must is None else "goal" if reaches(goal) else
                   "must" if reaches(must) else "missed")
        print(f"| {name} | {f'{sign} {must}' if must else '–'} | "
              f"{goal or '–'} | {value:.3f} | {verdict} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--streams", type=int, default=10000)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--site", required=True)
    arguments = parser.parse_args()
    counts = {(4, 25): 12, (8, 150): 3}
    if arguments.quick:
        arguments.repeats, arguments.streams = 1, 100
        counts = {batch: 1 for batch in counts}
    site = None if arguments.quick else arguments.site
    load = os.getloadavg()[0]
    figures, spread, cpu, milliseconds, errors = {}, {}, {}, {}, {}
    processes = []
    with tempfile.TemporaryDirectory() as folder:
        try:
            _, port = start_server(folder, processes)
            for rows, steps in BATCHES:
                batch = f"{rows}x{steps}"
                sides = start_sides(rows, steps, port, folder, site)
                try:
                    repeats = compare(sides, arguments.repeats,
                                      counts[rows, steps])
                finally:
                    for side in sides.values():
                        side.stop()
                for name, values in ratios(repeats, "seconds").items():
                    figures[f"{batch} {name}"] = statistics.median(values)
                    spread[f"{batch} {name}"] = [min(values), max(values)]
                for name, values in ratios(repeats, "cpu").items():
                    if "gRPC" not in name:  # Two processes share that work.
                        cpu[f"{batch} {name}"] = statistics.median(values)
                for name in sides:
                    milliseconds[f"{batch} {name}"] = 1000 * statistics.median(
                        s for r in repeats for s in r[name]["seconds"])
                errors[batch] = run_part("error", rows=rows, steps=steps)
            stop_server(processes.pop())
            # A server of its own, so that nothing before counts as a start.
            server, port = start_server(folder, processes)
            abandoned = run_part(
                "abandon", port=port, server_pid=server.pid,
                warmup=50 if arguments.quick else 1000,
                streams=arguments.streams)
            figures[ABANDONED] = (abandoned["end_bytes"] /
                                  abandoned["start_bytes"])
        finally:
            for process in processes:
                stop_server(process)
    rounded = lambda d: {k: round(v, 4) for k, v in d.items()}
    print("| batch and side | ms a step |")
    print("|---|---|")
    for name, value in milliseconds.items():
        print(f"| {name} | {value:.1f} |")
    print()
    print_figures(figures)
    print(json.dumps({
        "figures": rounded(figures),
        "spread": {k: [round(x, 4) for x in v] for k, v in spread.items()},
        "cpu_ratios": rounded(cpu),
        "milliseconds": rounded(milliseconds),
        "bf16_gradient_error": errors,
        "abandoned": abandoned,
        "repeats": arguments.repeats,
        "machine": {"cores": os.cpu_count(), "kernel": platform.release(),
                    "load_average": [load, os.getloadavg()[0]]},
    }))


if __name__ == "__main__":
    main()
