#!/usr/bin/env bash
# Writes requirements/*.lock from pyproject.toml: exact versions and hashes for CPython 3.11 and later on any platform, and
# no host, so that each installation decides where packages come from. `make lock`; ARGS="--upgrade" moves versions,
# otherwise they stay.
set -euo pipefail
cd "$(dirname "$0")/.."

UV="${VENV:-.venv}/bin/uv"
if [ ! -x "$UV" ]; then
  echo "make lock needs uv, and the bootstrap could not install it; see ${VENV:-.venv}/bootstrap.log" >&2
  exit 1
fi
common=(--quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url
        --no-emit-find-links)

# The development set first; the production sets are subsets of it, at the same versions.
"$UV" pip compile "${common[@]}" "$@" pyproject.toml --extra dev --output-file requirements/dev.lock
constraints="$(mktemp)"
trap 'rm -f "$constraints"' EXIT
grep -v '^    --hash' requirements/dev.lock | sed 's/ \\$//' >"$constraints"
# One lock for each program that is installed by itself, named after its extra.
for extra in control runtime projector khala-gateway migrate worker cli stack; do
  "$UV" pip compile "${common[@]}" --constraint "$constraints" pyproject.toml --extra "$extra" \
    --output-file "requirements/$extra.lock"
done
"$UV" pip compile "${common[@]}" "$@" requirements/bootstrap.in --output-file requirements/bootstrap.lock
wc -l requirements/*.lock
