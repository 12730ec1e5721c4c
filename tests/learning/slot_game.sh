#!/usr/bin/env bash
# Masks, factored heads and a delayed reward, against a known optimum. See
# slot_game.py --help for the flags.
set -euo pipefail
source "$(dirname "$0")/environment.sh"
prepare requirements.txt
exec /usr/bin/python3 tests/learning/slot_game.py "$@"
