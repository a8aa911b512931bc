#!/bin/bash
# The rig of docker/compose.yml, from images of this working tree: a device publishes, is revoked,
# and is refused. Skipped (77) only where no Docker engine answers. Takes its containers, volumes
# and network away again; the images stay, which makes the next run quick.
set -euo pipefail
cd "$(dirname "$0")/../.."

skip() {
    printf 'skipped: %s\n' "$*"
    exit 77
}

command -v docker >/dev/null || skip "there is no docker command"
why=$(docker info 2>&1 >/dev/null) || skip "no Docker engine answers: $(tail -n 1 <<<"$why")"
if docker compose version >/dev/null 2>&1; then
    compose=(docker compose)
elif command -v docker-compose >/dev/null; then
    compose=(docker-compose)
else
    skip "a Docker engine answers, but there is neither docker compose nor docker-compose"
fi
compose+=(-f docker/compose.yml -p "signet-test-$$")

log=$(mktemp)
clean() {
    "${compose[@]}" down -v --remove-orphans >/dev/null 2>&1 || true
    rm -f "$log"
}
trap clean EXIT
trap 'exit 1' INT TERM

./docker/base-image.sh
"${compose[@]}" build >"$log" 2>&1 || {
    tail -n 60 "$log"
    echo "FAILED: the images do not build"
    exit 1
}
rc=0
timeout 300 "${compose[@]}" up --no-color --exit-code-from client >"$log" 2>&1 || rc=$?
if [ $rc != 0 ]; then
    cat "$log"
    echo "FAILED: the rig ended with exit code $rc"
    exit 1
fi
sed -n 's/^client[-_]1 *| \{0,1\}//p' "$log"
grep -q 'PASSED' "$log" || { cat "$log"; echo "FAILED: exit code 0 without the client's verdict"; exit 1; }
