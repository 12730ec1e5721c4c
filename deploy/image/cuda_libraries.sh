#!/usr/bin/env bash
# Copies LibTorch's CUDA libraries, and what they need, out of unpacked wheels.
# Usage: cuda_libraries.sh WHEELS LIB, LIB holding libtorch_cpu.so
set -euo pipefail
wheels=$1
lib=$2

folders=$(find "$wheels" -name '*.so*' -not -path '*/stubs/*' -printf '%h\n' |
  grep -e '/torch/lib$' -e '/nvidia/.*/lib$' | sort -u | paste -sd:)
cuda=$(find "$wheels" -path '*/torch/lib/libtorch_cuda.so')
[ -n "$cuda" ] || { echo "cuda: no libtorch_cuda.so in $wheels" >&2; exit 1; }
# cuDNN and NVRTC open their parts by name when they first need them.
opened=$(find "$wheels" -name 'libcudnn_*.so.9' -o -name 'libnvrtc.so.13' \
  -o -name 'libnvrtc-builtins.so.13*' -not -name '*.alt.*')
{
  echo "libtorch_cuda.so $cuda"
  for file in $opened; do echo "$(basename "$file") $file"; done
  LD_LIBRARY_PATH="$folders" ldd "$cuda" |
    awk -v wheels="$wheels" '$2 == "=>" && index($3, wheels) {print $1, $3}'
} | sort -u | while read -r name path; do
  install -m 644 "$path" "$lib/$name"
done
