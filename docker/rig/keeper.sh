#!/bin/bash
# The CA's keeper, at the server: hands out the root's fingerprint and makes an operator of whoever
# asks. A person would look who asks; this one says yes to all, which is for a rig only.
set -euo pipefail
. /rig/common.sh

carry /rig/carried/root.sha256 /rig/desk/root.sha256
shopt -s nullglob
while :; do
    for csr in /rig/desk/*.csr; do
        signetctl --config /var/lib/signet/signet.conf operator issue --csr "$csr" \
            --role provisioner,revoker --out /tmp/operator.pem || die "no certificate for $csr"
        carry /tmp/operator.pem "${csr%.csr}.pem"
        rm /tmp/operator.pem "$csr"
    done
    pause 0.2
done
