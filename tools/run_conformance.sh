#!/usr/bin/env bash
# Connect's own conformance suite against the edge. It is a Go module, so it needs Go; nothing else in this project
# does. Known failures are listed with their reasons, and must fail.
set -euo pipefail
cd "$(dirname "$0")/.."
suite=connectrpc.com/conformance version=v1.0.7
if ! command -v go >/dev/null; then
  echo "no Go here; install it for the conformance suite" >&2
  exit 1
fi
mkdir -p build/conformance
export GOBIN=$PWD/build/conformance
[ -x "$GOBIN/connectconformance" ] || go install "$suite/cmd/connectconformance@$version"
downloaded=$(cd build/conformance && go mod download -json "$suite@$version")
proto=$("$PY" -c 'import json, sys; print(json.load(sys.stdin)["Dir"])' <<<"$downloaded")/proto
exec "$GOBIN/connectconformance" --mode server --conf tests/conformance/config.yaml \
  --known-failing @tests/conformance/known_failing.txt --parallel 2 --max-servers 1 "$@" \
  -- "$PY" -m tests.conformance.server "$proto"
