# shellcheck shell=bash
# What the scripts of hsm-setup share. Sourced, never run.
#
# The token is named by the same options everywhere; they are kept in the array `token_args`, which
# goes to signet-ceremony as it is. PINs only ever go from file to program.

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
me=$(basename "$0")
bin='' module='' token='' pin_file='' so_pin_file='' init_args='' slot=''
key_label='' key_id='' custody_exception='' softhsm='' adopt=0
token_args=() key_args=() env_list=()

token_help="The token
  --module FILE        the PKCS#11 module (.so) of the token's maker
  --token LABEL        the token's label
  --pin-file FILE      the PIN, in a file of mode 0600
  --so-pin-file FILE   the SO PIN, likewise (only to make a token)
  --key-label LABEL    the key's label
  --key-id HEX         the key's id, where the token wants a certain one
  --init-args TEXT     what the module wants when it is initialized
  --env NAME=VALUE     what the module wants in its environment; may be repeated. Never a PIN
  --slot N             the slot to initialize; else the first blank one
  --adopt              use a token and key that exist; make neither
  --custody-exception \"SHA256, REASON\"   accept a key that the token does not fully guard
  --softhsm DIR        use SoftHSM with its tokens in DIR; no --module needed
  --bin DIR            where signet-ceremony is; else \$SIGNET_BUILD/bin, ../build/bin, libexec, PATH"

die() {
    printf '%s: %s\n' "$me" "$*" >&2
    exit 1
}

misuse() {
    printf '%s: %s; see %s --help\n' "$me" "$*" "$me" >&2
    exit 2
}

say() {
    printf '%s\n' "$*"
}

# The variable is set for the tool now, and written into signetd's configuration later.
add_env() {
    [[ $1 =~ ^[A-Za-z_][A-Za-z0-9_]*=. ]] || misuse "--env $1 is not NAME=VALUE"
    export "${1?}"
    env_list+=("$1")
}

# Takes one option of the token out of "$@"; fails when it is none of these. used: how many words.
token_option() {
    used=2
    case $1 in
    --adopt)
        adopt=1 used=1
        return 0
        ;;
    --module | --token | --pin-file | --so-pin-file | --key-label | --key-id | --init-args | \
        --env | --slot | --custody-exception | --softhsm | --bin) ;;
    *) return 1 ;;
    esac
    [ $# -ge 2 ] && [ -n "$2" ] || misuse "$1 needs a value"
    case $1 in
    --module) module=$2 ;;
    --token) token=$2 ;;
    --pin-file) pin_file=$2 ;;
    --so-pin-file) so_pin_file=$2 ;;
    --key-label) key_label=$2 ;;
    --key-id) key_id=$2 ;;
    --init-args) init_args=$2 ;;
    --env) add_env "$2" ;;
    --slot) slot=$2 ;;
    --custody-exception) custody_exception=$2 ;;
    --softhsm) softhsm=$2 ;;
    --bin) bin=$2 ;;
    esac
}

find_ceremony() {
    local dir
    for dir in "$bin" "${SIGNET_BUILD:+$SIGNET_BUILD/bin}" "$here/../build/bin" \
        "$here/../../../libexec/signet" /usr/libexec/signet /usr/local/libexec/signet; do
        if [ -n "$dir" ] && [ -x "$dir/signet-ceremony" ]; then
            ceremony=$dir/signet-ceremony
            return
        fi
        [ -z "$bin" ] || die "there is no signet-ceremony in $bin"
    done
    ceremony=$(command -v signet-ceremony) ||
        die "signet-ceremony is not found; build Signet first, or say --bin DIR"
}

absolute() {
    case $1 in
    /*) printf '%s\n' "$1" ;;
    *) printf '%s/%s\n' "$PWD" "$1" ;;
    esac
}

# SoftHSM keeps its tokens in files; here in a folder of their own.
use_softhsm() {
    local candidate
    softhsm=$(absolute "$softhsm")
    if [ -z "$module" ]; then
        for candidate in /usr/lib/softhsm/libsofthsm2.so /usr/lib/*/softhsm/libsofthsm2.so \
            /usr/lib64/softhsm/libsofthsm2.so /usr/lib64/pkcs11/libsofthsm2.so; do
            [ -z "$module" ] && [ -e "$candidate" ] && module=$candidate
        done
        [ -n "$module" ] || die "SoftHSM is not installed (Debian: apt install softhsm2)"
    fi
    mkdir -p -m 0700 "$softhsm" "$softhsm/tokens"
    add_env "SOFTHSM2_CONF=$softhsm/softhsm2.conf"
    [ -e "$SOFTHSM2_CONF" ] || cat >"$SOFTHSM2_CONF" <<CONF
directories.tokendir = $softhsm/tokens
objectstore.backend = file
log.level = ERROR
library.reset_on_fork = true
CONF
}

# After the options: checks them and fills token_args and key_args.
token_ready() {
    find_ceremony
    [ -z "$softhsm" ] || use_softhsm
    [ -n "$module" ] || misuse "--module is needed"
    [ -n "$token" ] || misuse "--token is needed"
    [ -e "$module" ] || die "there is no module $module"
    token_args=(--module "$module" --token "$token")
    [ -z "$init_args" ] || token_args+=(--init-args "$init_args")
    if [ -n "$key_label" ]; then
        key_args+=(--key-label "$key_label")
    fi
    if [ -n "$key_id" ]; then
        key_args+=(--key-id "$key_id")
    fi
    [ ${#key_args[@]} -gt 0 ] || misuse "--key-label (or --key-id) is needed"
}

# The words that say where the PIN is; without a file the tool asks for it.
pin_args() {
    if [ -n "$pin_file" ]; then
        pin_words=(--pin-file "$pin_file")
    else
        pin_words=()
    fi
}

# Runs the tool with token, PIN and key: sign COMMAND [options].
with_key() {
    local command=$1
    shift
    local more=()
    pin_args
    [ -z "$custody_exception" ] || more=(--custody-exception "$custody_exception")
    "$ceremony" "$command" "${token_args[@]}" "${pin_words[@]}" "${key_args[@]}" "${more[@]}" "$@"
}

token_exists() {
    "$ceremony" show "${token_args[@]}" --json >/dev/null 2>&1
}

# A PIN of 15 letters and digits (89 bits); an SO PIN of 16 hex digits, as smart cards want them.
# The file comes to be with mode 0600 before anything is in it, and an existing one is kept.
make_pin_file() {
    local file=$1 kind=$2
    [ ! -e "$file" ] || return 0
    (
        umask 077
        set -o noclobber
        if [ "$kind" = so ]; then
            openssl rand -hex 8 >"$file"
        else
            openssl rand -base64 48 | tr -dc 'A-Za-z0-9' | cut -c1-15 >"$file"
        fi
    ) || die "cannot make $file"
    made "$file" "the $([ "$kind" = so ] && echo 'SO PIN' || echo PIN) of token \"$token\""
}

# The token, made unless it is there.
make_token() {
    local name at=()
    if token_exists; then
        say "There is a token \"$token\" already; it is left as it is."
        return
    fi
    name=$(printf '%s' "$token" | tr -c 'A-Za-z0-9._-' '-')
    [ -n "$pin_file" ] || pin_file=$name.pin
    [ -n "$so_pin_file" ] || so_pin_file=$name.so-pin
    make_pin_file "$pin_file" user
    make_pin_file "$so_pin_file" so
    [ -z "$slot" ] || at=(--slot "$slot")
    "$ceremony" init-token "${token_args[@]}" --pin-file "$pin_file" \
        --so-pin-file "$so_pin_file" "${at[@]}"
}

# Token and key, made or taken as they are. Exit code 3 of the tool: it is there already. Whoever
# calls with "resume" has seen that what it wants to make of the key is still missing, so that an
# earlier run was cut short after the key.
make_token_and_key() {
    local key_type=$1 resume=${2:-} rc=0
    if [ $adopt = 1 ]; then
        with_key check
        return
    fi
    [ -n "$key_label" ] || misuse "--key-label is needed to make a key"
    make_token
    pin_args
    "$ceremony" generate-key "${token_args[@]}" "${pin_words[@]}" "${key_args[@]}" \
        --key-type "$key_type" || rc=$?
    if [ $rc = 3 ] && [ -n "$resume" ]; then
        say "The key that is there is used."
    elif [ $rc != 0 ]; then
        exit 1
    fi
}

made_list=()
made() {
    made_list+=("$(printf '  %-40s %s' "$1" "$2")")
}

# The closing words: what was made, and what comes next.
closing() {
    if [ ${#made_list[@]} -gt 0 ]; then
        printf '\nMade:\n'
        printf '%s\n' "${made_list[@]}"
    fi
    printf '\nNext: %s\n' "$1"
}

refuse_existing() {
    [ ! -e "$1" ] || die "$1 exists already; it is not overwritten"
}

# Copies a file into place. The same bytes there already are well; others are not overwritten.
install_file() {
    local from=$1 to=$2 what=$3 mode=$4 temporary
    if [ -e "$to" ]; then
        cmp -s "$from" "$to" || die "$to exists already and differs; it is not overwritten"
        return 0
    fi
    temporary=$(mktemp "$to.XXXXXX")
    cat "$from" >"$temporary"
    chmod "$mode" "$temporary"
    sync "$temporary"
    ln "$temporary" "$to" || { # unlike mv, ln never replaces
        rm -f "$temporary"
        die "cannot make $to"
    }
    rm -f "$temporary"
    made "$to" "$what"
}
