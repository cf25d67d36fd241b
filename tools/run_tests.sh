#!/usr/bin/env bash
# All tests: first those that share the machine, on two workers, then those marked `serial`, one at a time.
# Arguments go to pytest both times. The status is that of the worst half; picking no test at all is an error.
set -uo pipefail
cd "$(dirname "$0")/.."

PYTEST=("${VENV:-.venv}/bin/python" -m pytest)
NO_TESTS=5

"${PYTEST[@]}" -m "not serial" --numprocesses 2 --dist loadfile "$@"
shared=$?
"${PYTEST[@]}" -m serial --durations 10 "$@"
serial=$?

if [ "$shared" -ne 0 ] && [ "$shared" -ne "$NO_TESTS" ]; then exit "$shared"; fi
if [ "$serial" -ne 0 ] && [ "$serial" -ne "$NO_TESTS" ]; then exit "$serial"; fi
if [ "$shared" -eq "$NO_TESTS" ] && [ "$serial" -eq "$NO_TESTS" ]; then exit "$NO_TESTS"; fi
