#!/usr/bin/env bash
# Installs what collect.sh takes libraries from.
# Usage: install_libraries.sh VARIANT
set -euo pipefail
variant=$1

packages=(
  binutils gcc libc6-dev                          # strip, nm, stand-ins
  libgrpc++1.51 libgrpc29 libprotobuf32           # gRPC
  libabsl20220623 libspdlog1.10 libfmt9 libgomp1  # Abseil, logging, OpenMP
  libprometheus-cpp-pull1.0 libssl3 zlib1g        # metrics, TLS, gzip
)
if [ "$variant" = gpu ]; then packages+=(python3-pip); fi
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
  "${packages[@]}" >/dev/null
if [ "$variant" = gpu ]; then
  python3 -m pip install --quiet --no-deps --no-compile --require-hashes \
    --only-binary=:all: --target /cuda -r "$(dirname "$0")/cuda.txt"
fi
