#!/usr/bin/env bash
# Builds optimised and measures: see usage below, and the programs that it names.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repo=$(cd "$here/../.." && pwd)
build=

usage() {
    cat <<'TEXT'
usage: tests/bench/run.sh [--quick] [--build DIR] [--rounds N] [--only STEP] [--json FILE]
                          [--work DIR] [--keep]
       tests/bench/run.sh growth | crl | batch | profile [--build DIR] [--help | OPTION...]

Builds Signet optimised (build-bench), makes tokens, starts servers, and measures them against what
the token, the disk and the libraries can do alone, in 5 rounds that take a few minutes each. Prints
a table of medians and writes all numbers, with machine and versions, as JSON. Needs the packages of
hsm-setup/debian-packages and tests/debian-packages, and a machine that does nothing else.

  --quick       one short round (a minute), that shows that everything works
  --build DIR   measure this build as it is
  --rounds N    default 5
  --only STEP   issue_rsa, issue_p256, sync_rsa, sync_p256, token, idle, batch, tls, ocsp, million
  --json FILE   default: bench.json in the build folder
  --work DIR    where tokens and states are made, on the disk to be measured; default: the build folder
  --keep        leave them there

growth    what grows with the number of certificates, up to 10,000,000
crl       CRLs of many entries
batch     signet batch beside the making of its keys
profile   where the CPU of an issuance goes (needs linux-perf)

The load program is one thread and shares the cores with the server: so CPU for each certificate
counts more than rates, and of rates the ratio to what was measured beside them.
TEXT
}

program=bench
case ${1:-} in
growth | crl | batch | profile) program=$1; shift ;;
esac

args=()
while [ $# -gt 0 ]; do
    case $1 in
    --help | -h) [ "$program" != bench ] || { usage; exit 0; }; args+=("$1") ;;
    --build) build=$2; shift ;;
    *) args+=("$1") ;;
    esac
    shift
done

if [ -z "$build" ]; then
    build=$repo/build-bench
    cmake -S "$repo" -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DCMAKE_C_FLAGS_RELEASE="-O2 -g -DNDEBUG" >/dev/null
    ninja -C "$build" --quiet
fi
SIGNET_BUILD=$build PYTHONDONTWRITEBYTECODE=1 exec /usr/bin/python3 "$here/$program.py" "${args[@]}"
