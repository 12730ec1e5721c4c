#!/usr/bin/env bash
# Compares the server with its ceiling, its floor and two Python servers, in
# turns on this machine; docs/benchmarks.md explains the figures. Prints a table
# and ends with one line of JSON.
#
#   tests/bench/compare.sh [--seconds=S] [--repeats=N] [--quick]
#
# --quick: no Python servers, moments instead of seconds; its figures mean
# nothing. The Python servers' packages (torch, grpcio) are installed once into
# build/serving-python, or taken from the folder ESPER_SERVING_PYTHON.
# ESPER_PREBUILT=1 uses bazel-bin as it is.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

if [ -z "${ESPER_PREBUILT:-}" ]; then
  bazel build //server:esper_server //tests/bench:serving
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
# One thread for each policy: OpenMP's would fight with the client.
export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1
exec /usr/bin/python3 tests/bench/compare.py --site "$site" "$@"
