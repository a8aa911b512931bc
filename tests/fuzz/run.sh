#!/usr/bin/env bash
# The long run of the fuzzers: see usage below. The short one is among the tests.
set -euo pipefail

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
minutes=15 jobs=$(nproc) afl=0 names=()

usage() {
    cat <<'TEXT'
usage: tests/fuzz/run.sh [--minutes N] [--jobs N] [--afl] [HARNESS...]

Fuzzes each harness (tests/fuzz/fuzz_HARNESS.c; default: all) for N minutes (default 15), as many side
by side as there are processors: built by clang as a libFuzzer with AddressSanitizer and
UndefinedBehaviorSanitizer, in build-fuzz; with --afl by AFL++ (Debian's afl++), in build-afl. Both
start from tests/corpus/HARNESS and what an earlier run has kept. At last the coverage of our own
code by all that was kept, in build-coverage (llvm): lines of those files in src/ that the harness
reaches. Ends with 1 when there was a finding: mend it, and keep the input in tests/corpus/HARNESS.
TEXT
}

while [ $# -gt 0 ]; do
    case $1 in
    --minutes) minutes=$2; shift ;;
    --jobs) jobs=$2; shift ;;
    --afl) afl=1 ;;
    --help | -h) usage; exit 0 ;;
    -*) usage >&2; exit 2 ;;
    *) names+=("$1") ;;
    esac
    shift
done
if [ ${#names[@]} = 0 ]; then
    for f in "$repo"/tests/fuzz/fuzz_*.c; do f=${f##*/fuzz_}; names+=("${f%.c}"); done
fi
kept=$repo/build-fuzz/corpus found=$repo/build-fuzz/found logs=$repo/build-fuzz/logs
mkdir -p "$kept" "$found" "$logs"

build() { # its folder, then what cmake is told
    local dir=$repo/$1
    shift
    echo "── building $(basename "$dir")"
    cmake -S "$repo" -B "$dir" -G Ninja -DBUILD_TESTING=ON -DSIGNET_FUZZ=ON "$@" >/dev/null
    ninja -C "$dir" --quiet fuzzers
}

libfuzzer() {
    mkdir -p "$kept/$1" "$found/$1"
    "$repo/build-fuzz/tests/fuzz_$1" -max_total_time=$((minutes * 60)) -timeout=60 -rss_limit_mb=2048 \
        -print_final_stats=1 -artifact_prefix="$found/$1/" "$kept/$1" "$repo/tests/corpus/$1" \
        >"$logs/$1" 2>&1 || echo "$1: a finding, see $logs/$1" >&2
    sed -n "s/^stat::number_of_executed_units: */$1: executions /p" "$logs/$1"
}

aflfuzz() {
    local out=$repo/build-afl/out/$1
    mkdir -p "$kept/$1" "$found/$1"
    rm -rf "$out" "$repo/build-afl/in/$1"
    mkdir -p "$out" "$repo/build-afl/in/$1"
    cp "$repo/tests/corpus/$1"/* "$repo/build-afl/in/$1"
    # without a screen, whatever the machine's cores and clock are set to
    AFL_NO_UI=1 AFL_SKIP_CPUFREQ=1 AFL_NO_AFFINITY=1 AFL_I_DONT_CARE_ABOUT_MISSING_CRASHES=1 \
        afl-fuzz -i "$repo/build-afl/in/$1" -o "$out" -V $((minutes * 60)) -m none -- \
        "$repo/build-afl/tests/fuzz_$1" >"$logs/$1.afl" 2>&1 || echo "$1: see $logs/$1.afl" >&2
    find "$out" -path '*/queue/id*' -exec cp -t "$kept/$1" {} +
    find "$out" \( -path '*/crashes/id*' -o -path '*/hangs/id*' \) -exec cp -t "$found/$1" {} +
    sed -n "s/^execs_done *: */$1: executions by AFL++ /p" "$out/default/fuzzer_stats"
}

coverage() {
    local binary=$repo/build-coverage/tests/fuzz_$1 profile=$repo/build-coverage/$1
    rm -f "$profile".*
    LLVM_PROFILE_FILE=$profile.raw "$binary" -runs=0 "$repo/tests/corpus/$1" "$kept/$1" >/dev/null 2>&1 ||
        { echo "$1: its corpus does not run" >&2; return; }
    llvm-profdata merge -o "$profile.data" "$profile.raw"
    llvm-cov export -summary-only -instr-profile "$profile.data" "$binary" >"$profile.json"
    python3 - "$1" "$profile.json" <<'PYTHON'
import json
import sys

files = [f for f in json.load(open(sys.argv[2]))["data"][0]["files"] if "/src/" in f["filename"]]
lines = [(f["summary"]["lines"], f["filename"].split("/src/")[1]) for f in files]
lines = [(s, name) for s, name in lines if s["covered"]]
covered, count = (sum(s[k] for s, _ in lines) for k in ("covered", "count"))
print(f"{sys.argv[1]}: {covered} of {count} lines ({100 * covered // max(count, 1)} %) of "
      + ", ".join(f"{name} {s['covered']}/{s['count']}" for s, name in lines))
PYTHON
}

if [ $afl = 1 ]; then
    build build-afl -DCMAKE_C_COMPILER=afl-clang-fast -DSIGNET_SANITIZE=ON
    fuzz=aflfuzz
else
    build build-fuzz -DCMAKE_C_COMPILER=clang -DSIGNET_SANITIZE=ON
    fuzz=libfuzzer
fi
build build-coverage -DCMAKE_C_COMPILER=clang -DCMAKE_BUILD_TYPE=Debug \
    "-DCMAKE_C_FLAGS=-fprofile-instr-generate -fcoverage-mapping"

echo "── fuzzing, $minutes minutes each"
for name in "${names[@]}"; do
    while [ "$(jobs -rp | wc -l)" -ge "$jobs" ]; do wait -n || true; done
    $fuzz "$name" &
done
wait
echo "── coverage"
for name in "${names[@]}"; do coverage "$name"; done
[ -z "$(find "$found" -type f -print -quit)" ] || { echo "── findings, in $found"; exit 1; }
