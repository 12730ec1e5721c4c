#!/usr/bin/env bash
# LibTorch's CPU library out of the wheel names the CUDA runtime and its
# profiler as needed, and asks them for devices. The CPU image has small
# stand-ins, which answer every call with "no device" (cudaErrorNoDevice) and
# "not initialised" (CUPTI_ERROR_NOT_INITIALIZED).
# Usage: cuda_stand_ins.sh LIB, the folder of libtorch_cpu.so
set -euo pipefail
lib=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# stand_in SONAME CODE: a library that defines what is wanted of SONAME.
stand_in() {
  local soname=$1 code=$2 symbols
  symbols=$(nm -D --undefined-only "$lib/libtorch_cpu.so" |
    awk -v version="@$soname" \
      'index($2, version) {sub(/@.*/, "", $2); print $2}')
  [ -n "$symbols" ] || return 0
  for symbol in $symbols; do
    case "$symbol" in
      cudaGetErrorString)
        echo "const char *$symbol(void) { return \"no CUDA here\"; }" ;;
      *) echo "int $symbol(void) { return $code; }" ;;
    esac
  done >"$work/stand_in.c"
  echo "$soname { global: *; };" >"$work/versions"
  gcc -shared -fPIC -O2 -Wl,-soname="$soname" \
    -Wl,--version-script="$work/versions" -o "$lib/$soname" "$work/stand_in.c"
}

stand_in libcudart.so.13 100
stand_in libcupti.so.13 15
