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
expect_refused "Give either --coordinator or --baseline" "$env"
expect_refused "--environments must be" "$env" --coordinator=x --environments=0
expect_refused "--run_dir is empty" "$trainer"
expect_refused "update.passes = 0 is not in [1, inf)" "$trainer" \
  --run_dir="$folder/run" --passes=0
expect_refused "run.evaluation_every = -1 is not in" "$trainer" \
  --run_dir="$folder/run" --evaluation_every=-1
expect_refused "ppo.gama is unknown; the nearest is ppo.gamma" "$trainer" \
  --run_dir="$folder/run" --set=ppo.gama=0.9
expect_refused "is longer than learner.max_episode_length" "$trainer" \
  --run_dir="$folder/run" --max_epochs=5000
expect_refused "the nearest is digits" "$trainer" --preset=digit --dry_run
expect_refused "learner.beta1 = 1 is not in [0, 1)" server/esper_server \
  --set=learner.beta1=1
expect_refused "/no/such.json" server/esper_server --config=/no/such.json
expect_refused "which command" "$ctl"
expect_refused "replay needs either --log" "$ctl" replay

# Every preset makes a run, and what it says makes the same one.
for preset in $("$trainer" --preset=? --dry_run 2>&1 |
    sed 's/.*known are //; s/,//g'); do
  for profile in default upstream; do
    "$trainer" --preset="$preset" --profile="$profile" --dry_run \
      >"$folder/$preset.json" 2>"$folder/log" || fail "$preset $profile"
    "$trainer" --config="$folder/$preset.json" --dry_run >"$folder/again.json" \
      2>"$folder/log" || fail "$preset $profile again"
    cmp "$folder/$preset.json" "$folder/again.json" ||
      fail "$preset $profile did not load as itself"
  done
done
[ -s "$folder/cifar_scale.json" ] || fail "no preset was tried"
"$trainer" --print_schema | /usr/bin/python3 -m json.tool >/dev/null ||
  fail "the schema is no JSON"

server/esper_server --address=127.0.0.1:0 --port_file="$folder/port" \
  >"$folder/log" 2>&1 &
server=$!
wait_for_file "$folder/port"
address=127.0.0.1:$(cat "$folder/port")

# Another profile than the server's would train on the wrong side.
expect_refused "in this configuration, and the server runs with" "$trainer" \
  --policy_address="$address" --run_dir="$folder/other" --profile=upstream \
  --workers=0 --updates=1

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
