#!/usr/bin/env bash
# Installs the system packages that building, testing and running Esper Serve
# needs on Debian 12. Safe to run again: what is there is left alone.
#
# Needs: Debian 12, Python 3 with pip, the right to install packages (root, or
# sudo). LibTorch and the digits data set are not installed here: the build
# fetches them from PyPI, pinned by sha256.
set -euo pipefail

# What each package is for:
packages=(
  g++ git unzip pkg-config ca-certificates    # compiler and basics
  bazel-bootstrap bazel-rules-java            # Bazel 4.2.3
  libgrpc++-dev libgrpc-dev                   # gRPC 1.51
  protobuf-compiler protobuf-compiler-grpc libprotobuf-dev
  libabsl-dev libspdlog-dev libfmt-dev        # Abseil, logging
  nlohmann-json3-dev zlib1g-dev libssl-dev    # JSON, gzip, SHA-256, TLS
  openssl                                     # certificates of tests
  prometheus-cpp-dev                          # metrics
  libgtest-dev libgmock-dev libbenchmark-dev  # tests and benchmarks
  python3-matplotlib                          # plots of report.html
)

missing=()
for package in "${packages[@]}"; do
  if ! dpkg-query -W -f='${Status}' "$package" 2>/dev/null |
      grep -q '^install ok installed$'; then
    missing+=("$package")
  fi
done

if [ ${#missing[@]} -eq 0 ]; then
  echo "bootstrap: all ${#packages[@]} packages are installed"
else
  echo "bootstrap: installing ${missing[*]}"
  sudo=()
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || {
      echo "bootstrap: run as root, or install sudo first" >&2
      exit 1
    }
    sudo=(sudo)
  fi
  "${sudo[@]}" apt-get update -qq
  "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

python3 -m pip --version >/dev/null 2>&1 || {
  echo "bootstrap: python3 has no pip; install python3-pip" >&2
  exit 1
}
echo "bootstrap: done"
