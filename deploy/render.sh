#!/usr/bin/env bash
# Renders the plain manifests in deploy/kustomize from the Helm chart, which is
# the one source of both. Needs helm.
#
#   deploy/render.sh           writes deploy/kustomize
#   deploy/render.sh --check   fails if it is not what would be written
set -euo pipefail
cd "$(dirname "$0")/.."

chart=deploy/helm/esper-serve
out=deploy/kustomize
check=false
case "${1:-}" in
  "") ;;
  --check) check=true ;;
  *) sed -n '2,/^set -/{s/^# \{0,1\}//;/^set -/!p}' "$0"; exit 2 ;;
esac

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# render FILE VARIANT TEMPLATE...: those templates under that variant's values.
# The ConfigMap and its hash are left to kustomize.
render() {
  local file=$work/$1 variant=$2
  shift 2
  mkdir -p "$(dirname "$file")"
  {
    echo "# Rendered by deploy/render.sh from $chart. Do not edit."
    helm template esper "$chart" --namespace esper --kube-version 1.34.0 \
      --values "$chart/variants/$variant.yaml" \
      --set managedBy=kustomize,namespace.create=true \
      --set config.create=false,config.existingName=esper-config \
      "${@/#/--show-only=templates/}" | grep -v '^# Source: '
  } >"$file"
}

# folder KIND NAME [LINE...]: a kustomization.
folder() {
  local kind=$1 file=$work/$2/kustomization.yaml version=v1beta1
  shift 2
  if [ "$kind" = Component ]; then version=v1alpha1; fi
  mkdir -p "$(dirname "$file")"
  {
    echo "# Rendered by deploy/render.sh from $chart. Do not edit."
    echo "apiVersion: kustomize.config.k8s.io/$version"
    echo "kind: $kind"
    printf '%s\n' "$@"
  } >"$file"
}

# What every overlay has.
render base/resources.yaml cpu namespace.yaml common.yaml network.yaml
helm template esper "$chart" --kube-version 1.34.0 \
  --show-only templates/common.yaml | python3 -c '
import re, sys
text = sys.stdin.read().split("training_config.json: |\n", 1)[1]
print(re.sub("^    ", "", text, flags=re.M).rstrip())
' >"$work/base/training_config.json"
folder Kustomization base 'namespace: esper' 'resources: [resources.yaml]' \
  'configMapGenerator:' '- name: esper-config' \
  '  files: [training_config.json]'

# Parts that overlays share.
render components/server/resources.yaml cpu server.yaml server-access.yaml
render components/server-gpu/resources.yaml gpu server.yaml server-access.yaml
for part in followers trainer environments training-mpi monitoring; do
  render "components/$part/resources.yaml" "$part" "$part.yaml"
done
for part in server server-gpu followers trainer environments training-mpi \
    monitoring; do
  folder Component "components/$part" 'resources: [resources.yaml]'
done

# overlay NAME COMPONENT...
overlay() {
  local name=$1
  shift
  folder Kustomization "overlays/$name" 'namespace: esper' \
    'resources: [../../base]' 'components:' \
    "${@/#/- ../../components/}"
}
overlay cpu server
overlay gpu server-gpu
overlay followers server followers
overlay trainer server trainer
overlay environments server trainer environments
overlay training-mpi training-mpi
# Kustomize does not know where an MPIJob names ConfigMaps.
echo 'configurations: [name_references.yaml]' \
  >>"$work/overlays/training-mpi/kustomization.yaml"
cat >"$work/overlays/training-mpi/name_references.yaml" <<'END'
# Rendered by deploy/render.sh. Do not edit.
nameReference:
- kind: ConfigMap
  version: v1
  fieldSpecs:
  - kind: MPIJob
    path: spec/mpiReplicaSpecs/Worker/template/spec/volumes/configMap/name
END
overlay monitoring server monitoring
overlay all server followers trainer environments monitoring

if $check; then
  diff -r -u "$out" "$work" || {
    echo "render: $out differs from the chart; run deploy/render.sh" >&2
    exit 1
  }
  exit 0
fi
rm -rf "$out"
mkdir -p "$out"
cp -R "$work"/. "$out"/
echo "render: wrote $(find "$out" -type f | wc -l) files to $out"
