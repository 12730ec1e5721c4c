#!/usr/bin/env bash
# Drives the server with the real client of the Open Inference Protocol,
# tritonclient[grpc] from PyPI. Skipped, by name, where there is no index.
set -euo pipefail
source tests/client/python/install.sh
install_client "$TEST_TMPDIR/site" pytest 'tritonclient[grpc]'
export ESPER_SERVER="$PWD/server/esper_server"
cd tests/e2e
exec "$PYTHON" -m pytest -q -p no:cacheprovider \
  ${XML_OUTPUT_FILE:+--junitxml="$XML_OUTPUT_FILE"} oip_client_test.py
