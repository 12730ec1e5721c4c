# A real Kubernetes API server for validate.sh: etcd and the kube-apiserver that
# KUBE_APISERVER names, without controllers, on free ports of this machine.
# Sourced.

api_pids=()

free_port() {
  python3 -c 'import socket
s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# start_api_server DIR: afterwards `kube` calls it. Waits up to two minutes.
start_api_server() {
  local dir=$1 etcd_port peer_port port
  etcd_port=$(free_port) peer_port=$(free_port) port=$(free_port)
  openssl genrsa -out "$dir/sa.key" 2048 2>/dev/null
  echo 'validate,admin,admin,system:masters' >"$dir/tokens.csv"
  etcd --data-dir "$dir/etcd" \
    --listen-client-urls "http://127.0.0.1:$etcd_port" \
    --advertise-client-urls "http://127.0.0.1:$etcd_port" \
    --listen-peer-urls "http://127.0.0.1:$peer_port" >"$dir/etcd.log" 2>&1 &
  api_pids+=("$!")
  "$KUBE_APISERVER" --etcd-servers="http://127.0.0.1:$etcd_port" \
    --cert-dir="$dir/pki" --secure-port="$port" --bind-address=127.0.0.1 \
    --token-auth-file="$dir/tokens.csv" --authorization-mode=RBAC \
    --service-account-key-file="$dir/sa.key" \
    --service-account-signing-key-file="$dir/sa.key" \
    --service-account-issuer=https://localhost \
    --service-cluster-ip-range=10.0.0.0/24 \
    --disable-admission-plugins=ServiceAccount >"$dir/apiserver.log" 2>&1 &
  api_pids+=("$!")
  kube_flags=(--server="https://127.0.0.1:$port" --insecure-skip-tls-verify
    --token=validate)
  for _ in $(seq 120); do
    kube get --raw /readyz >/dev/null 2>&1 && return
    kill -0 "${api_pids[@]}" 2>/dev/null || break
    sleep 1
  done
  tail -n 5 "$dir/etcd.log" "$dir/apiserver.log"
  return 1
}

kube() { kubectl "${kube_flags[@]}" "$@"; }

stop_api_server() {
  local pid
  for pid in "${api_pids[@]}"; do kill "$pid" 2>/dev/null; done
  for pid in "${api_pids[@]}"; do wait "$pid" 2>/dev/null; done
  api_pids=()
}
