# Sourced by tests that need the Python client: `install_client FOLDER [PACKAGE
# ...]` installs it and further packages from a package index into FOLDER.
# Without an index it writes a log in which the test is skipped, and exits 0.

# The system's Python, as all scripts of this repository use.
PYTHON=/usr/bin/python3

skip() {
  echo "SKIPPED $TEST_TARGET: $1"
  cat >"${XML_OUTPUT_FILE:-/dev/null}" <<XML
<testsuites><testsuite name="$TEST_TARGET" tests="1" skipped="1">
<testcase name="all" classname="$TEST_TARGET"><skipped message="$1"/></testcase>
</testsuite></testsuites>
XML
  exit 0
}

install_client() {
  local site="$1" sources="$TEST_TMPDIR/sources" log="$TEST_TMPDIR/pip.log"
  shift
  # A copy, because building writes beside the sources.
  mkdir -p "$sources"
  cp -RL client proto "$sources"
  # Without any index nothing can be said about the client: `download` of the
  # smallest build requirement tells.
  if ! "$PYTHON" -m pip download --quiet --no-deps --dest "$TEST_TMPDIR" \
      iniconfig >"$log" 2>&1; then
    skip "pip cannot reach a package index"
  fi
  if ! "$PYTHON" -m pip install --quiet --target "$site" \
      "$sources/client/python" "$@" >"$log" 2>&1; then
    cat "$log" >&2
    exit 1
  fi
  export PYTHONPATH="$site"
}
