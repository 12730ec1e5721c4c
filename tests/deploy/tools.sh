# Finds the tools of validate.sh, or installs them, in pinned versions, into
# ${ESPER_TOOLS:-~/.cache/esper-serve/tools}. Sourced. ESPER_OFFLINE=1 installs
# nothing.

tools=${ESPER_TOOLS:-$HOME/.cache/esper-serve/tools}
mkdir -p "$tools/bin"
export PATH="$tools/bin:$PATH"
kubernetes=v1.34.4        # Schemas, and the API server of the dry-run.
mpi_operator=v0.6.0       # CRD of MPIJob.
prometheus_operator=v0.85.0  # CRDs of ServiceMonitor and PrometheusRule.

# install_go NAME PACKAGE@VERSION
install_go() {
  (cd "$tools" && GOBIN="$tools/bin" GOTOOLCHAIN=local CGO_ENABLED=0 \
    go install "$2")
}

install_helm() { install_go helm helm.sh/helm/v3/cmd/helm@v3.22.0; }
install_kustomize() {
  install_go kustomize sigs.k8s.io/kustomize/kustomize/v5@v5.7.1
}
install_kubeconform() {
  install_go kubeconform github.com/yannh/kubeconform/cmd/kubeconform@v0.8.0
}
install_promtool() {
  local work
  work=$(mktemp -d)
  (cd "$work" && apt-get download prometheus && dpkg -x prometheus_*.deb . &&
    mv usr/bin/promtool "$tools/bin/")
  rm -rf "$work"
}
# Brings PyYAML, which the other checks read manifests with.
install_kubernetes-validate() {
  python3 -m venv "$tools/python" &&
    "$tools/python/bin/pip" install --quiet kubernetes-validate==1.37.0 &&
    ln -sf "$tools/python/bin/kubernetes-validate" "$tools/bin/"
}

# tool NAME: whether it is there now.
tool() {
  command -v "$1" >/dev/null && return
  [ -z "${ESPER_OFFLINE:-}" ] || return 1
  echo "validate: installing $1 into $tools" >&2
  "install_$1" >"$tools/$1.log" 2>&1 && command -v "$1" >/dev/null
}

# module PATH@VERSION: prints the folder of a Go module.
module() {
  (cd "$tools" &&
    GOTOOLCHAIN=local GOFLAGS=-mod=mod go mod download -json "$1") |
    sed -n 's/^\t"Dir": "\(.*\)",$/\1/p'
}

# Strict JSON schemas of Kubernetes and of the custom resources, for
# kubeconform: prints their folder.
schemas() {
  local out=$tools/schemas/$kubernetes-$mpi_operator-$prometheus_operator
  if [ ! -e "$out/done" ]; then
    [ -z "${ESPER_OFFLINE:-}" ] && command -v go >/dev/null || return 1
    local core mpi prometheus
    core=$(module "k8s.io/kubernetes@$kubernetes")
    mpi=$(module "github.com/kubeflow/mpi-operator@$mpi_operator")
    prometheus=$(module \
      "github.com/prometheus-operator/prometheus-operator@$prometheus_operator")
    [ -n "$core" ] && [ -n "$mpi" ] && [ -n "$prometheus" ] || return 1
    prometheus=$prometheus/example/prometheus-operator-crd
    mkdir -p "$out/crds"
    cp "$mpi/manifests/base/kubeflow.org_mpijobs.yaml" \
      "$prometheus"/*_{servicemonitors,prometheusrules}.yaml "$out/crds/"
    chmod -R u+w "$out/crds"
    python tests/deploy/schemas.py openapi \
      "$core/api/openapi-spec/swagger.json" "$out" &&
      python tests/deploy/schemas.py crds "$out" "$out"/crds/*.yaml &&
      touch "$out/done" || return 1
  fi
  echo "$out"
}
