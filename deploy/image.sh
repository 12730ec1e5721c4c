#!/usr/bin/env bash
# Builds the container image with docker, podman or buildah, whichever is there.
#
#   deploy/image.sh [--variant cpu|gpu|mpi] [--prebuilt BAZEL_BIN]
#                   [--base IMAGE] [--tag NAME]
#
#   --variant   cpu (default); gpu: with LibTorch's CUDA libraries; mpi: with
#               Open MPI and sshd, for MPIJob ranks
#   --prebuilt  take the programs below BAZEL_BIN, built on the same Debian,
#               instead of compiling in the image
#   --base      image of Debian 12 (default
#               docker.io/library/debian:bookworm-slim)
#   --tag       name of the image (default
#               localhost/esper-serve:VERSION[-VARIANT])
#
# ESPER_IMAGE_TOOL names another tool. With podman and buildah, ESPER_DISK_CACHE
# names a folder for build results, as in tests/run.sh.
set -euo pipefail
called_from=$PWD
cd "$(dirname "$0")/.."

variant=cpu
prebuilt=""
base=docker.io/library/debian:bookworm-slim
tag=""
usage() { sed -n '2,/^set -/{s/^# \{0,1\}//;/^set -/!p}' "$0"; }
while [ $# -gt 0 ]; do
  case "$1" in
    --variant) variant="${2:?--variant needs a name}"; shift 2 ;;
    --prebuilt) prebuilt="${2:?--prebuilt needs a folder}"; shift 2 ;;
    --base) base="${2:?--base needs an image}"; shift 2 ;;
    --tag) tag="${2:?--tag needs a name}"; shift 2 ;;
    -h | --help) usage; exit 0 ;;
    *) echo "image: unknown argument $1" >&2; usage >&2; exit 2 ;;
  esac
done
case "$variant" in
  cpu) target=runtime suffix="" ;;
  gpu) target=runtime suffix=-gpu ;;
  mpi) target=mpi suffix=-mpi ;;
  *) echo "image: unknown variant $variant" >&2; exit 2 ;;
esac
version=$(sed -n 's/^appVersion: "\(.*\)"$/\1/p' \
  deploy/helm/esper-serve/Chart.yaml)
tag="${tag:-localhost/esper-serve:$version$suffix}"

tool="${ESPER_IMAGE_TOOL:-}"
for candidate in docker podman buildah; do
  [ -n "$tool" ] && break
  # The docker client is of no use without its daemon.
  if [ "$candidate" = docker ] && ! docker info >/dev/null 2>&1; then
    continue
  fi
  if command -v "$candidate" >/dev/null; then tool=$candidate; fi
done
[ -n "$tool" ] || {
  echo "image: install docker, podman or buildah" >&2
  exit 1
}

context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
flags=(--build-arg "BASE=$base" --build-arg "VARIANT=$variant")
binaries=build
if [ -n "$prebuilt" ]; then
  case "$prebuilt" in /*) ;; *) prebuilt="$called_from/$prebuilt" ;; esac
  mkdir "$context/deploy"
  cp -R deploy/Dockerfile deploy/image "$context/deploy/"
  deploy/image/stage.sh "$prebuilt" "$context/prebuilt"
  binaries=prebuilt
else
  git ls-files -z --cached --others --exclude-standard |
    tar --null -T - -c | tar -x -C "$context"
  if [ -n "${ESPER_DISK_CACHE:-}" ] && [ "$tool" != docker ]; then
    flags+=(--volume "$ESPER_DISK_CACHE:/bazel_cache")
  fi
fi
# Named in any case: buildah 1.28 leaves out stages that a default leads to.
flags+=(--build-arg "BINARIES=$binaries")
"$tool" build --target "$target" --tag "$tag" "${flags[@]}" \
  --file "$context/deploy/Dockerfile" "$context"
echo "image: $tag"
