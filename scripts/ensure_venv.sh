#!/usr/bin/env bash
# Makes the virtual environment with exactly the locked packages, and meshd itself in it.
# Usage: ensure_venv.sh FOLDER PYTHON
set -euo pipefail

folder=$1
python=$2

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
  echo "meshd needs Python 3.11 or later; $python is $("$python" --version 2>&1)." >&2
  echo "Install one and say so: make PYTHON=python3.11 …" >&2
  exit 1
}
if ! "$python" -c 'import ensurepip' 2>/dev/null; then
  # Debian keeps this part of Python in a package of its own.
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get update -qq
    apt-get install -qq -y --no-install-recommends python3-venv >/dev/null
  else
    echo "$python can't make virtual environments; install python3-venv." >&2
    exit 1
  fi
fi

[ -x "$folder/bin/python" ] || "$python" -m venv "$folder"
echo "installing the locked packages into $folder" >&2
"$folder/bin/python" -m pip install --quiet --disable-pip-version-check \
  --require-hashes -r requirements.lock
"$folder/bin/python" -m pip install --quiet --disable-pip-version-check \
  --no-deps --no-build-isolation --editable .
