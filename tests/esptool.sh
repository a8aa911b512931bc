#!/usr/bin/env bash
# A real esptool for the tests: prints the path of the program.
#
# It is the installed one (Debian 13). Where the distribution has none (Debian 12), that of Debian 13
# is fetched once by apt, from the mirror that apt is configured for and verified by its keyring,
# with lists and state in a folder of its own, and unpacked into build-esptool/: nothing is installed.
set -euo pipefail

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
work=$repo/build-esptool
program=$work/esptool
release=trixie

die() {
    echo "tests/esptool.sh: $1" >&2
    exit 1
}

# the address of the system's own Debian main archive
mirror() {
    local suite
    suite=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
    apt-get indextargets --format '$(RELEASE) $(COMPONENT) $(REPO_URI)' 'Created-By: Packages' |
        awk -v suite="$suite" '$1 == suite && $2 == "main" { print $3; exit }'
}

private_apt() {
    apt-get -qq -o Dir::Etc::sourcelist="$work/apt/sources.list" -o Dir::Etc::sourceparts=- \
        -o Dir::State="$work/apt" -o Dir::State::status="$work/apt/status" -o Dir::Cache="$work/apt/cache" \
        -o Acquire::Languages=none -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false \
        -o APT::Sandbox::User= "$@"
}

fetch() {
    local uri keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    uri=$(mirror)
    [ -n "$uri" ] || die "apt has no Debian main archive to get esptool from"
    mkdir -p "$work/apt/lists/partial" "$work/apt/cache/archives/partial" "$work/apt/root"
    : >"$work/apt/status"
    echo "deb [signed-by=$keyring] $uri $release main" >"$work/apt/sources.list"
    (cd "$work/apt" && private_apt update && private_apt download esptool) >&2 ||
        die "cannot fetch esptool of Debian $release from $uri"
    dpkg-deb -x "$work"/apt/esptool_*.deb "$work/apt/root"
    rm -rf "$work/root"
    mv "$work/apt/root" "$work/root"
    rm -rf "$work/apt"
}

write_program() {
    cat >"$program.new" <<TEXT
#!/bin/sh
export PYTHONPATH='$work/root/usr/lib/python3/dist-packages'
exec /usr/bin/python3 '$work/root/usr/bin/esptool' "\$@"
TEXT
    chmod +x "$program.new"
    "$program.new" version >/dev/null || die "the fetched esptool does not run; see tests/debian-packages"
    mv "$program.new" "$program"
}

if [ "$(dpkg-query -W -f '${Status}' esptool 2>/dev/null)" = "install ok installed" ]; then
    echo /usr/bin/esptool
    exit 0
fi
mkdir -p "$work"
exec 9>"$work/lock"
flock 9
if [ ! -x "$program" ]; then
    fetch
    write_program
fi
echo "$program"
