#!/bin/bash
# The broker, and beside it a loop that keeps its revocation list fresh: mosquitto reads crlfile at
# its start and at SIGHUP, which interrupts no connection.
set -euo pipefail
. /rig/common.sh

cd /run/broker

# The broker's certificate, from a CA that lives as long as this function. To have it from Signet
# or from anywhere else, put server.pem, server.key and (for clients) /rig/broker/ca.pem here.
make_server_certificate() {
    local key=(-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes)
    openssl req -x509 "${key[@]}" -keyout ca.key -out ca.pem -days 30 -subj "/CN=Rig Broker CA" \
        -addext keyUsage=critical,keyCertSign
    openssl req "${key[@]}" -keyout server.key -out server.csr -subj "/CN=mosquitto"
    openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -days 30 -out server.pem -extfile - <<EXT
subjectAltName = DNS:mosquitto
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
EXT
    rm ca.key server.csr
    carry ca.pem /rig/broker/ca.pem
}

# Succeeds when crl.pem is another list than before. It comes over plain HTTP: it counts only if
# the CA signed it.
refresh_crl() {
    curl -fsS --max-time 5 -o crl.der http://signetd:8080/crl || return 1
    openssl crl -inform DER -in crl.der -CAfile signet-chain.pem -out crl.new 2>&1 |
        grep -q 'verify OK' || { echo "the list from signetd is not the CA's"; return 1; }
    ! cmp -s crl.new crl.pem || return 1
    mv crl.new crl.pem
    echo "revocation list: $(openssl crl -in crl.pem -noout -crlnumber)"
}

make_server_certificate 2>/dev/null
cat /rig/carried/intermediate.pem /rig/carried/root.pem >signet-chain.pem
refresh_crl || die "no revocation list; without it everyone would be refused"

mosquitto -c /etc/mosquitto/mosquitto.conf &
broker=$!
trap 'kill $broker; wait $broker; exit 0' TERM INT
until (: </dev/tcp/127.0.0.1/8883) 2>/dev/null; do
    kill -0 $broker || die "mosquitto ended; see its words above"
    pause 0.1
done
touch ready

while kill -0 $broker; do
    refresh_crl && kill -HUP $broker
    pause 1
done
die "mosquitto ended"
