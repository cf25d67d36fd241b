#!/usr/bin/env bash
# All tests. They wait a lot, so there are four more workers than processors (on 2 cores 17:37 to 20:50 minutes; 26:10
# with two more); WORKERS overrides it. Arguments go to pytest, whose status this is: picking no test at all is an error.
set -euo pipefail
cd "$(dirname "$0")/.."

PYTHON="${VENV:-.venv}/bin/python"
WORKERS="${WORKERS:-$(($(getconf _NPROCESSORS_ONLN) + 4))}"

# Otherwise each worker would compile all tests of a new checkout, which takes twice as long as to load them compiled.
# What is wrong with them the workers say.
unset PYTHONDONTWRITEBYTECODE
COMPILED=.pytest_cache/compiled
if [ ! -e $COMPILED ] ||
  [ -n "$(find libs services apps tests benchmarks -name 'test_*.py' -newer $COMPILED -print -quit)" ]; then
  mkdir -p .pytest_cache
  touch $COMPILED
  "$PYTHON" -m pytest --collect-only -qq >/dev/null 2>&1 || true
fi

# A module stays with one worker, and the modules keep the order that `long_first` of libs/oa_testing/suite has set.
exec "$PYTHON" -m pytest --durations 10 \
  --numprocesses "$WORKERS" --dist loadfile --no-loadscope-reorder "$@"
