#!/usr/bin/env bash
# Makes sure that the programs are there with which chaos does more than it can without rights:
# `nft` for meshes in network namespaces, libfaketime for clocks that jump.
#
# What is missing is installed from Debian's packages, which only root can do. Chaos works without:
# it says what can't be done, and lists it as skipped. So does this, and still ends with status 0
# unless --strict is given. It starts nothing, and speaks on stderr only.
#
# MESHD_CACHE_DIR: the cache folder, if not .cache of this checkout.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$here")
cache=${MESHD_CACHE_DIR:-$root/.cache}
strict=0
[ "${1:-}" != --strict ] || strict=1

say() { printf 'ensure_chaos: %s\n' "$*" >&2; }

# shellcheck source=scripts/debian.sh
. "$here/debian.sh"

has_faketime() {
  compgen -G '/usr/lib/*/faketime/libfaketime.so.1' >/dev/null \
    || compgen -G '/usr/lib*/faketime/libfaketime.so.1' >/dev/null \
    || [ -e /usr/local/lib/faketime/libfaketime.so.1 ]
}

packages=()
find_missing() {
  packages=()
  [ -n "$(on_path nft)" ] || packages+=(nftables)
  { [ -n "$(on_path ip)" ] && [ -n "$(on_path ss)" ]; } || packages+=(iproute2)
  { [ -n "$(on_path nsenter)" ] && [ -n "$(on_path setpriv)" ]; } || packages+=(util-linux)
  has_faketime || packages+=(faketime)
  [ "${#packages[@]}" -gt 0 ]
}

lock
find_missing || exit 0
if is_root && has_apt; then
  say "installing Debian's ${packages[*]}"
  if apt_update && retry apt_install "${packages[@]}" && ! find_missing; then exit 0; fi
fi
find_missing || exit 0
say "missing: ${packages[*]} (Debian's names). Without them meshes run on loopback, or clocks stay"
say "right; chaos lists what it skips. Have root install them to get all of it."
exit "$strict"
