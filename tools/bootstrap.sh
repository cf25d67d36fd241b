#!/usr/bin/env bash
# Brings .venv to the state that requirements/dev.lock describes. Does nothing if it is already in that state.
#
#   tools/bootstrap.sh       VENV=dir, PYTHON=interpreter and BOOTSTRAP_WITHOUT_UV=1 may be set
#
# The packages come from wherever pip is configured to get them, and every one is checked against its hash in the lock.
# uv (itself from the same place, hash-checked) installs them in seconds; if it is not available, pip does in a minute
# or two. Then this checkout's import roots and the `oa` program are installed as an editable project, without network.
set -euo pipefail
cd "$(dirname "$0")/.."

VENV="${VENV:-.venv}"
OLDEST=3.11
LOG="$VENV/bootstrap.log"
LOCK="$VENV/.bootstrap.lock"
INPUTS=(requirements/dev.lock requirements/bootstrap.lock pyproject.toml tools/bootstrap.sh)

say() { printf '%s\n' "$*" >&2; }

die() {
  say "bootstrap: $*"
  exit 1
}

wanted_stamp() { cat "${INPUTS[@]}" | cksum; }

up_to_date() {
  [ -x "$VENV/bin/python" ] && ! moved && [ "$(cat "$VENV/.stamp" 2>/dev/null)" = "$(wanted_stamp)" ] && "$VENV/bin/python" -c ''
}

# Usable: it starts, is new enough, and can make an environment (Debian splits that into a package of its own).
usable() {
  "$1" -c "import sys, venv, ensurepip; sys.exit(sys.version_info < tuple(map(int, '$OLDEST'.split('.'))))" 2>/dev/null
}

find_python() {
  local candidate candidates=(python3.13 python3.12 python3.11 python3.14 python3 python)
  if [ -n "${PYTHON:-}" ]; then candidates=("$PYTHON"); fi
  for candidate in "${candidates[@]}"; do
    if usable "$candidate"; then
      command -v "$candidate"
      return
    fi
  done
  if [ -n "${PYTHON:-}" ]; then
    die "PYTHON=$PYTHON is not CPython $OLDEST or newer with the venv and ensurepip modules."
  fi
  die "no CPython $OLDEST or newer with the venv and ensurepip modules on PATH; install one or name it: make PYTHON=…"
}

# Programs of an environment contain its path, so an environment that was moved with its checkout is made anew.
moved() { [ -f "$VENV/.place" ] && [ "$(cat "$VENV/.place")" != "$(pwd)" ]; }

# Nobody can tell which packages are complete after an installation that did not end, so such an environment of ours
# is made anew as well.
interrupted() { [ -f "$VENV/.place" ] && [ ! -f "$VENV/.stamp" ]; }

reusable() { [ -x "$VENV/bin/python" ] && usable "$VENV/bin/python" && ! moved && ! interrupted; }

# Whether an environment can be made in the place of what is there, and with what.
may_make_venv() {
  # Clearing it would empty the environment that the link points to.
  if [ -L "$VENV" ]; then die "$VENV is a symbolic link; remove it, and this makes an environment of its own there"; fi
  if [ ! -e "$VENV/pyvenv.cfg" ] && [ ! -e "$LOCK" ] && [ -n "$(ls -A "$VENV" 2>/dev/null)" ]; then
    die "$VENV is not empty, and no environment; name another folder in VENV, or remove what is there"
  fi
  find_python >/dev/null
}

make_venv() {
  local python
  python="$(find_python)"
  say "creating $VENV with $("$python" -V 2>&1) ($python)"
  find "$VENV" -mindepth 1 -maxdepth 1 ! -name .bootstrap.lock -exec rm -rf {} +
  pwd >"$VENV/.place"
  "$python" -m venv "$VENV"
}

# Runs a step quietly. Its output goes to the log, which the caller shows if nothing worked.
quietly() { "$@" >>"$LOG" 2>&1; }

pip() { "$VENV/bin/python" -m pip --disable-pip-version-check "$@"; }

have_uv() {
  quietly pip install --require-hashes --no-deps -r requirements/bootstrap.lock && quietly "$VENV/bin/uv" --version
}

install_lock() {
  local arguments=(--require-hashes --no-deps -r requirements/dev.lock)
  if [ -z "${BOOTSTRAP_WITHOUT_UV:-}" ] && have_uv; then
    say "installing the locked dependencies with uv"
    # With the certificates that the machine trusts, as pip does.
    if quietly "$VENV/bin/uv" pip install --system-certs --python "$VENV/bin/python" "${arguments[@]}"; then return; fi
    say "uv could not install them; trying pip"
  fi
  say "installing the locked dependencies with pip (a minute or two)"
  quietly pip install "${arguments[@]}" || fail_with_log "the locked dependencies could not be installed"
}

# With pip, because it is there in both cases; the build backend is one of the locked dependencies.
install_project() {
  quietly pip install --no-index --no-deps --no-build-isolation --editable . ||
    fail_with_log "this checkout could not be installed as an editable project"
  local roots
  for roots in "$VENV"/lib/python*/site-packages/_openagents_runtime.pth; do
    if LC_ALL=C grep -q '[^ -~]' "$roots"; then in_ascii "$roots"; fi
  done
}

# Until 3.13, Python reads the file with the import roots in the encoding of the locale, and does not start if it can't.
in_ascii() {
  "$VENV/bin/python" -S -c '
import sys
with open(sys.argv[1], "rb+") as file:
    roots = file.read().splitlines()
    file.seek(0)
    file.write(b"import os, sys; sys.path.extend(map(os.fsdecode, %a))\n" % roots)
    file.truncate()
' "$1"
}

fail_with_log() {
  tail -n 25 "$LOG" >&2
  die "$1; the whole log is $LOG"
}

main() {
  if up_to_date; then return; fi
  if ! reusable; then may_make_venv; fi
  # One bootstrap at a time. One that has waited finds the work done.
  mkdir -p "$VENV"
  exec 9>"$LOCK"
  if command -v flock >/dev/null; then flock 9; fi
  if up_to_date; then return; fi
  if ! reusable; then make_venv; fi
  # What is there is no longer what the stamp says, until all of this is done.
  rm -f "$VENV/.stamp"
  : >"$LOG"
  pip --version >/dev/null 2>&1 || quietly "$VENV/bin/python" -m ensurepip
  install_lock
  install_project
  wanted_stamp >"$VENV/.stamp"
  say "$VENV is ready: $("$VENV/bin/python" -V)"
}

main
