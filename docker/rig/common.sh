# shellcheck shell=bash
# What the rig's scripts share. Sourced, never run.
#
# Each script is the first process of its container, where a signal without a handler is lost; and
# bash runs a handler only between commands, hence the sleep in the background.

trap 'exit 0' TERM INT

pause() {
    sleep "$1" &
    wait $!
}

die() {
    printf 'FAILED: %s\n' "$*" >&2
    exit 1
}

# The file appears within a minute, or what says why not.
wait_for() {
    local file=$1 what=$2 end=$((SECONDS + 60))
    until [ -e "$file" ]; do
        [ $SECONDS -lt $end ] || die "$file did not come in 60 s; $what"
        pause 0.2
    done
}

# A copy that is there whole or not at all.
carry() {
    cp "$1" "$2.part"
    mv "$2.part" "$2"
}
