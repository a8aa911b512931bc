#!/usr/bin/env bash
# The tests, all of them: see usage below.
set -euo pipefail

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
install=1 full=0

usage() {
    cat <<'TEXT'
usage: tests/run.sh [--full] [--no-install]

Installs what the tests need (Debian packages; as root), builds with gcc and with clang, warnings
being errors, and once more with AddressSanitizer and UndefinedBehaviorSanitizer, then runs all
tests through ctest. Every test has tokens, state and ports of its own.

  --full        also what is long
  --no-install  install no packages
TEXT
}

while [ $# -gt 0 ]; do
    case $1 in
    --full) full=1 ;;
    --no-install) install=0 ;;
    --help | -h) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
    esac
    shift
done

install_packages() {
    local wanted missing=()
    mapfile -t wanted < <(cat "$repo/hsm-setup/debian-packages" "$repo/tests/debian-packages" | grep -v '^#')
    # Debian 12 has no esptool: tests/esptool.sh gets one
    [ "$(. /etc/os-release && echo "$VERSION_CODENAME")" = bookworm ] || wanted+=(esptool)
    for p in "${wanted[@]}"; do
        dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || missing+=("$p")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    [ "$(id -u)" = 0 ] || { echo "tests/run.sh: run it as root, or install: ${missing[*]}" >&2; exit 1; }
    echo "── installing ${missing[*]}"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

build() { # name of the build, then what cmake is told; $targets of it, or all
    local dir=$repo/$1
    shift
    echo "── building $(basename "$dir")"
    cmake -S "$repo" -B "$dir" -G Ninja -DBUILD_TESTING=ON "$@" >/dev/null
    ninja -C "$dir" --quiet ${targets:-}
}

[ "$install" = 0 ] || install_packages
build build-clang -DCMAKE_C_COMPILER=clang
build build-asan -DCMAKE_C_COMPILER=gcc -DSIGNET_SANITIZE=ON -DCMAKE_BUILD_TYPE=Debug
targets=fuzzers build build-fuzz -DCMAKE_C_COMPILER=clang -DSIGNET_FUZZ=ON -DSIGNET_SANITIZE=ON
build build-gcc -DCMAKE_C_COMPILER=gcc -DSIGNET_ASAN_BUILD="$repo/build-asan" -DSIGNET_FUZZ_BUILD="$repo/build-fuzz"
[ "$full" = 0 ] || export SIGNET_FULL=1
esptool=$("$repo/tests/esptool.sh")
echo "── testing, with $("$esptool" version | head -n 1)"
cd "$repo/build-gcc"
# four at a time, since they wait a lot: every test is alone with its token, state and ports
exec ctest --output-on-failure --parallel 4
