#!/usr/bin/env bash
# Installs the Python client as a user would and runs its tests against a real
# server.
set -euo pipefail
source tests/client/python/install.sh
install_client "$TEST_TMPDIR/site" pytest
export ESPER_SERVER="$PWD/server/esper_server" ESPER_README="$PWD/README.md"
cd tests/client/python
exec "$PYTHON" -m pytest -q -p no:cacheprovider \
  --override-ini python_files='*_test.py' \
  ${XML_OUTPUT_FILE:+--junitxml="$XML_OUTPUT_FILE"} .
