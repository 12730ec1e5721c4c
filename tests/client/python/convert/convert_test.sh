#!/usr/bin/env bash
# esper-convert with PyTorch, against a real server and esperctl.
set -euo pipefail
source tests/client/python/install.sh
packages=(pytest safetensors)
if [ -z "${ESPER_TORCH_SITE:-}" ]; then
  [ "${ESPER_INSTALL_TORCH:-}" = 1 ] ||
    skip "neither ESPER_TORCH_SITE nor ESPER_INSTALL_TORCH=1 is set"
  packages+=(torch)
fi
install_client "$TEST_TMPDIR/site" "${packages[@]}"
export PYTHONPATH="$PYTHONPATH${ESPER_TORCH_SITE:+:$ESPER_TORCH_SITE}"
export ESPER_SERVER="$PWD/server/esper_server"
export ESPERCTL="$PWD/client/ctl/esperctl"
exec "$PYTHON" -m pytest -q -p no:cacheprovider \
  ${XML_OUTPUT_FILE:+--junitxml="$XML_OUTPUT_FILE"} \
  tests/client/python/convert/convert_test.py
