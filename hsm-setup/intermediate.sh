#!/bin/bash
# The intermediate CA, on the machine where signetd runs: first its key and request, then, when the
# root has signed, its certificates, state folder and configuration.
set -euo pipefail
# shellcheck source=common.sh
. "$(dirname "$0")/common.sh"

help() {
    cat <<HELP
intermediate.sh [--token Signet] --subject "CN=My Device CA" --out FILE.csr         step 1
intermediate.sh --install CERT --root ROOT --crl ROOT_CRL --state DIR               step 2
intermediate.sh --crl ROOT_CRL --root ROOT --state DIR                              a newer list
intermediate.sh --ocsp-key [--config FILE]                            OCSP for an installation without

Step 1 makes token and key (or takes them, with --adopt) and a request that the key signs. Carry the
request to the root (root-ceremony.sh --sign-csr). Step 2 checks what comes back against the key in
the token, puts the certificates into the token and into the state folder, and writes a first
configuration when there is none. With that it makes a second key, by which signetd answers OCSP; with
--adopt only if --ocsp-key-label or --ocsp-key-id names one that is there.

  --subject "CN=…, O=…"   the intermediate's name
  --key-type TYPE         rsa:2048 to rsa:4096, ec:p256 (default) or ec:p384
  --out FILE              where the request goes; default intermediate.csr

  --install FILE          the certificate that the root made
  --root FILE             the root's certificate
  --crl FILE              the root's revocation list
  --state DIR             signetd's state folder
  --config FILE           its configuration; default /etc/signet/signet.conf
  --public-url URL        http://HOST[:PORT] where verifiers reach the plain HTTP port
  --listen ADDRESS:PORT   of HTTPS; default 127.0.0.1:8443
  --http-listen ADDRESS:PORT   of plain HTTP; default 127.0.0.1:8080
  --name NAME             a name or address of the server, for its certificate; may be repeated

  --ocsp-key-type TYPE    of the OCSP responder's key; default ec:p256
  --ocsp-key-label LABEL  its label; default ocsp
  --ocsp-key-id HEX       its id, where the token wants a certain one
  --ocsp-custody-exception "SHA256, REASON"   as --custody-exception, for this key
  --no-ocsp               make none

$token_help
HELP
}

subject='' key_type=ec:p256 out=intermediate.csr install='' root='' crl='' state=''
config=/etc/signet/signet.conf public_url='' listen=127.0.0.1:8443 http_listen=127.0.0.1:8080
names='' ocsp_key=0 ocsp=1 ocsp_key_type=ec:p256 ocsp_key_label='' ocsp_key_id='' ocsp_custody_exception=''
while [ $# -gt 0 ]; do
    case $1 in
    --help)
        help
        exit 0
        ;;
    --ocsp-key | --no-ocsp)
        [ "$1" = --no-ocsp ] && ocsp=0 || ocsp_key=1
        shift
        continue
        ;;
    --ocsp-key-type | --ocsp-key-label | --ocsp-key-id | --ocsp-custody-exception | --subject | --key-type | --out | --install | --root | --crl | --state | --config | \
        --public-url | --listen | --http-listen | --name)
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
    --install) install=$2 ;;
    --root) root=$2 ;;
    --crl) crl=$2 ;;
    --state) state=$2 ;;
    --config) config=$2 ;;
    --public-url) public_url=$2 ;;
    --listen) listen=$2 ;;
    --http-listen) http_listen=$2 ;;
    --name) names=${names:+$names, }$2 ;;
    --ocsp-key-type) ocsp_key_type=$2 ;;
    --ocsp-key-label) ocsp_key_label=$2 ;;
    --ocsp-key-id) ocsp_key_id=$2 ;;
    --ocsp-custody-exception) ocsp_custody_exception=$2 ;;
    esac
    shift 2
done

[ -n "$token" ] || token=Signet
[ -n "$key_label$key_id" ] || key_label=intermediate
[ $adopt = 0 ] || [ -n "$ocsp_key_label$ocsp_key_id" ] || ocsp=0
asked_label=$ocsp_key_label
[ $adopt = 1 ] || [ -n "$ocsp_key_label" ] || ocsp_key_label=ocsp

make_request() {
    [ -n "$subject" ] || misuse '--subject "CN=…" is needed'
    token_ready
    refuse_existing "$out"
    make_token_and_key "$key_type" resume
    with_key csr --subject "$subject" --out "$out"
    made "$out" "the request for the root to sign"
    closing "carry $out to the root's machine, and there root-ceremony.sh --sign-csr $(basename "$out")
      PIN file for step 2 and for signetd: ${pin_file:-none, you were asked}"
}

crl_number() {
    openssl crl -in "$1" -inform DER -noout -crlnumber | sed 's/.*=//; s/^0x//'
}

# The list is the root's, and newer than the one there (numbers are compared as hex, by length).
install_crl() {
    local to=$state/root-crl.der new old temporary
    openssl crl -in "$crl" -inform DER -noout -CAfile "$root" 2>&1 | grep -q 'verify OK' ||
        die "$crl is not a revocation list of the root $root"
    if [ -e "$to" ]; then
        cmp -s "$crl" "$to" && return 0
        new=$(crl_number "$crl") old=$(crl_number "$to")
        if [ ${#new} -lt ${#old} ] || { [ ${#new} = ${#old} ] && [[ ! $new > $old ]]; }; then
            die "$crl has number $new, the one in $state has $old; an older list is not installed"
        fi
    fi
    temporary=$(mktemp "$to.XXXXXX")
    cat "$crl" >"$temporary"
    chmod 0644 "$temporary"
    sync "$temporary"
    mv "$temporary" "$to"
    made "$to" "the root's revocation list, number $(crl_number "$to")"
}

check_chain() {
    local pem
    pem=$(mktemp)
    openssl crl -in "$crl" -inform DER -out "$pem" 2>/dev/null || die "$crl is no CRL in DER"
    openssl verify -x509_strict -crl_check -CAfile "$root" -CRLfile "$pem" "$install" >/dev/null ||
        { rm -f "$pem"; die "$install does not verify with $root and $crl"; }
    rm -f "$pem"
    openssl x509 -in "$install" -noout -ext basicConstraints | grep -q 'CA:TRUE, pathlen:0' ||
        die "$install is not an intermediate's certificate with pathlen 0"
}

# A value in OpenSSL's configuration syntax: what it would expand or cut is escaped.
conf_value() {
    printf '%s' "$1" | sed 's/[\\$#"'"'"'`]/\\&/g'
}

conf_line() {
    [ -z "$2" ] || printf '%s = %s\n' "$1" "$(conf_value "$2")"
}

# The second key of the token, made or (--adopt, or an earlier run) taken as it is. The CA's own key
# must be another: signetd looks at that.
make_ocsp_key() {
    local rc=0 key_args=() custody_exception=$ocsp_custody_exception
    [ -z "$ocsp_key_label" ] || key_args+=(--key-label "$ocsp_key_label")
    [ -z "$ocsp_key_id" ] || key_args+=(--key-id "$ocsp_key_id")
    if [ $adopt = 0 ]; then
        pin_args
        "$ceremony" generate-key "${token_args[@]}" "${pin_words[@]}" "${key_args[@]}" \
            --key-type "$ocsp_key_type" || rc=$?
        [ $rc = 0 ] || [ $rc = 3 ] || exit 1
        [ $rc = 0 ] || say "The key that is there is used."
    fi
    with_key check
}

ocsp_config() {
    conf_line ocsp_key_label "$ocsp_key_label"
    conf_line ocsp_key_id "${ocsp_key_id#0x}"
    conf_line ocsp_custody_exception "$ocsp_custody_exception"
}

# Its names, behind [token] in the file.
name_ocsp_key() {
    local temporary
    temporary=$(mktemp "$config.XXXXXX")
    chmod --reference="$config" "$temporary"
    chown --reference="$config" "$temporary"
    awk -v lines="$(ocsp_config | sed 's/\\/&&/g')" '
        { print } !done && /^[ \t]*\[[ \t]*token[ \t]*\]/ { print lines; done = 1 }' "$config" >"$temporary"
    sync "$temporary"
    mv "$temporary" "$config"
    made "$config" "names the OCSP responder's key now"
}

# For an installation that has no such key, or has lost it.
add_ocsp_key() {
    local named
    [ -e "$config" ] || die "there is no $config; say --config FILE"
    grep -Eq '^[[:space:]]*\[[[:space:]]*token[[:space:]]*\]' "$config" || die "$config has no section [token]"
    ! grep -Eq '^[[:space:]]*ocsp_key_id[[:space:]]*=' "$config" || [ $adopt = 1 ] ||
        die "$config names the key for OCSP by its id; make it with signet-ceremony generate-key"
    named=$(sed -n 's/^[[:space:]]*ocsp_key_label[[:space:]]*=[[:space:]]*//p' "$config" | tail -n 1 | sed 's/\\\(.\)/\1/g')
    [ -z "$named" ] || [ "${asked_label:-$named}" = "$named" ] ||
        die "$config names the key $named for OCSP already; take that line out to have another"
    [ -z "$named" ] || ocsp_key_label=$named
    token_ready
    make_ocsp_key
    [ -n "$named" ] || name_ocsp_key
    closing "signetd --check --config $config, then reload it (SIGHUP): certificates issued from then
      on say where to ask, and signetd issues the responder's own by itself"
}

write_config() {
    local temporary variable
    if [ -e "$config" ]; then
        say "$config is there already; it is left as it is."
        return
    fi
    [ $ocsp = 0 ] || make_ocsp_key
    if [ -z "$public_url" ] && [ -t 0 ]; then
        read -r -p "Address where verifiers reach the plain HTTP port (http://HOST:PORT, empty: none): " public_url
    fi
    mkdir -p "$(dirname "$config")"
    temporary=$(mktemp "$config.XXXXXX")
    {
        say "# signetd's configuration. docs/configuration.md has every key."
        say "[server]"
        conf_line state "$(absolute "$state")"
        conf_line listen "$listen"
        conf_line http_listen "$http_listen"
        conf_line names "$names"
        conf_line public_url "$public_url"
        say
        say "[token]"
        conf_line module "$module"
        conf_line init_args "$init_args"
        conf_line label "$token"
        conf_line key_label "$key_label"
        conf_line key_id "${key_id#0x}"
        [ -z "$pin_file" ] || conf_line pin_file "$(absolute "$pin_file")"
        conf_line custody_exception "$custody_exception"
        [ $ocsp = 0 ] || ocsp_config
        for variable in "${env_list[@]}"; do
            conf_line "env.${variable%%=*}" "${variable#*=}"
        done
    } >"$temporary"
    install_file "$temporary" "$config" "signetd's configuration" 0644
    rm -f "$temporary"
}

install_certificates() {
    local chain
    [ -n "$root" ] && [ -n "$crl" ] && [ -n "$state" ] ||
        misuse "--install needs --root, --crl and --state"
    token_ready
    check_chain
    with_key check --certificate "$install"
    # PIN and key for the certificates' place in the token, without a waiver: they are public
    pin_args
    "$ceremony" put-certificate "${token_args[@]}" "${pin_words[@]}" "${key_args[@]}" \
        --certificate "$install"
    "$ceremony" put-certificate "${token_args[@]}" "${pin_words[@]}" --label "$token root" \
        --certificate "$root"
    [ -d "$state" ] || mkdir -p -m 0700 "$state"
    chain=$(mktemp)
    { openssl x509 -in "$install"; openssl x509 -in "$root"; } >"$chain"
    install_file "$install" "$state/intermediate.pem" "the intermediate's certificate" 0644
    install_file "$chain" "$state/ca-chain.pem" "intermediate and root, for clients" 0644
    rm -f "$chain"
    install_crl
    write_config
    closing "signetd --check --config $config, then start it:
      signetd --config $config"
}

if [ $ocsp_key = 1 ]; then
    [ -n "$ocsp_key_label$ocsp_key_id" ] || misuse "--adopt needs --ocsp-key-label or --ocsp-key-id"
    add_ocsp_key
elif [ -n "$install" ]; then
    install_certificates
elif [ -n "$crl" ]; then
    [ -n "$root" ] && [ -n "$state" ] || misuse "--crl needs --root and --state"
    install_crl
    closing "nothing more: signetd serves the new list within a minute"
else
    make_request
fi
