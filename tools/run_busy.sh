#!/usr/bin/env bash
# Runs `make test` repeatedly beside loops that only keep the machine busy: a test that passes only on a fast machine
# fails here. `make busy ARGS="3 4 -k cursor"`: 3 times beside 4 loops, and the other arguments go to pytest.
# The status is that of the worst run. The loops end with this script, however it ends.
set -uo pipefail
cd "$(dirname "$0")/.."

usage() {
  echo 'usage: make busy ARGS="[TIMES [LOOPS [what goes to pytest …]]]"   (2 times beside 4 loops)' >&2
  exit 2
}

times=2 loops=4
if [[ "${1:-}" =~ ^[0-9]+$ ]]; then times=$1; shift; fi
if [[ "${1:-}" =~ ^[0-9]+$ ]]; then loops=$1; shift; fi
if [ "$times" -lt 1 ]; then usage; fi

arguments=""
if [ "$#" -gt 0 ]; then arguments="$(printf '%q ' "$@")"; fi

busy=()
quiet() { if [ "${#busy[@]}" -gt 0 ]; then kill "${busy[@]}" 2>/dev/null; fi; }
trap quiet EXIT
trap 'exit 130' INT TERM HUP
for ((number = 0; number < loops; number++)); do
  # Each loop checks now and then whether its parent is still there, so that a killed script leaves no loop.
  (
    trap - EXIT INT TERM HUP
    while kill -0 $$; do for ((i = 0; i < 10000; i++)); do :; done; done
  ) >/dev/null 2>&1 &
  busy+=($!)
done

worst=0
for ((number = 1; number <= times; number++)); do
  printf '\n=== run %d of %d beside %d busy loops\n' "$number" "$times" "$loops"
  ${BUSY_COMMAND:-make test} ARGS="${arguments% }"
  status=$?
  printf '=== run %d of %d ended with status %d\n' "$number" "$times" "$status"
  if [ "$status" -gt "$worst" ]; then worst=$status; fi
done
exit "$worst"
