#!/usr/bin/env bash
# All tests. They wait a lot, so there are four more workers than processors (on 2 cores 17:37 to 20:50 minutes; 26:10
# with two more); WORKERS overrides it. Arguments go to pytest, whose status this is: picking no test at all is an error.
set -euo pipefail
cd "$(dirname "$0")/.."

WORKERS="${WORKERS:-$(($(getconf _NPROCESSORS_ONLN) + 4))}"

# A module stays with one worker, and the modules keep the order that `long_first` of libs/oa_testing/suite has set.
exec "${VENV:-.venv}/bin/python" -m pytest --durations 10 \
  --numprocesses "$WORKERS" --dist loadfile --no-loadscope-reorder "$@"
