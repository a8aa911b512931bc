#!/bin/bash
# The root CA, offline: its token, key and certificate; later its signatures under intermediates and
# its revocation list.
set -euo pipefail
# shellcheck source=common.sh
. "$(dirname "$0")/common.sh"

help() {
    cat <<HELP
root-ceremony.sh [--token "Signet Root"] --subject "CN=My Root" [--out DIR]   make the root
root-ceremony.sh --sign-csr FILE --out-certificate FILE [--public-url URL]    sign an intermediate
root-ceremony.sh --revoke FILE [--reason R]                                   revoke an intermediate
root-ceremony.sh --crl                                                        a fresh list, yearly

The machine that does this needs no network, and not the intermediate's token: only its request
comes, only certificates and the revocation list go. Keep DIR: root.pem.index in it is the root's
own record of what it issued and revoked.

  --subject "CN=…, O=…"    the root's name
  --key-type TYPE          rsa:2048 to rsa:4096, ec:p256 or ec:p384 (default)
  --out DIR                the root's folder: root.pem, root.pem.index, root-crl.der; default .
  --years N                default 20 for the root, 10 for an intermediate
  --months N               life of the revocation list; default 12
  --sign-csr FILE          the intermediate's request
  --out-certificate FILE   where its certificate goes; default beside the request, as .pem
  --public-url URL         http://HOST[:PORT] of the server's plain HTTP, where verifiers will
                           fetch the root's list and certificate; put into the intermediate
  --revoke FILE            the intermediate's certificate
  --reason R               keyCompromise, cACompromise, superseded, cessationOfOperation

$token_help
HELP
}

subject='' key_type=ec:p384 out=. years='' months=12 csr='' certificate='' public_url=''
revoke='' reason='' crl=0
while [ $# -gt 0 ]; do
    case $1 in
    --help)
        help
        exit 0
        ;;
    --crl)
        crl=1
        shift
        continue
        ;;
    --subject | --key-type | --out | --years | --months | --sign-csr | --out-certificate | \
        --public-url | --revoke | --reason)
        [ $# -ge 2 ] && [ -n "$2" ] || misuse "$1 needs a value"
        ;;
    *)
        token_option "$@" || misuse "not understood: $1"
        shift "$used"
        continue
        ;;
    esac
    case $1 in
    --subject) subject=$2 ;;
    --key-type) key_type=$2 ;;
    --out) out=$2 ;;
    --years) years=$2 ;;
    --months) months=$2 ;;
    --sign-csr) csr=$2 ;;
    --out-certificate) certificate=$2 ;;
    --public-url) public_url=$2 ;;
    --revoke) revoke=$2 ;;
    --reason) reason=$2 ;;
    esac
    shift 2
done

[ -n "$token" ] || token='Signet Root'
[ -n "$key_label$key_id" ] || key_label=root
token_ready
root=$out/root.pem root_crl=$out/root-crl.der

# As an array, so that an option without a value is no word at all.
life=()
[ -z "$years" ] || life=(--years "$years")

make_crl() {
    with_key root-crl --root-certificate "$root" --out "$root_crl" --months "$months" "$@"
    made "$root_crl" "the root's revocation list"
}

make_root() {
    [ -n "$subject" ] || misuse '--subject "CN=…" is needed'
    refuse_existing "$root"
    mkdir -p "$out"
    make_token_and_key "$key_type" resume
    with_key root-certificate --subject "$subject" "${life[@]}" --out "$root"
    made "$root" "the root certificate: what everyone is to trust"
    make_crl
    made "$root.index" "the root's record; keep it with the token"
    say
    say "Fingerprint, to compare when the root is installed elsewhere:"
    openssl x509 -in "$root" -noout -fingerprint -sha256
    closing "make the intermediate's request (intermediate.sh), bring it here, and
      root-ceremony.sh --sign-csr FILE"
}

sign_csr() {
    [ -n "$certificate" ] || certificate=${csr%.*}.pem
    local urls=()
    [ -z "$public_url" ] || urls=(--public-url "$public_url")
    with_key sign-intermediate --root-certificate "$root" --csr "$csr" "${life[@]}" "${urls[@]}" \
        --out "$certificate"
    made "$certificate" "the intermediate's certificate"
    make_crl
    closing "take $certificate, $root and $root_crl to the intermediate's machine, and there
      intermediate.sh --install $(basename "$certificate") --root root.pem --crl root-crl.der --state DIR"
}

revoke_intermediate() {
    local why=()
    [ -z "$reason" ] || why=(--reason "$reason")
    make_crl --revoke "$revoke" "${why[@]}"
    closing "bring $root_crl to every server:
      intermediate.sh --crl root-crl.der --root root.pem --state DIR"
}

if [ -n "$csr" ]; then
    sign_csr
elif [ -n "$revoke" ]; then
    revoke_intermediate
elif [ $crl = 1 ]; then
    make_crl
    closing "bring $root_crl to every server:
      intermediate.sh --crl root-crl.der --root root.pem --state DIR"
else
    make_root
fi
