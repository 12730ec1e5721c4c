#!/usr/bin/env bash
# Copies what an image is made of out of a finished build.
# Usage: stage.sh BAZEL_BIN OUT, from the root of the checkout
set -euo pipefail
bin=$1
out=$2

mkdir -p "$out/bin" "$out/lib" "$out/mpi" "$out/share"
for program in server/esper_server client/env/esper_env \
    client/trainer/esper_trainer client/ctl/esperctl; do
  install -m 755 "$bin/$program" "$out/bin/"
done
# LibTorch, where the server's own run path finds it.
cp -L "$bin"/_solib_k8/_U@torch_S_S_Ctorch___Ulib/*.so* "$out/lib/"
# What --role=trainer loads, where the build has it.
if [ -e "$bin/server/libesper_mpi.so" ]; then
  install -m 755 "$bin/server/libesper_mpi.so" "$out/mpi/"
fi
python3 deploy/fetch_digits.py "$out/share/digits.csv.gz"
