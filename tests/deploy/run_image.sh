#!/usr/bin/env bash
# Runs an image as a cluster would: as 65532, with a read-only root, without
# capabilities, /tmp and /var/lib/esper on volumes. Asks its health and saves a
# checkpoint through its own esperctl, stops it, and starts it again.
#
# Usage: tests/deploy/run_image.sh IMAGE
#
# Needs buildah, util-linux and root. Ends with "N passed, N failed".
set -uo pipefail
image=${1:?which image?}

work=$(mktemp -d)
container=$(buildah from "$image") || exit 1
root=$(buildah mount "$container") || exit 1
server=
cleanup() {
  if [ -n "$server" ]; then kill -KILL "$server"; fi 2>/dev/null
  wait
  buildah umount "$container" >/dev/null
  buildah rm "$container" >/dev/null
  rm -rf "$work"
}
trap cleanup EXIT
passed=0 failed=0
check() {
  local what=$1
  shift
  if "$@" >"$work/log" 2>&1; then
    echo "PASS $what"
    passed=$((passed + 1))
  else
    echo "FAIL $what"
    sed 's/^/     /' "$work/log"
    failed=$((failed + 1))
  fi
}

mkdir "$work/state" "$work/root"
mkdir -p "$root"/{dev,proc}
chown 65532:65532 "$work/state"
port=$(python3 -c 'import socket
s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
user=$(buildah inspect --type image --format '{{.OCIv1.Config.User}}' "$image")

# The process that `start` leaves is the server itself.
start() {
  # shellcheck disable=SC2016
  setpriv --no-new-privs unshare --mount --propagation private bash -c '
    set -e
    from=$1 root=$2 state=$3 user=$4
    shift 4
    mount --rbind "$from" "$root"
    mount -o remount,bind,ro "$root"
    mount -t proc proc "$root/proc"
    mount -t tmpfs -o mode=755 tmpfs "$root/dev"
    for device in null zero random urandom; do
      : >"$root/dev/$device"
      mount --bind "/dev/$device" "$root/dev/$device"
    done
    mount -t tmpfs -o mode=1777,size=64m tmpfs "$root/tmp"
    mount --bind "$state" "$root/var/lib/esper"
    exec env -i unshare --root="$root" --wd=/var/lib/esper \
      --setgid="${user#*:}" --setuid="${user%:*}" /usr/bin/esper_server "$@"
  ' start "$root" "$work/root" "$work/state" "$user" \
    --address="127.0.0.1:$port" \
    --checkpoint_dir=/var/lib/esper/checkpoints --restore=latest_if_any \
    --log_format=json >"$work/server.log" 2>&1 &
  server=$!
}
# esperctl in the server's own root, as the same user.
ctl() {
  nsenter --target "$server" --mount --root --wd \
    --setgid="${user#*:}" --setuid="${user%:*}" \
    /usr/bin/esperctl --address="127.0.0.1:$port" "$@"
}
answers() {
  for _ in $(seq 120); do
    ctl --timeout=2s status && return
    kill -0 "$server" 2>/dev/null || break
    sleep 1
  done
  cat "$work/server.log"
  return 1
}
ends_well() {
  kill -TERM "$server"
  wait "$server"
  local code=$?
  server=
  cat "$work/server.log"
  [ "$code" -eq 0 ] && grep -q 'clean exit' "$work/server.log"
}
is_not_root() {
  grep -E '^(Name|Uid|CapEff|NoNewPrivs):' "/proc/$server/status"
  awk '$5 == "/"' "/proc/$server/mountinfo"
  grep -q '^Name:.esper_server$' "/proc/$server/status" &&
    grep -q '^Uid:.65532.65532.65532.65532$' "/proc/$server/status" &&
    grep -q '^CapEff:.0000000000000000$' "/proc/$server/status" &&
    awk '$5 == "/" && $6 !~ /^ro/ {writable = 1} END {exit writable}' \
      "/proc/$server/mountinfo"
}
no_shell() { ! ls "$root"/bin/*sh "$root"/usr/bin/*sh 2>/dev/null; }

check "the image's user is 65532:65532" test "$user" = 65532:65532
start
check "starts on an empty volume and answers esperctl status" answers
check "runs as 65532, without capabilities, on a read-only root" is_not_root
check "saves a checkpoint on the volume" ctl save image-test
check "SIGTERM ends it with 0" ends_well
start
check "starts again with the same command line" answers
check "from its checkpoint" grep -q 'restored checkpoint image-test' \
  "$work/server.log"
check "SIGTERM ends it with 0 again" ends_well
for library in cuda cublas cudnn nccl; do
  [ "${ESPER_VARIANT:-cpu}" = gpu ] && break
  check "has no lib$library of size" test -z \
    "$(find "$root" -name "lib$library*" -size +100k)"
done
if [ "${ESPER_VARIANT:-cpu}" != mpi ]; then check "has no shell" no_shell; fi
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
