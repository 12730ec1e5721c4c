#!/usr/bin/env bash
# Installs the Python client and runs the short versions of the learning proofs.
set -euo pipefail
source tests/client/python/install.sh
install_client "$TEST_TMPDIR/site" pytest
export ESPER_SERVER="$PWD/server/esper_server" ESPER_PROGRAMS="$PWD"
export ESPER_DIGITS="$PWD/$ESPER_DIGITS"
cd tests/learning
exec "$PYTHON" -m pytest -q -p no:cacheprovider \
  --override-ini python_files='*_test.py' \
  ${XML_OUTPUT_FILE:+--junitxml="$XML_OUTPUT_FILE"} .
