#!/usr/bin/env bash
# From a bare Debian machine to a device with its certificate: see usage below.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repo=$(dirname "$here")
dir=./demo port=8443 stay=0 install=1 server_pid='' started=0

usage() {
    cat <<'TEXT'
usage: quickstart.sh [--dir DIR] [--port N] [--stay] [--no-install]

Installs what Signet needs, builds it, makes a root and an intermediate CA in two SoftHSM tokens,
starts the server, makes the first operator, provisions one device, checks it with openssl, and
stops the server. Run again, it goes on with what is there and provisions one more device.

  --dir DIR     where tokens, CAs, state and the device go (default ./demo)
  --port N      HTTPS port; plain HTTP gets N+1 (default 8443)
  --stay        leave the server running, and write DIR/env.sh for your shell
  --no-install  install no packages
TEXT
}

say() { printf '%s\n' "$*"; }
step() { printf '\n%s\n' "── $*"; }
die() {
    printf 'quickstart.sh: %s\n' "$*" >&2
    exit 1
}

# Runs quietly; what it printed is shown when it fails.
quietly() {
    if ! "$@" >"$dir/last.log" 2>&1; then
        cat "$dir/last.log" >&2
        die "failed: $*"
    fi
}

parse() {
    while [ $# -gt 0 ]; do
        case $1 in
        --dir | --port) [ $# -ge 2 ] || { usage >&2; exit 2; } ;;&
        --dir) dir=$2; shift 2 ;;
        --port) port=$2; shift 2 ;;
        --stay) stay=1; shift ;;
        --no-install) install=0; shift ;;
        --help | -h) usage; exit 0 ;;
        *) printf 'quickstart.sh: unknown option %s\n\n' "$1" >&2; usage >&2; exit 2 ;;
        esac
    done
    case $port in '' | *[!0-9]*) die "--port $port is not a number" ;; esac
    [ "$port" -ge 1 ] && [ "$port" -le 65534 ] || die "--port must be within 1 to 65534"
}

install_packages() {
    local wanted missing=()
    mapfile -t wanted < <(grep -v '^#' "$here/debian-packages")
    for p in "${wanted[@]}"; do
        dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || missing+=("$p")
    done
    [ ${#missing[@]} -gt 0 ] || { say "packages are there"; return; }
    [ "$(id -u)" = 0 ] || die "installing packages needs root: use sudo, or install them yourself and
say --no-install: ${missing[*]}"
    say "installing ${#missing[@]} packages"
    quietly apt-get update
    quietly env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}"
}

build() {
    say "building (log: $dir/last.log)"
    quietly cmake -S "$repo" -B "$repo/build" -G Ninja -DBUILD_TESTING=OFF
    quietly ninja -C "$repo/build" src/all
    bin=$repo/build/bin
}

make_cas() {
    if [ -e "$dir/signet.conf" ]; then
        grep -q "^listen = 127.0.0.1:$port\$" "$dir/signet.conf" ||
            die "$dir was made for another port ($(sed -n 's/^listen = //p' "$dir/signet.conf")); use it, or another --dir"
        say "$dir has its tokens and CAs already"
        return
    fi
    [ ! -e "$dir/root" ] || die "$dir is half made by an earlier run that failed; remove it, or say another --dir"
    local url=http://127.0.0.1:$((port + 1)) root=(--softhsm "$dir/root-token" --pin-file "$dir/root-token/pin")
    mkdir -m 0700 -p "$dir/root-token" "$dir/token"
    quietly "$here/root-ceremony.sh" --bin "$bin" "${root[@]}" --so-pin-file "$dir/root-token/so-pin" \
        --subject "CN=Signet Demo Root" --out "$dir/root"
    say "root CA           key in its own token, $dir/root-token"
    quietly "$here/intermediate.sh" --bin "$bin" --softhsm "$dir/token" --pin-file "$dir/token/pin" \
        --so-pin-file "$dir/token/so-pin" --key-type rsa:2048 --subject "CN=Signet Demo Device CA" \
        --out "$dir/intermediate.csr"
    quietly "$here/root-ceremony.sh" --bin "$bin" "${root[@]}" --out "$dir/root" \
        --sign-csr "$dir/intermediate.csr" --out-certificate "$dir/intermediate.pem" --public-url "$url"
    quietly "$here/intermediate.sh" --bin "$bin" --softhsm "$dir/token" --pin-file "$dir/token/pin" \
        --install "$dir/intermediate.pem" --root "$dir/root/root.pem" --crl "$dir/root/root-crl.der" \
        --state "$dir/state" --config "$dir/signet.conf" --public-url "$url" \
        --listen "127.0.0.1:$port" --http-listen "127.0.0.1:$((port + 1))" \
        --name localhost --name 127.0.0.1
    say "intermediate CA   key in its token, $dir/token; signed by the root"
}

is_running() {
    [ -e "$dir/signetd.pid" ] && grep -qs signetd "/proc/$(cat "$dir/signetd.pid")/comm"
}

start_server() {
    if is_running; then
        server_pid=$(cat "$dir/signetd.pid")
        say "signetd           runs already, process $server_pid"
        return
    fi
    setsid "$bin/signetd" --config "$dir/signet.conf" </dev/null >>"$dir/signetd.log" 2>&1 9>&- &
    server_pid=$!
    started=1
    printf '%s\n' "$server_pid" >"$dir/signetd.pid"
    for _ in $(seq 300); do
        kill -0 "$server_pid" 2>/dev/null || { tail -5 "$dir/signetd.log" >&2; die "signetd did not start; its log is $dir/signetd.log"; }
        if curl -fs -o /dev/null "http://127.0.0.1:$((port + 1))/readyz"; then
            say "signetd           https://localhost:$port, process $server_pid"
            return
        fi
        sleep 0.1
    done
    die "signetd is not ready after 30 s; its log is $dir/signetd.log"
}

stop_server() {
    rm -f "$dir/last.log"
    [ "$started" = 1 ] && kill -0 "$server_pid" 2>/dev/null || return 0
    kill "$server_pid"
    wait "$server_pid" 2>/dev/null || true
    rm -f "$dir/signetd.pid"
}

make_operator() {
    export SIGNET_CONFIG=$dir/operator/signet.conf
    if [ -e "$dir/operator/operator.pem" ]; then
        say "operator          $dir/operator/operator.pem"
        return
    fi
    local fingerprint
    fingerprint=$(openssl x509 -in "$dir/root/root.pem" -noout -fingerprint -sha256 | cut -d= -f2)
    [ -e "$dir/operator/operator.csr" ] ||
        quietly "$bin/signet" init --server "https://localhost:$port" --ca-fingerprint "$fingerprint" --name demo
    quietly "$bin/signetctl" --config "$dir/signet.conf" operator issue --csr "$dir/operator/operator.csr" \
        --role provisioner,revoker --out "$dir/operator/issued.pem"
    quietly "$bin/signet" init --install "$dir/operator/issued.pem"
    # one file for all three programs on this machine
    { printf '\n'; cat "$dir/operator/signet.conf"; } >>"$dir/signet.conf"
    rm -f "$dir/operator/issued.pem"
    say "operator          $dir/operator/operator.pem"
}

provision() {
    local n=1
    while [ -e "$dir/devices/$(printf '240ac4%06x' $n)" ]; do n=$((n + 1)); done
    mac=$(printf '24:0a:c4:%02x:%02x:%02x' $((n >> 16)) $((n >> 8 & 255)) $((n & 255)))
    device=$dir/devices/${mac//:/}
    quietly "$bin/signet" provision --mac "$mac" --out "$dir/devices"
    say "device            $mac"
    say "  private key     $device/device.key (made here, stays here)"
    say "  certificate     $device/device.crt (signed in the token)"
}

check() {
    local verdict
    verdict=$(openssl verify -CAfile "$dir/root/root.pem" -untrusted "$dir/state/intermediate.pem" \
        "$device/device.crt" 2>&1) || die "openssl verify refused: $verdict"
    [ "$(openssl x509 -in "$device/device.crt" -noout -pubkey)" = "$(openssl pkey -in "$device/device.key" -pubout)" ] ||
        die "the certificate does not belong to the key"
    say "openssl verify    ${verdict##*/}"
    openssl x509 -in "$device/device.crt" -noout -subject -issuer -serial -enddate | sed 's/^/  /'
}

write_env() {
    cat >"$dir/env.sh" <<TEXT
# . $dir/env.sh
export SIGNET_BIN='$bin/signet'
export SIGNET_SERVER='https://localhost:$port'
export SIGNET_CA='$dir/root/root.pem'
export SIGNET_OPERATOR_CERT='$dir/operator/operator.pem'
export SIGNET_OPERATOR_KEY='$dir/operator/operator.key'
export SIGNET_CONFIG='$dir/signet.conf'
export SIGNET_STATE='$dir/state'
export SIGNET_MODULE='$(sed -n 's/^module = //p' "$dir/signet.conf")'
export SIGNET_HTTP='http://127.0.0.1:$((port + 1))'
TEXT
}

explain() {
    if [ "$stay" = 0 ]; then
        step "Done: the server is stopped"
        say "Again, and keep it running:  $0 --dir $dir --port $port --stay"
        return
    fi
    step "The server keeps running"
    say "one more device   . $dir/env.sh; \$SIGNET_BIN provision --mac 24:0a:c4:12:34:56 --out $dir/devices"
    say "its status        $bin/signetctl --config $dir/signet.conf status"
    say "its log           $dir/signetd.log"
    say "stop it           kill $server_pid"
}

parse "$@"
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
exec 9>"$dir/quickstart.lock"
flock -n 9 || die "another quickstart.sh works in $dir"
trap stop_server EXIT
trap 'exit 130' INT TERM
step "Signet: preparing"
[ "$install" = 0 ] || install_packages
build
step "Two tokens, two CAs"
make_cas
step "The server and its first operator"
start_server
make_operator
step "One device"
provision
step "Checked with the openssl command"
check
[ "$stay" = 0 ] || { write_env; started=0; }
explain
