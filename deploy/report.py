#!/usr/bin/env python3
"""Writes report.html into a run folder: plots of a training run, in one file.

Usage: report.py RUN_DIR

Reads what esper_trainer leaves behind (summary.json, episodes.csv, updates.csv,
steps.jsonl). Plots are inline SVG, so the page needs no network and no other
file. Runs with an empty or partly written run too: what is missing is left out.
"""
import csv
import html
import io
import json
import pathlib
import sys

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt  # noqa: E402: after choosing the backend
from matplotlib.patches import Patch  # noqa: E402
from matplotlib.ticker import MaxNLocator  # noqa: E402

STAGE_COLORS = {
    "GERMINATED": "#fde68a",
    "TRAINING": "#fdba74",
    "BLENDING": "#93c5fd",
    "HOLDING": "#a78bfa",
    "FOSSILIZED": "#34d399",
    "PRUNED": "#f87171",
    "EMBARGOED": "#fca5a5",
    "RESETTING": "#e5e7eb",
}
NEWEST_TIMELINES = 8  # Episodes with a timeline: the newest first, ...
OLDEST_TIMELINES = 4  # ... then the oldest, to compare.

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem;
       padding: 0 1rem; color: #0f172a; background: #fff; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
table { border-collapse: collapse; } td, th { padding: .2rem .8rem .2rem 0;
       text-align: left; } td { font-variant-numeric: tabular-nums; }
svg { max-width: 100%; height: auto; } .note { color: #475569; }
"""


def read_csv(path):
    """Rows as dictionaries; none if the file is not there."""
    if not path.exists():
        return []
    with open(path, newline="", encoding="utf-8") as f:
        return list(csv.DictReader(f))


def read_timelines(path):
    """Complete lines of steps.jsonl; a line cut short by a kill is dropped."""
    timelines = []
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                timelines.append(json.loads(line))
            except ValueError:
                continue
    return timelines


def column(rows, name):
    return [float(row[name]) if row[name] else float("nan") for row in rows]


def svg(figure):
    """The figure as an inline <svg> element."""
    text = io.StringIO()
    for axis in figure.axes:
        if axis.get_xlabel() or axis.get_title():
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.savefig(text, format="svg", bbox_inches="tight")
    plt.close(figure)
    whole = text.getvalue()
    return whole[whole.index("<svg"):]


def plot_return(updates):
    figure, axis = plt.subplots(figsize=(9, 3))
    axis.plot(column(updates, "update"), column(updates, "mean_return"),
              marker="o", markersize=3, color="#2563eb")
    axis.set_xlabel("update")
    axis.set_ylabel("mean return of an episode")
    axis.grid(alpha=0.3)
    return svg(figure)


def plot_accuracy(episodes):
    figure, axis = plt.subplots(figsize=(9, 3))
    number = column(episodes, "number")
    axis.plot(number, column(episodes, "host_accuracy"), ".", color="#16a34a",
              label="with grown seeds")
    axis.plot(number, column(episodes, "host_accuracy_without_seeds"), ".",
              color="#94a3b8", label="every seed switched off")
    axis.set_xlabel("episode")
    axis.set_ylabel("test accuracy, %")
    axis.legend(loc="lower right")
    axis.grid(alpha=0.3)
    return svg(figure)


def plot_losses(updates):
    names = ["policy_loss", "value_loss", "entropy", "approx_kl",
             "explained_variance", "ratio_check_max"]
    figure, axes = plt.subplots(2, 3, figsize=(9, 4.5), constrained_layout=True)
    for name, axis in zip(names, axes.flat):
        axis.plot(column(updates, "update"), column(updates, name),
                  color="#2563eb", linewidth=1)
        axis.set_title(name.replace("_", " "), fontsize=9)
        axis.tick_params(labelsize=7)
        axis.grid(alpha=0.3)
    return svg(figure)


def plot_timeline(timeline):
    """Stages of every slot as coloured bars, its alpha as a line on top."""
    steps = timeline["steps"]
    slots = [slot["slot"] for slot in steps[0]["slots"]]
    figure, axis = plt.subplots(figsize=(9, 0.6 * len(slots) + 0.8))
    for row, _ in enumerate(slots):
        axis.axhline(row - 0.5, color="#e2e8f0", linewidth=0.5)
        for step in steps:
            stage = step["slots"][row]["stage"]
            if stage:
                axis.barh(row, 1, left=step["epoch"] - 0.5, height=0.9,
                          color=STAGE_COLORS.get(stage, "#cbd5e1"))
        alpha = [row + 0.4 - 0.8 * (step["slots"][row]["alpha"] or 0)
                 if step["slots"][row]["stage"] else float("nan")
                 for step in steps]
        axis.plot([step["epoch"] for step in steps], alpha, color="#0f172a",
                  linewidth=1.2)
    axis.set_yticks(range(len(slots)), slots)
    axis.set_ylim(len(slots) - 0.5, -0.5)
    axis.set_xlim(0.5, max(step["epoch"] for step in steps) + 0.5)
    axis.set_xlabel("host epoch")
    return svg(figure)


def legend():
    figure = plt.figure(figsize=(9, 0.4))
    handles = [Patch(color=c, label=s.lower()) for s, c in STAGE_COLORS.items()]
    handles.append(plt.Line2D([], [], color="#0f172a", label="alpha (0 to 1)"))
    figure.legend(handles=handles, ncol=len(handles), loc="center", fontsize=7,
                  frameon=False, columnspacing=1, handlelength=1)
    return svg(figure)


def summary_table(summary):
    rows = []
    for key, value in summary.items():
        if isinstance(value, list):
            if not value:
                continue
            value = f"{sum(value) / len(value):.2f} (mean of {len(value)})"
        elif isinstance(value, dict):
            continue
        elif isinstance(value, float):
            value = f"{value:.6g}"
        rows.append(f"<tr><td>{html.escape(key.replace('_', ' '))}</td>"
                    f"<td>{html.escape(str(value))}</td></tr>")
    return "<table>" + "".join(rows) + "</table>"


def configuration(summary):
    """The effective configuration, folded up."""
    if not summary.get("config"):
        return ""
    text = html.escape(json.dumps(summary["config"], indent=2))
    return (f"<details><summary>Configuration</summary><pre>{text}</pre>"
            "</details>")


def choose_timelines(timelines):
    """The newest episodes, newest first, then the oldest ones."""
    with_steps = [t for t in timelines if t["steps"]]
    if len(with_steps) <= NEWEST_TIMELINES + OLDEST_TIMELINES:
        return with_steps[::-1]
    return (with_steps[:-NEWEST_TIMELINES - 1:-1] +
            with_steps[:OLDEST_TIMELINES])


def report(run_dir):
    updates = read_csv(run_dir / "updates.csv")
    episodes = read_csv(run_dir / "episodes.csv")
    timelines = choose_timelines(read_timelines(run_dir / "steps.jsonl"))
    summary_file = run_dir / "summary.json"
    summary = (json.loads(summary_file.read_text(encoding="utf-8"))
               if summary_file.exists() else {})
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>",
        "<meta name='viewport' content='width=device-width'>",
        f"<title>Esper run {html.escape(run_dir.name)}</title>",
        f"<style>{STYLE}</style></head><body>",
        f"<h1>Run {html.escape(run_dir.name)}</h1>",
        summary_table(summary),
        configuration(summary),
    ]
    if updates:
        parts += ["<h2>Return over updates</h2>", plot_return(updates)]
    if episodes:
        parts += ["<h2>Host accuracy with and without grown seeds</h2>",
                  "<p class='note'>Test split, measured for this report only: "
                  "training never sees it.</p>", plot_accuracy(episodes)]
    if updates:
        parts += ["<h2>Learning</h2>", plot_losses(updates)]
    if timelines:
        parts += ["<h2>Slots</h2>",
                  "<p class='note'>Stage of each slot after every host epoch; "
                  "the line is alpha.</p>", legend()]
        for timeline in timelines:
            parts += [f"<p>Episode {timeline['episode']}, policy version "
                      f"{timeline['policy_version']}</p>",
                      plot_timeline(timeline)]
    parts.append("</body></html>\n")
    return "".join(parts)


def main(arguments):
    if len(arguments) != 1 or not pathlib.Path(arguments[0]).is_dir():
        sys.exit(__doc__)
    run_dir = pathlib.Path(arguments[0])
    (run_dir / "report.html").write_text(report(run_dir), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
