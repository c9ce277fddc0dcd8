# What the scripts that see to a Debian program share. To be sourced, with `say` and `cache` set:
#   search_path, on_path NAME: what is on PATH without what an earlier run linked into .cache/bin.
#   retry COMMAND…, is_root, has_apt, apt_install PACKAGE…, lock NAME.
# shellcheck shell=bash

attempts_max=3
# What an earlier run linked must not count as "on PATH": it would hide a program installed since.
# Programs that only root needs daily lie where nobody's PATH may lead.
search_path=$(printf '%s' "$PATH:/usr/sbin" | tr ':' '\n' | grep -vxF "$cache/bin" | paste -sd: -)

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

is_root() { [ "$(id -u)" -eq 0 ]; }
has_apt() { command -v apt-get >/dev/null; }

# Debian's packages start a service when they are installed. A policy-rc.d that says 101 forbids that
# the way Debian means it to be forbidden; a machine that has one of its own keeps it as it is.
apt_install() {
  local policy=/usr/sbin/policy-rc.d made=0 status=0
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 0755 "$policy"
    made=1
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
  fi
  DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get -o Acquire::Retries=2 \
    -o DPkg::Lock::Timeout=120 install -y --no-install-recommends "$@" || status=$?
  if [ "$made" -eq 1 ]; then
    rm -f "$policy"
    trap - EXIT
  fi
  return "$status"
}

apt_update() { retry apt-get -o Acquire::Retries=2 -o DPkg::Lock::Timeout=120 update; }

# One run at a time: `make -j demo test` must not unpack over itself. All programs share the lock,
# since they share policy-rc.d.
lock() {
  mkdir -p "$cache/bin"
  exec 9>"$cache/ensure.lock"
  flock -w 600 9 || { say "another run has held $cache/ensure.lock for 10 minutes"; exit 1; }
}
