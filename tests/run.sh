#!/usr/bin/env bash
# Sets up, builds everything, and runs every test. Ends with
# "N passed, N failed[, N skipped]" and exits non-zero on any failure.
#
# --long, first: the tests that repeat something at random do so many times, and
# PyTorch is installed for the tests that need it.
#
# ESPER_DISK_CACHE names a folder for build results (default
# ~/.cache/esper-serve/bazel); it makes a second run quick and is never needed.
set -uo pipefail
cd "$(dirname "$0")/.."

if [ "${1:-}" = --long ]; then
  shift
  export ESPER_CRASH_ROUNDS="${ESPER_CRASH_ROUNDS:-100}"
  export ESPER_INSTALL_TORCH="${ESPER_INSTALL_TORCH:-1}"
  set -- --test_timeout=-1,-1,-1,7200 "$@"
fi

deploy/bootstrap.sh || exit 1

cache="${ESPER_DISK_CACHE:-$HOME/.cache/esper-serve/bazel}"
bazel test --disk_cache="$cache" --keep_going "$@" //...
status=$?
# Bazel's 4 is "no tests found"; everything else that is not 0 is a failure.
python3 tests/summarize.py "$status" $(bazel query --noshow_progress 2>/dev/null \
  'tests(//...) except attr(tags, "benchmark|manual", tests(//...))')
