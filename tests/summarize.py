"""Counts test cases over the logs of a Bazel test run.

Usage: summarize.py BAZEL_EXIT_STATUS //pkg:test ...

Reads bazel-testlogs/<pkg>/<test>/test.xml of each target, prints failures and
skips by name, then `N passed, N failed[, N skipped]`. Exits 0 only if Bazel did
and no case failed. A target without a log counts as one failure: it did not
build.
"""
import pathlib
import sys
import xml.etree.ElementTree as ElementTree


def cases(target):
    """Yields (name, outcome, reason) for every test case of a target."""
    package, _, name = target[2:].partition(":")
    # Sharded targets keep one log per shard below the target's folder.
    logs = sorted(pathlib.Path("bazel-testlogs", package, name).rglob("test.xml"))
    if not logs:
        yield target, "failed", "no test log: it did not build or did not run"
    for log in logs:
        for case in ElementTree.parse(log).getroot().iter("testcase"):
            full_name = f"{target} {case.get('classname', '')}.{case.get('name')}"
            problem = case.find("failure")
            problem = problem if problem is not None else case.find("error")
            skip = case.find("skipped")
            if problem is not None:
                yield full_name, "failed", problem.get("message", "")
            elif skip is not None or case.get("result") == "skipped":
                text = "" if skip is None else skip.get("message", "")
                yield full_name, "skipped", text
            elif case.get("status") == "notrun":
                continue
            else:
                yield full_name, "passed", ""


def main(bazel_status, targets):
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    for target in targets:
        for name, outcome, reason in cases(target):
            counts[outcome] += 1
            if outcome != "passed":
                first_line = reason.strip().partition("\n")[0]
                print(f"{outcome.upper()} {name} {first_line}")
    if bazel_status != 0 and counts["failed"] == 0:
        print(f"FAILED bazel exit status {bazel_status}")
        counts["failed"] += 1
    line = f"{counts['passed']} passed, {counts['failed']} failed"
    if counts["skipped"]:
        line += f", {counts['skipped']} skipped"
    print(line)
    return 1 if counts["failed"] else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
