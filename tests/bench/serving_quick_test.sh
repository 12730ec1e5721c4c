#!/usr/bin/env bash
# Every part of the serving benchmark works; figures mean nothing here.
set -euo pipefail
lines=$(tests/bench/serving quick)
echo "$lines"
# Server and floor under closed and open load, and the ceiling.
[ "$(grep -c '"actions_per_second"' <<<"$lines")" -eq 5 ]
if tests/bench/serving load --address=example.org:80 2>/dev/null; then
  echo "FAILED: load goes to other machines" >&2
  exit 1
fi
