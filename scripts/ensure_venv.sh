#!/usr/bin/env bash
# Makes the virtual environment with exactly the locked packages, and meshd itself in it.
# Usage: ensure_venv.sh FOLDER PYTHON
#
# Debian keeps the part of Python that puts pip into a virtual environment in a package of its own,
# python3-venv. Where it is missing, root installs it; anybody else gets pip from Debian's wheel of
# it, unpacked into .cache.
set -euo pipefail

folder=$1
python=$2
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${MESHD_CACHE_DIR:-$(dirname "$here")/.cache}

say() { printf 'ensure_venv: %s\n' "$*" >&2; }

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
  say "meshd needs Python 3.11 or later; $python is $("$python" --version 2>&1)."
  say "Install one and say so: make PYTHON=python3.11 …"
  exit 1
}

has_ensurepip() { "$python" -c 'import ensurepip' 2>/dev/null; }

install_venv_package() {
  [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null || return 1
  say "installing Debian's python3-venv"
  apt-get -qq update && DEBIAN_FRONTEND=noninteractive \
    apt-get -qq install -y --no-install-recommends python3-venv >/dev/null
}

with_pip_from_a_wheel() {
  command -v apt-get >/dev/null || return 1
  say "taking pip from Debian's wheel of it (no python3-venv here)"
  "$here/unpack_debian.sh" "$cache/pip" python3-pip-whl || return 1
  local wheel
  wheel=$(echo "$cache"/pip/root/usr/share/python-wheels/pip-*.whl)
  "$python" -m venv --without-pip "$folder" || return 1
  "$folder/bin/python" "$wheel/pip" install --quiet --no-index "$wheel"
}

if ! "$folder/bin/python" -m pip --version >/dev/null 2>&1; then
  rm -rf "$folder"
  if has_ensurepip || { install_venv_package && has_ensurepip; }; then
    "$python" -m venv "$folder"
  elif ! with_pip_from_a_wheel; then
    say "$python can't make a virtual environment with pip; install python3-venv."
    exit 1
  fi
fi

say "installing the locked packages into $folder"
pip() { "$folder/bin/python" -m pip --quiet --disable-pip-version-check "$@"; }
pip install --require-hashes -r requirements.lock
# As a folder on the path, so that `chaos run` finds chaos/ too, which is no part of the package.
pip install --no-deps --no-build-isolation --config-settings editable_mode=compat --editable .
