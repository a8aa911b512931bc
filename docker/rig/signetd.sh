#!/bin/bash
# The server. At the first start it makes the intermediate's key in a SoftHSM token, has the root
# sign it, and writes the configuration; then, and at any later start, signetd.
set -euo pipefail
. /rig/common.sh

config=/var/lib/signet/signet.conf
hsm=/var/lib/signet-hsm
carried=/rig/carried

intermediate() {
    /usr/share/signet/hsm-setup/intermediate.sh --softhsm $hsm --pin-file $hsm/pin \
        --so-pin-file $hsm/so-pin "$@"
}

cd /var/lib/signet
if [ ! -e $config ]; then
    [ -e intermediate.csr ] ||
        intermediate --subject "CN=Rig Device CA" --out intermediate.csr
    carry intermediate.csr $carried/intermediate.csr
    wait_for $carried/intermediate.pem "the root's container makes it; see its log"
    intermediate --install $carried/intermediate.pem --root $carried/root.pem \
        --crl $carried/root-crl.der --state /var/lib/signet/state --config $config \
        --public-url http://signetd:8080 --listen 0.0.0.0:8443 --http-listen 0.0.0.0:8080 \
        --name signetd --name localhost
fi
exec signetd --config $config
