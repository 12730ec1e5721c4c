#!/usr/bin/env bash
# What the client programs say to flags and addresses that they cannot use.
set -uo pipefail

env=client/env/esper_env
trainer=client/trainer/esper_trainer
ctl=client/ctl/esperctl
folder=$(mktemp -d)
server=
listening=
cleanup() {
  for process in $listening $server; do
    kill -TERM "$process" 2>/dev/null && wait "$process"
  done
  rm -rf "$folder"
}
trap cleanup EXIT

fail() {
  echo "FAILED: $*" >&2
  cat "$folder/log" >&2
  exit 1
}

# expect_refused WORDS PROGRAM ARGUMENT...: it ends with an error that has the
# words in it.
expect_refused() {
  local words=$1
  shift
  if timeout 60 "$@" >"$folder/log" 2>&1; then
    fail "$* ended without an error"
  elif [ $? -ge 124 ]; then
    fail "$* did not end by itself"
  fi
  grep -qF -- "$words" "$folder/log" || fail "$* did not say \"$words\""
}

wait_for_file() {
  for _ in $(seq 300); do
    [ -s "$1" ] && return
    sleep 0.1
  done
  fail "$1 was not written"
}

for program in "$env" "$trainer" "$ctl"; do
  expect_refused "nonsense" "$program" --nonsense=1
done
for program in "$env" "$trainer"; do
  expect_refused "surplus" "$program" surplus
  expect_refused "--log_level=loud" "$program" --log_level=loud
done
expect_refused "--coordinator is empty" "$env"
expect_refused "--environments must be" "$env" --coordinator=x --environments=0
expect_refused "--run_dir is empty" "$trainer"
expect_refused "--passes must be" "$trainer" --run_dir="$folder/run" --passes=0
expect_refused "--evaluation_every must be" "$trainer" \
  --run_dir="$folder/run" --evaluation_every=-1
expect_refused "which command" "$ctl"

server/esper_server --address=127.0.0.1:0 --port_file="$folder/port" \
  >"$folder/log" 2>&1 &
server=$!
wait_for_file "$folder/port"
address=127.0.0.1:$(cat "$folder/port")

# Where the server listens, the trainer cannot.
expect_refused "Cannot listen on $address" "$trainer" \
  --policy_address="$address" --address="$address" --run_dir="$folder/run"
expect_refused "--insecure" "$trainer" \
  --policy_address="$address" --address=127.example.org:0 \
  --run_dir="$folder/run"

"$trainer" --policy_address="$address" --address="unix:$folder/socket" \
  --port_file="$folder/socket_port" --run_dir="$folder/run" \
  >"$folder/log" 2>&1 &
listening=$!
wait_for_file "$folder/socket_port"
[ "$(cat "$folder/socket_port")" = "unix:$folder/socket" ] ||
  fail "the port file says $(cat "$folder/socket_port")"
