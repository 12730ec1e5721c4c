#!/usr/bin/env bash
# Runs a Python test of this folder with the system's Python.
exec /usr/bin/python3 "$@" --verbose
