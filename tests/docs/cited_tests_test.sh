#!/usr/bin/env bash
# Reads the checkout itself, which has every test, and not a list of inputs.
here="$(dirname "$(readlink -f "$0")")"
exec /usr/bin/python3 "$here/cited_tests.py" "$here/../.."
