#!/usr/bin/env bash
# Network growing on handwritten digits. See growing.py --help for the flags.
set -euo pipefail
source "$(dirname "$0")/environment.sh"
prepare_growing
[ -e data/digits.csv.gz ] ||
  /usr/bin/python3 deploy/fetch_digits.py data/digits.csv.gz
exec /usr/bin/python3 tests/learning/growing.py digits "$@"
