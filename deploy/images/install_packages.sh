#!/bin/sh
# Installs the packages of one lock into a folder: install_packages.sh LOCK FOLDER. It runs in the build stage.
#
# Every package is checked against its hash, nothing is compiled, and Python's byte code is made here, because the image
# is read-only. A pip.conf and certificates may be mounted as secrets: no image keeps them.
set -eu

export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PIP_NO_CACHE_DIR=1
if [ -e /run/secrets/pip.conf ]; then export PIP_CONFIG_FILE=/run/secrets/pip.conf; fi
if [ -e /run/secrets/certificates ]; then export PIP_CERT=/run/secrets/certificates; fi

python3 -m venv /build/venv
/build/venv/bin/python -m pip install --quiet --require-hashes --no-deps --only-binary :all: --no-compile \
  --requirement "$1" --target "$2"
rm -rf "$2/bin"
# Nothing checks the files afterwards, so they depend only on the source and not on its time.
python3 -m compileall -q --invalidation-mode unchecked-hash "$2"
