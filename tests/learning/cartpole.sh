#!/usr/bin/env bash
# Memory: CartPole without velocities, beside RecurrentPPO. See cartpole.py
# --help for the flags; `--methods esper` leaves RecurrentPPO and torch out.
set -euo pipefail
source "$(dirname "$0")/environment.sh"
requirements=(requirements.txt)
[[ " $* " == *"--methods esper "* || " $* " == *"--methods=esper "* ]] ||
  requirements+=(requirements_recurrent_ppo.txt)
prepare "${requirements[@]}"
exec /usr/bin/python3 tests/learning/cartpole.py "$@"
