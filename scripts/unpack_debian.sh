#!/usr/bin/env bash
# Unpacks Debian packages into a folder, for those who aren't root: FOLDER/root holds their files.
# Usage: unpack_debian.sh FOLDER PACKAGE…
#
# Nothing is installed and nothing outside FOLDER is touched. The package lists are FOLDER's own: the
# system's may be missing or old, and only root may renew them.
set -euo pipefail

folder=$1
shift
attempts_max=3

apt_private() {
  apt-get -o Acquire::Retries=2 -o Dir::State="$folder/apt/state" \
    -o Dir::State::status=/var/lib/dpkg/status -o Dir::Cache="$folder/apt/cache" \
    -o APT::Sandbox::User="" "$@" >&2
}

download_and_unpack() (
  cd "$folder/deb" || return 1
  rm -f ./*.deb
  apt_private download "$@" || return 1
  local package
  for package in ./*.deb; do dpkg -x "$package" "$folder/root" || return 1; done
)

mkdir -p "$folder/deb" "$folder/root" "$folder/apt/state/lists/partial" \
  "$folder/apt/cache/archives/partial"
for attempt in $(seq "$attempts_max"); do
  apt_private update && download_and_unpack "$@" && exit 0
  echo "unpack_debian: attempt $attempt of $attempts_max failed: $*" >&2
  [ "$attempt" -eq "$attempts_max" ] || sleep "$attempt"
done
exit 1
