#!/bin/bash
# Makes a token and one signing key in it.
set -euo pipefail
# shellcheck source=common.sh
. "$(dirname "$0")/common.sh"

help() {
    cat <<HELP
make-token.sh --module FILE --token LABEL --key-label LABEL [--key-type TYPE]

Initializes a blank token and makes a key in it that can sign and never leaves it. PIN files that
are not there are made, with random PINs and mode 0600. A token that exists is left as it is and
only gets the key; a key that exists is never replaced. With --adopt nothing is made: token and key
are only tried.

  --key-type TYPE      rsa:2048, rsa:3072, rsa:4096, ec:p256 (default) or ec:p384

$token_help
HELP
}

key_type=ec:p256
while [ $# -gt 0 ]; do
    case $1 in
    --help)
        help
        exit 0
        ;;
    --key-type)
        [ $# -ge 2 ] || misuse "--key-type needs a value"
        key_type=$2
        shift 2
        ;;
    *)
        token_option "$@" || misuse "not understood: $1"
        shift "$used"
        ;;
    esac
done

token_ready
make_token_and_key "$key_type"
closing "use the key: root-ceremony.sh --adopt for a root, intermediate.sh --adopt for an intermediate"
