#!/usr/bin/env bash
# grpcurl lists the services of a running server through reflection. Skipped by
# name where grpcurl is not installed.
set -euo pipefail
grpcurl=$(command -v grpcurl || ls "${HOME:-}/go/bin/grpcurl" 2>/dev/null || true)
if [ -z "$grpcurl" ]; then
  echo "SKIPPED: grpcurl is not installed; get it with: go install" \
    "github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.4"
  cat >"$XML_OUTPUT_FILE" <<XML
<testsuites><testsuite name="reflection_test" tests="1" skipped="1"><testcase
name="grpcurl_lists_the_services" classname="ReflectionTest"><skipped
message="grpcurl is not installed: go install github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.4"/></testcase></testsuite></testsuites>
XML
  exit 0
fi

port_file="$TEST_TMPDIR/port"
server/esper_server --address=127.0.0.1:0 --port_file="$port_file" \
  --reflection &
server=$!
trap 'kill -TERM $server; wait $server' EXIT
for _ in $(seq 300); do [ -s "$port_file" ] && break; sleep 0.1; done

services=$("$grpcurl" -plaintext "127.0.0.1:$(cat "$port_file")" list)
echo "$services"
for service in esper.v1.PolicyInference esper.v1.PolicyTraining \
  esper.v1.PolicyAdmin grpc.health.v1.Health; do
  grep -qx "$service" <<<"$services" || {
    echo "FAILED: $service is not listed" >&2
    exit 1
  }
done
