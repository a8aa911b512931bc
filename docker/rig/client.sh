#!/bin/bash
# The operator's laptop and two devices. One device is revoked; the other is the control: it must
# still be served when the first is refused. Ends with 0 only if all is as it should be.
set -euo pipefail
. /rig/common.sh
trap 'die "step $step: $BASH_COMMAND"' ERR
trap 'die "stopped before it was done; the log of the container that ended says why"' TERM INT

export HOME=/rig/laptop
cd $HOME

step=0
step() {
    step=$((step + 1))
    printf '\n%d. %s\n' $step "$*"
}

random_mac() {
    printf '24:0a:c4:%s' "$(openssl rand -hex 3 | sed 's/../&:/g; s/:$//')"
}

folder() {
    printf '%s/devices/%s' $HOME "${1//:/}"
}

# The devices' own words: publishes with an acknowledgement (QoS 1) and, since a broker drops
# silently what its rules forbid, reads it back.
publish() {
    local mac=$1 at device words
    device=$(folder "$mac")
    at=(-h mosquitto -p 8883 --cafile /rig/broker/ca.pem --cert "$device/device.crt"
        --key "$device/device.key" -q 1 -t "devices/$mac/words")
    words="it is $(date -u +%T.%N)"
    timeout 10 mosquitto_pub "${at[@]}" -r -m "$words" &&
        [ "$(timeout 10 mosquitto_sub "${at[@]}" -C 1 -W 5)" = "$words" ]
}

# What the broker's TLS says to a certificate (to none, without arguments). In TLS 1.3 the refusal
# comes after the client's own handshake is done, so the connection is kept open to hear it.
tls_alert() {
    { timeout 5 openssl s_client -connect mosquitto:8883 -servername mosquitto -ign_eof \
        -CAfile /rig/broker/ca.pem -verify_return_error "$@" </dev/null 2>&1 || true; } |
        sed -n 's/.*SSL routines:[^:]*:\([^:]*alert [^:]*\):.*SSL alert number \([0-9]*\).*/\1 (\2)/p'
}

step "The laptop is set up: the root is known by its fingerprint"
wait_for /rig/desk/root.sha256 "the keeper hands it out; see its log"
signet init --server https://signetd:8443 --ca-fingerprint "$(cat /rig/desk/root.sha256)" \
    --name maker --json >/dev/null
request=/rig/desk/maker-$(openssl rand -hex 4)
carry .config/signet/operator.csr "$request.csr"
wait_for "$request.pem" "the keeper issues it; see its log"
signet init --install "$request.pem" --json >/dev/null
openssl x509 -in .config/signet/operator.pem -noout -subject -issuer -nameopt oneline,utf8

step "Two devices get their certificates"
mac=$(random_mac) control=$(random_mac)
signet provision --mac "$mac" --out devices
signet provision --mac "$control" --out devices --key-type ec:p256
for each in "$mac" "$control"; do
    openssl verify -purpose sslclient -CAfile "$(folder "$each")/ca.pem" \
        -untrusted "$(folder "$each")/chain.pem" "$(folder "$each")/device.crt"
done

step "The broker takes no one without a certificate"
alert=$(tls_alert)
case $alert in
*'(116)') echo "refused: $alert" ;;
*) die "the broker's answer to no certificate is '$alert', not the alert certificate_required" ;;
esac

step "Both publish"
publish "$mac" || die "$mac was refused before it was revoked"
publish "$control" || die "$control was refused"
echo "$mac and $control: accepted, and read back"

step "The first is revoked"
serial=$(openssl x509 -in "$(folder "$mac")/device.crt" -noout -serial | sed 's/serial=//')
signet revoke --serial "$serial" --reason keyCompromise

step "The next revocation list names it"
end=$((SECONDS + 30))
until
    signet crl --out crl.pem >crl.words
    openssl crl -in crl.pem -noout -text >crl.txt
    grep -qi "Serial Number: 0*$serial" crl.txt
do
    [ $SECONDS -lt $end ] || die "30 s after the revocation the CRL does not list $serial"
    pause 0.5
done
cat crl.words

step "The broker, too, has heard of it"
end=$((SECONDS + 30))
while publish "$mac" 2>refusal; do
    [ $SECONDS -lt $end ] || die "$mac still publishes, 30 s after it was revoked"
    pause 0.5
done
alert=$(tls_alert -cert "$(folder "$mac")/device.crt" -key "$(folder "$mac")/device.key")
case $alert in
*'(44)') echo "$mac: refused: $alert; mosquitto_pub: $(cat refusal)" ;;
*) die "$mac is not served, but not for its certificate: '$alert', $(cat refusal)" ;;
esac
publish "$control" || die "$control, which is not revoked, is refused as well"
echo "$control: accepted, as before"

printf '\nPASSED: accepted before, refused after the revocation, and no one else with it.\n'
