"""Unpacks the parts of the LibTorch wheels that a C++ build needs.

Usage: extract_wheels.py WHEEL_DIR OUT_DIR

Takes the headers of ATen, c10, caffe2 and torch (never the wheel's copies of
protobuf and fmt) into OUT_DIR/include, and the CPU libraries into OUT_DIR/lib.
"""
import pathlib
import shutil
import sys
import zipfile

HEADER_ROOTS = ("ATen/", "c10/", "caffe2/", "torch/")
LIBRARIES = (
    "libtorch_cpu.so",
    "libc10.so",
    "libgomp.so.1",
    "libcudart.so.13",
    "libcupti.so.13",
)


def destination(name):
    """Where a member of a wheel goes below OUT_DIR, or None to leave it."""
    header = name.partition("torch/include/")[2]
    if name.startswith("torch/include/") and header.startswith(HEADER_ROOTS):
        return "include/" + header
    base = name.rpartition("/")[2]
    return "lib/" + base if base in LIBRARIES and "/lib/" in name else None


def main(wheel_dir, out_dir):
    found = set()
    for wheel in sorted(pathlib.Path(wheel_dir).glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            for member in archive.infolist():
                target = destination(member.filename)
                if target is None or member.is_dir():
                    continue
                path = pathlib.Path(out_dir) / target
                path.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(member) as src, open(path, "wb") as dst:
                    shutil.copyfileobj(src, dst, 1 << 20)
                found.add(path.name)
    missing = set(LIBRARIES) - found
    if missing:
        sys.exit(f"wheels in {wheel_dir} lack {sorted(missing)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
