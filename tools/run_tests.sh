#!/usr/bin/env bash
# All tests: first those that share the machine, then those marked `serial`, one at a time. Tests wait a lot, so there
# are four more workers than processors (on 2 cores 17:37 to 20:50 minutes; 26:10 with two more); WORKERS overrides it.
# Arguments go to pytest both times. The status is that of the worst half; picking no test at all is an error.
set -uo pipefail
cd "$(dirname "$0")/.."

PYTEST=("${VENV:-.venv}/bin/python" -m pytest --durations 10)
WORKERS="${WORKERS:-$(($(getconf _NPROCESSORS_ONLN) + 4))}"
NO_TESTS=5

# A module stays with one worker, and the modules keep the order that `long_first` of libs/oa_testing/suite has set.
"${PYTEST[@]}" -m "not serial" --numprocesses "$WORKERS" --dist loadfile --no-loadscope-reorder "$@"
shared=$?
"${PYTEST[@]}" -m serial "$@"
serial=$?

if [ "$shared" -ne 0 ] && [ "$shared" -ne "$NO_TESTS" ]; then exit "$shared"; fi
if [ "$serial" -ne 0 ] && [ "$serial" -ne "$NO_TESTS" ]; then exit "$serial"; fi
if [ "$shared" -eq "$NO_TESTS" ] && [ "$serial" -eq "$NO_TESTS" ]; then exit "$NO_TESTS"; fi
