#!/usr/bin/env bash
# Makes sure that the MQTT broker `mosquitto` and its clients can be run, which tests need:
# .cache/bin holds them afterwards.
#
# The first of these that works: what is on PATH; Debian's packages, installed (root) or unpacked
# into .cache (anybody else). It starts nothing, ends nothing, and speaks on stderr only. A run that
# finds all in place takes milliseconds.
#
# MESHD_CACHE_DIR: the cache folder, if not .cache of this checkout.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$here")
cache=${MESHD_CACHE_DIR:-$root/.cache}
unpacked=$cache/mosquitto/root
programs=(mosquitto mosquitto_passwd mosquitto_pub mosquitto_sub)
# What they load beside what every Debian has.
libraries=(libcjson1 libdlt2 libmosquitto1 libnsl2 libtirpc3 libwrap0)

say() { printf 'ensure_mosquitto: %s\n' "$*" >&2; }

# shellcheck source=scripts/debian.sh
. "$here/debian.sh"

# Each says something and ends at once: with status 3 the broker, 1 the clients.
runs() {
  local status=0
  "$1" --help >/dev/null 2>&1 </dev/null || status=$?
  [ "$status" -le 3 ]
}

link() {
  local program found
  for program in "${programs[@]}"; do
    found=$(on_path "$program")
    [ -n "$found" ] && runs "$found" || return 1
  done
  for program in "${programs[@]}"; do ln -sfn "$(on_path "$program")" "$cache/bin/$program"; done
}

by_root() {
  say "installing Debian's mosquitto and mosquitto-clients"
  apt_update || return 1
  retry apt_install mosquitto mosquitto-clients || return 1
  link
}

# An unpacked program has to be told where its libraries lie. It replaces the shell, so that a signal
# that is sent to it reaches it.
wrap() {
  local program place libraries_dir
  libraries_dir=$(dirname "$(find "$unpacked/usr/lib" -name 'libmosquitto.so.1' | head -n 1)")
  for program in "${programs[@]}"; do
    place=$(find "$unpacked/usr/sbin" "$unpacked/usr/bin" -name "$program" | head -n 1)
    [ -n "$place" ] || return 1
    rm -f "$cache/bin/$program"
    printf '#!/bin/sh\nLD_LIBRARY_PATH=%s:%s exec %s "$@"\n' "$libraries_dir" \
      "$unpacked${libraries_dir#"$unpacked/usr"}" "$place" >"$cache/bin/$program"
    chmod 0755 "$cache/bin/$program"
    runs "$cache/bin/$program" || return 1
  done
}

by_unpacking() {
  [ -d "$unpacked" ] && wrap && return 0
  say "unpacking Debian's mosquitto and mosquitto-clients into $cache/mosquitto (no root here)"
  "$here/unpack_debian.sh" "$cache/mosquitto" mosquitto mosquitto-clients "${libraries[@]}" \
    || return 1
  wrap
}

lock
link && exit 0
if has_apt; then
  if is_root; then by_root && exit 0; else by_unpacking && exit 0; fi
fi
say "no mosquitto could be had. Install mosquitto 2.0 or newer and its clients, put them on PATH,"
say "and run this again."
exit 1
