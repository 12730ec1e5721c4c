#!/usr/bin/env bash
# Builds the programs inside the image's build stage.
# Usage: compile.sh OUT, from the root of the checkout
set -euo pipefail
out=$1

deploy/bootstrap.sh
# A build cache, where deploy/image.sh could mount one.
cache=()
if [ -d /bazel_cache ]; then cache=(--disk_cache=/bazel_cache); fi
bazel build "${cache[@]}" //server:esper_server //client:esper_env \
  //client:esper_trainer //client:esperctl
deploy/image/stage.sh bazel-bin "$out"
