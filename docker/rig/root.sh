#!/bin/bash
# The root CA's machine. It has no network; /rig/carried stands for what is carried to it and back.
set -euo pipefail
. /rig/common.sh

ceremony() {
    /usr/share/signet/hsm-setup/root-ceremony.sh --softhsm /rig/root/hsm --out /rig/root \
        --pin-file /rig/root/pin --so-pin-file /rig/root/so-pin "$@"
}

cd /rig/root
[ -e root.pem ] || ceremony --subject "CN=Rig Root"

if [ ! -e /rig/carried/intermediate.pem ]; then
    wait_for /rig/carried/intermediate.csr "signetd's container makes it; see its log"
    [ -e intermediate.pem ] ||
        ceremony --sign-csr /rig/carried/intermediate.csr --out-certificate intermediate.pem \
            --public-url http://signetd:8080
    openssl x509 -in root.pem -noout -fingerprint -sha256 >root.sha256
    for file in root.pem root-crl.der root.sha256 intermediate.pem; do
        carry $file /rig/carried/$file
    done
fi
while :; do pause 60; done
