#!/usr/bin/env bash
# Checks chart, manifests, alerts and dashboard. Ends with
# "N passed, N failed[, N skipped]" and exits non-zero on any failure.
#
# Tools that are not on the PATH are installed in pinned versions into
# ${ESPER_TOOLS:-~/.cache/esper-serve/tools} (helm takes minutes to build);
# ESPER_OFFLINE=1 installs nothing, and what needs them is reported as skipped.
#
#   ESPER_BIN=bazel-bin     also: the programs know every flag they are given
#   KUBE_APISERVER=BINARY   also: a strict dry-run on a real API server, in a
#                           namespace that enforces "restricted"; needs etcd
#                           and kubectl
set -uo pipefail
cd "$(dirname "$0")/../.."
. tests/deploy/tools.sh
. tests/deploy/api_server.sh

chart=deploy/helm/esper-serve
work=$(mktemp -d)
trap 'stop_api_server; rm -rf "$work"' EXIT
passed=0 failed=0 skipped=0

# check NAME COMMAND...
check() {
  local name=$1
  shift
  if "$@" >"$work/log" 2>&1; then
    echo "PASS $name"
    passed=$((passed + 1))
  else
    echo "FAIL $name"
    sed 's/^/     /' "$work/log"
    failed=$((failed + 1))
  fi
}
skip() {
  echo "SKIP $1 ($2)"
  skipped=$((skipped + 1))
}
refused() { ! "$@"; }
python() {
  local own=$tools/python/bin/python
  if [ -x "$own" ]; then "$own" "$@"; else python3 "$@"; fi
}

tool kubernetes-validate
has_yaml=false
if python -c 'import yaml' 2>/dev/null; then has_yaml=true; fi

# The chart, and what it makes: of every variant, and of every option at once.
sets=()
template() {
  helm template esper "$chart" --namespace esper --kube-version 1.34.0 "$@"
}
if tool helm; then
  for variant in "$chart"/variants/*.yaml tests/deploy/values/*.yaml; do
    name=$(basename "$variant" .yaml)
    check "helm lint $name" helm lint --strict --quiet --kube-version 1.34.0 \
      --values "$variant" "$chart"
    if template --values "$variant" >"$work/helm_$name.yaml" 2>"$work/log"; then
      sets+=("$work/helm_$name.yaml")
    else
      check "helm template $name" cat "$work/log" /no/such/file
    fi
  done
  check "values the chart does not know are refused" \
    refused template --set server.replicas=2
  check "deploy/kustomize is what the chart renders" deploy/render.sh --check
else
  skip "the chart" "no helm, and it could not be installed"
fi

# The overlays.
if tool kustomize; then
  for overlay in deploy/kustomize/overlays/*; do
    name=$(basename "$overlay")
    check "kustomize build $name" kustomize build "$overlay" \
      --output "$work/kustomize_$name.yaml"
    sets+=("$work/kustomize_$name.yaml")
  done
else
  skip "the overlays" "no kustomize, and it could not be installed"
fi

# Schemas.
if [ ${#sets[@]} -eq 0 ]; then
  skip "schemas" "nothing was rendered"
elif ! $has_yaml; then
  skip "schemas and rules" "python3 has no yaml"
else
  if tool kubeconform && schema=$(schemas); then
    for set in "${sets[@]}"; do
      check "kubeconform $(basename "$set" .yaml)" kubeconform -strict \
        -schema-location \
        "$schema/{{ .ResourceKind }}{{ .KindSuffix }}.json" "$set"
    done
    # The check itself can fail.
    sed 's/maxUnavailable:/maxUnavailible:/' "${sets[0]}" >"$work/bad.yaml"
    check "kubeconform refuses an unknown field" refused kubeconform -strict \
      -schema-location "$schema/{{ .ResourceKind }}{{ .KindSuffix }}.json" \
      "$work/bad.yaml"
  else
    skip "kubeconform" "no kubeconform or no schemas: needs go and the network"
  fi
  if tool kubernetes-validate; then
    for set in "${sets[@]}"; do
      name=$(basename "$set" .yaml)
      python tests/deploy/schemas.py core "$set" >"$work/core_$name.yaml"
      check "kubernetes-validate $name" kubernetes-validate -k 1.34 --strict \
        "$work/core_$name.yaml"
    done
  else
    skip "kubernetes-validate" "it could not be installed"
  fi
  check "rules of the manifests" \
    python tests/deploy/manifest_rules.py "${sets[@]}"
  check "the rules find what is broken" \
    python tests/deploy/manifest_rules_test.py "${sets[@]}"
  if [ -n "${ESPER_BIN:-}" ]; then
    check "the programs know their flags" \
      python tests/deploy/manifest_rules.py --flags "$ESPER_BIN" "${sets[@]}"
  else
    skip "the programs know their flags" "ESPER_BIN names no build"
  fi
  check "metrics and run-books" python tests/deploy/manifest_rules.py \
    --metrics docs/operations.md "$chart/files/alerts.yaml" \
    "$chart/files/dashboard.json" "${sets[@]}"
fi

# Alerts.
if tool promtool; then
  check "promtool check rules" promtool check rules "$chart/files/alerts.yaml"
  check "promtool test rules" promtool test rules tests/deploy/alerts_test.yaml
else
  skip "alert rules" "no promtool, and it could not be installed"
fi

# A real API server.
dry_run() {
  kube apply --dry-run=server --validate=strict --filename "$1" |
    tee "$work/applied" && ! grep -i 'warning' "$work/applied"
}
if [ -z "${KUBE_APISERVER:-}" ]; then
  skip "server dry-run" "KUBE_APISERVER names no binary"
elif ! command -v etcd >/dev/null || ! command -v kubectl >/dev/null; then
  skip "server dry-run" "needs etcd and kubectl"
elif [ ${#sets[@]} -eq 0 ] || ! schema=$(schemas); then
  skip "server dry-run" "nothing was rendered, or no CRDs"
else
  mkdir "$work/api"
  check "API server is ready" start_api_server "$work/api"
  # A namespaced dry-run needs its namespace.
  check "namespace esper, restricted" kube apply --filename - <<'END'
apiVersion: v1
kind: Namespace
metadata:
  name: esper
  labels:
    pod-security.kubernetes.io/enforce: restricted
    pod-security.kubernetes.io/warn: restricted
END
  check "CRDs" kube apply --server-side --filename "$schema/crds"
  check "CRDs are served" kube wait --for=condition=Established \
    --timeout=60s crd --all
  for set in "${sets[@]}"; do
    check "dry-run $(basename "$set" .yaml)" dry_run "$set"
  done
fi

summary="$passed passed, $failed failed"
if [ "$skipped" -gt 0 ]; then summary+=", $skipped skipped"; fi
echo "$summary"
[ "$failed" -eq 0 ]
