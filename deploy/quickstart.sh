#!/usr/bin/env bash
# One command from a fresh checkout to a policy that grows a network: sets up,
# builds, starts the server, two environment processes and the coordinator on
# this machine, trains for a few minutes on real handwritten digits or on
# another task, and writes a report.
#
#   deploy/quickstart.sh [--minutes N] [--task TASK] [--config FILE] [--resume]
#                        [--run_dir DIR]
#
#   --task TASK    digits (default); text, or text:PATH for a file or folder of
#                  your own; cifar10:DIR or mnist:DIR, the folder of its files
#   --minutes N    how long to train (default 3); set-up and build not counted
#   --config FILE  configuration of server and coordinator, see
#                  docs/configuration.md
#   --profile NAME default, or upstream for the reference implementation's
#                  behaviour
#   --resume       continue the newest run (or --run_dir) from its checkpoint
#   --run_dir DIR  where results go (default runs/<time>)
#   --prebuilt DIR use the binaries below DIR; installs and builds nothing
#   --data PATH    data of the task, the same as behind the colon (digits:
#                  default data/digits.csv.gz, fetched if missing)
#   -- FLAGS       further flags for the coordinator, see esper_trainer --help
#
# Ctrl-C stops every process that it started, after saving a checkpoint.
set -euo pipefail
called_from=$PWD
cd "$(dirname "$0")/.."

minutes=3
resume=false
run_dir=""
bin=""
task=""
data=""
config=""
config_flags=()  # Of server and coordinator.
trainer_flags=()
usage() { sed -n '2,/^set -/{s/^# \{0,1\}//;/^set -/!p}' "$0"; }
while [ $# -gt 0 ]; do
  case "$1" in
    --minutes) minutes="${2:?--minutes needs a number}"; shift 2 ;;
    --minutes=*) minutes="${1#*=}"; shift ;;
    --run_dir) run_dir="${2:?--run_dir needs a folder}"; shift 2 ;;
    --run_dir=*) run_dir="${1#*=}"; shift ;;
    --config) config="${2:?--config needs a file}"; shift 2 ;;
    --config=*) config="${1#*=}"; shift ;;
    --profile)
      config_flags+=("--profile=${2:?--profile needs a name}")
      shift 2 ;;
    --profile=*) config_flags+=("$1"); shift ;;
    --resume) resume=true; shift ;;
    --task) task="${2:?--task needs a name}"; shift 2 ;;
    --task=*) task="${1#*=}"; shift ;;
    --prebuilt) bin="${2:?--prebuilt needs a folder}"; shift 2 ;;
    --data) data="${2:?--data needs a file}"; shift 2 ;;
    --) shift; trainer_flags=("$@"); break ;;
    -h | --help) usage; exit 0 ;;
    *) echo "quickstart: unknown argument $1" >&2; usage >&2; exit 2 ;;
  esac
done
[[ "$minutes" =~ ^[0-9]+(\.[0-9]+)?$ ]] || {
  echo "quickstart: --minutes must be a number, got $minutes" >&2
  exit 2
}

if $resume && [ -z "$run_dir" ]; then
  run_dir=$(ls -1td runs/*/ 2>/dev/null | head -n 1 || true)
  run_dir="${run_dir%/}"
  [ -n "$run_dir" ] || { echo "quickstart: no run to resume" >&2; exit 2; }
fi
run_dir="${run_dir:-runs/$(date +%Y%m%d-%H%M%S)}"

# A resumed run goes on with its own task and data.
if $resume && [ -z "$task$data" ] && [ -s "$run_dir/task" ]; then
  { read -r task; read -r data; } <"$run_dir/task" || true
fi
case "$task" in
  *:*) data="${data:-${task#*:}}"; task="${task%%:*}" ;;
esac
case "$data" in
  "" | /*) ;;
  *) data="$called_from/$data" ;;
esac
task="${task:-digits}"
case "$task" in
  digits) ;;
  text) data="${data:-/usr/share/common-licenses}" ;;
  cifar10 | mnist)
    [ -d "$data" ] || {
      echo "quickstart: --task $task:DIR needs the folder of its files," \
        "got \"$data\"" >&2
      exit 2
    }
    ;;
  *)
    echo "quickstart: unknown task \"$task\"; known: cifar10:DIR, digits," \
      "mnist:DIR, text, text:PATH" >&2
    exit 2
    ;;
esac

if [ -z "$bin" ]; then
  bin=bazel-bin
  deploy/bootstrap.sh
  echo "quickstart: building (the first build takes several minutes)"
  bazel build \
    --disk_cache="${ESPER_DISK_CACHE:-$HOME/.cache/esper-serve/bazel}" \
    //server:esper_server //client:esper_env //client:esper_trainer \
    //client:esperctl
fi
if [ -z "$data" ]; then
  data=data/digits.csv.gz
  python3 deploy/fetch_digits.py "$data"
fi
case "$config" in
  "" | /*) ;;
  *) config="$called_from/$config" ;;
esac
# A resumed run goes on with its own configuration.
if $resume && [ -z "$config" ] && [ -s "$run_dir/config.json" ]; then
  config="$run_dir/config.json"
fi
if [ -n "$config" ]; then config_flags+=("--config=$config"); fi
preset=()  # The other tasks bring settings of their own.
case "$task" in
  digits | text) preset=("--preset=$task") ;;
esac

mkdir -p "$run_dir/checkpoints" "$run_dir/logs"
printf '%s\n' "$task" "$data" >"$run_dir/task"

pids=()  # In the order in which they are stopped.
# Starts a process in a group of its own, so that Ctrl-C reaches this script
# only, which then stops the processes in order; they die with it in any case.
start() {
  local log="$run_dir/logs/$1.log"
  shift
  setsid setpriv --pdeathsig TERM "$@" >>"$log" 2>&1 &
}

# Sends SIGTERM to a process that we started and waits up to 30 s for it.
stop() {
  local pid=$1
  kill -TERM "$pid" 2>/dev/null || return 0
  for _ in $(seq 300); do
    kill -0 "$pid" 2>/dev/null || return 0
    sleep 0.1
  done
  echo "quickstart: process $pid did not stop, killing it" >&2
  kill -KILL "$pid" 2>/dev/null || true
}
stop_all() {
  local pid
  for pid in "${pids[@]}"; do stop "$pid"; done
  pids=()
}
interrupted=false
trap 'interrupted=true' INT TERM
trap stop_all EXIT

# Prints the port in a file that a process writes once it listens.
wait_for_port() {
  local file=$1 pid=$2 log=$3
  for _ in $(seq 600); do
    if [ -s "$file" ]; then cat "$file"; return 0; fi
    kill -0 "$pid" 2>/dev/null || break
    sleep 0.1
  done
  echo "quickstart: no answer from the process behind $log:" >&2
  tail -n 20 "$log" >&2
  return 1
}

rm -f "$run_dir"/*.port
# A run that was killed before its first checkpoint starts from fresh weights.
restore=()
if $resume && compgen -G "$run_dir/checkpoints/*/manifest.json" >/dev/null; then
  restore=(--restore=latest)
fi
start server "$bin"/server/esper_server --address=127.0.0.1:0 \
  --port_file="$run_dir/server.port" --checkpoint_dir="$run_dir/checkpoints" \
  --reflection "${config_flags[@]}" "${restore[@]}"
server=$!
pids=("$server")
server_port=$(wait_for_port "$run_dir/server.port" "$server" \
  "$run_dir/logs/server.log")

resume_flag=()
$resume && resume_flag=(--resume)
setsid setpriv --pdeathsig TERM "$bin"/client/trainer/esper_trainer \
  --policy_address="127.0.0.1:$server_port" --address=127.0.0.1:0 \
  --port_file="$run_dir/trainer.port" --run_dir="$run_dir" \
  --minutes="$minutes" --checkpoint_every=3 --workers=2 \
  "${preset[@]}" "${config_flags[@]}" --task="$task" "${resume_flag[@]}" \
  "${trainer_flags[@]}" \
  2> >(tee -a "$run_dir/logs/trainer.log" >&2) &
trainer=$!
pids=("$trainer" "$server")
trainer_port=$(wait_for_port "$run_dir/trainer.port" "$trainer" \
  "$run_dir/logs/trainer.log")

envs=()
for i in 1 2; do
  start "env$i" "$bin"/client/env/esper_env \
    --coordinator="127.0.0.1:$trainer_port" --environments=4 \
    --task="$task" --data="$data" --worker_name="quickstart-$i"
  envs+=("$!")
done
pids=("$trainer" "${envs[@]}" "$server")

# `wait` returns early when a signal arrives; a process that dies ends the run.
status=0
while kill -0 "$trainer" 2>/dev/null && ! $interrupted; do
  for pid in "$server" "${envs[@]}"; do
    kill -0 "$pid" 2>/dev/null && continue
    # Environments leave by themselves, with 0, when the coordinator is done.
    code=0
    wait "$pid" || code=$?
    if [ "$code" -ne 0 ] && ! $interrupted; then
      echo "quickstart: process $pid ended with $code, see $run_dir/logs" >&2
      status=1
      break 2
    fi
  done
  sleep 0.5
done
if $interrupted; then
  echo "quickstart: stopping" >&2
  status=130
  stop "$trainer"
fi
wait "$trainer" || status=$((status ? status : $?))
stop_all

/usr/bin/python3 deploy/report.py "$run_dir"
echo "quickstart: results in $run_dir (open report.html, summary.json)"
exit "$status"
