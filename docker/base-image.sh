#!/bin/bash
# The base image that docker/Dockerfile starts from: there already, or from the image registry, or,
# where none can be reached, made here with debootstrap.
set -euo pipefail

help() {
    cat <<HELP
base-image.sh [IMAGE]

Sees to it that IMAGE (debian:bookworm-slim by default; debian:SUITE-slim) is there: takes the one
of the engine, or pulls it, or makes it with debootstrap, from the mirror and through the proxy that
this machine's apt is set up with. These settings go into the image, for the builds on top of it.
The last way needs root and the package debootstrap.
HELP
}

say() { printf '%s\n' "$*"; }
die() {
    printf 'base-image.sh: %s\n' "$*" >&2
    exit 1
}

image=debian:bookworm-slim
case ${1-} in
--help)
    help
    exit 0
    ;;
-*) die "not understood: $1; see --help" ;;
?*) image=$1 ;;
esac
suite=${image#debian:}
suite=${suite%-slim}

# Where apt has this archive from: a label (Debian, Debian-Security), and the URI is printed.
mirror_of() {
    apt-get indextargets --format '$(LABEL) $(REPO_URI)' 'Created-By: Packages' |
        awk -v label="$1" '$1 == label && !uri { uri = $2; sub("/$", "", uri) } END { print uri }'
}

apt_setting() {
    local value=
    eval "$(apt-config shell value "$1")"
    printf '%s' "$value"
}

# Proxy, certificates and checks; not what only this machine could run (Proxy-Auto-Detect).
apt_settings() {
    apt-config dump | grep -E '^Acquire::(https?|Check-[A-Za-z-]*|Retries)(::| )' |
        grep -v -e ' "";$' -e Proxy-Auto-Detect || true
}

bootstrap() {
    local include=()
    export WGETRC=$work/wgetrc
    [ -z "$proxy" ] || printf 'http_proxy = %s\n' "$proxy" >>"$WGETRC"
    [ -z "$https_proxy_of_apt" ] || printf 'https_proxy = %s\n' "$https_proxy_of_apt" >>"$WGETRC"
    [ -z "$ca_file" ] || printf 'ca_certificate = %s\n' "$ca_file" >>"$WGETRC"
    touch "$WGETRC"
    case $mirror in https:*) include=(--include=ca-certificates) ;; esac
    debootstrap --variant=minbase "${include[@]}" "$suite" "$work/root" "$mirror" \
        >"$work/log" 2>&1 || die "debootstrap from $mirror failed: $(tail -n 3 "$work/log")"
}

write_apt_settings() {
    local apt=$work/root/etc/apt
    {
        say "deb $mirror $suite main"
        say "deb $mirror $suite-updates main"
        [ -z "$security" ] || say "deb $security $suite-security main"
    } >"$apt/sources.list"
    apt_settings >"$apt/apt.conf.d/90base-image"
    [ -z "$ca_file" ] || install -D -m 0644 "$ca_file" "$work/root$ca_file"
}

# What makes it slim, and keeps packages from starting services during a build.
make_slim() {
    local root=$work/root
    printf 'path-exclude=/usr/share/%s/*\n' doc man info locale lintian linda \
        >"$root/etc/dpkg/dpkg.cfg.d/slim"
    rm -rf "$root"/usr/share/{doc,man,info,locale,lintian}/* "$root"/var/cache/apt/archives/*.deb \
        "$root"/var/lib/apt/lists/* "$root"/var/log/*.log
    : >"$root/etc/hostname"
    : >"$root/etc/resolv.conf"
    printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
    chmod 0755 "$root/usr/sbin/policy-rc.d"
}

docker info >/dev/null 2>&1 || die "no Docker engine answers; is it running, and may you use it?"
if docker image inspect "$image" >/dev/null 2>&1; then
    say "$image is there."
    exit 0
fi
if timeout 120 docker pull -q "$image" >/dev/null 2>&1; then
    say "$image is pulled."
    exit 0
fi

[[ $image == debian:*-slim ]] || die "$image cannot be pulled, and only debian:SUITE-slim can be made here"
[ "$(id -u)" = 0 ] || die "$image cannot be pulled; to make it, run this as root"
command -v debootstrap >/dev/null || die "$image cannot be pulled; to make it: apt-get install debootstrap"
mirror=$(mirror_of Debian)
security=$(mirror_of Debian-Security)
[ -n "$mirror" ] || die "apt on this machine has no Debian archive to make $image from"
proxy=$(apt_setting Acquire::http::Proxy)
https_proxy_of_apt=$(apt_setting Acquire::https::Proxy)
ca_file=$(apt_setting Acquire::https::CAInfo)

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
say "$image cannot be pulled; making it with debootstrap (about a minute)"
bootstrap
write_apt_settings
make_slim
tar --numeric-owner -C "$work/root" -c . |
    docker import --change 'CMD ["bash"]' --message "base-image.sh" - "$image" >/dev/null
say "$image is made."
