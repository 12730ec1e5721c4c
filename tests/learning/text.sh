#!/usr/bin/env bash
# Network growing on text, the next character of licence texts. See growing.py
# --help for the flags.
set -euo pipefail
source "$(dirname "$0")/environment.sh"
prepare_growing
exec /usr/bin/python3 tests/learning/growing.py text "$@"
