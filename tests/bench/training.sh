#!/usr/bin/env bash
# Compares evaluation and gradient with the same in PyTorch, through gRPC with in
# process, and bf16 with fp32, in turns on this machine, and measures what a
# server keeps of abandoned streams; docs/training-service.md explains the
# figures. Prints a table and ends with one line of JSON.
#
#   tests/bench/training.sh [--repeats=N] [--streams=N] [--quick]
#
# --quick: no PyTorch, moments; its figures mean nothing. PyTorch is installed
# once into build/serving-python, as for compare.sh, or taken from the folder
# ESPER_SERVING_PYTHON. ESPER_PREBUILT=1 uses bazel-bin as it is.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

if [ -z "${ESPER_PREBUILT:-}" ]; then
  bazel build //server:esper_server //tests/bench:training
fi
site="${ESPER_SERVING_PYTHON:-$PWD/build/serving-python}"
case " $* " in
*" --quick "*) ;;
*)
  requirements=tests/bench/serving_requirements.txt
  stamp="$site/.$(sha256sum <"$requirements" | cut -c1-16)"
  if [ -z "${ESPER_SERVING_PYTHON:-}" ] && [ ! -e "$stamp" ]; then
    mkdir -p "$site"
    /usr/bin/python3 -m pip install --quiet --upgrade --target "$site" \
      -r "$requirements"
    touch "$stamp"
  fi
  ;;
esac
# One thread on every side.
export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1
exec /usr/bin/python3 tests/bench/training.py --site "$site" "$@"
