#!/bin/sh
# RAUC's custom boot loader backend: which slot GRUB starts. The variables are explained in boot/grub.cfg.
# usage: boot-slot get-primary | set-primary SLOT | get-state SLOT | set-state SLOT good|bad
#        HEADWATER_GRUBENV names another file, for tests.
set -eu
env=${HEADWATER_GRUBENV:-/boot/efi/headwater/grubenv}
tries=2

usage() { sed -n 's/^# usage: /usage: /p' "$0" >&2; exit 2; }
slot() { case "${1:-}" in A | B) ;; *) usage ;; esac }
value() { grub-editenv "$env" list | sed -n "s/^$1=//p"; }
# All of it or nothing, whenever the power fails: a new file takes the old one's name when it is on the disk.
change() {
    cp "$env" "$env.new"
    grub-editenv "$env.new" set "$@"
    sync "$env.new"
    mv "$env.new" "$env"
    sync -f "$env"
}
# As GRUB sees it.
startable() {
    [ "$(value "$1_OK")" = 1 ] || return 1
    [ "$(value confirmed)" = "$1" ] || [ "$(value "$1_TRY")" -lt "$tries" ]
}

case "${1:-}" in
    get-primary)
        for one in $(value ORDER); do
            if startable "$one"; then echo "$one"; exit 0; fi
        done
        value confirmed
        ;;
    set-primary)
        slot "${2:-}"
        if [ "$2" = A ]; then order="A B"; else order="B A"; fi
        change "ORDER=$order" "$2_OK=1" "$2_TRY=0"
        ;;
    get-state)
        slot "${2:-}"
        if startable "$2"; then echo good; else echo bad; fi
        ;;
    set-state)
        slot "${2:-}"
        case "${3:-}" in
            good)
                # It may be said at every start; flash is written once.
                if [ "$(value confirmed):$(value "$2_OK"):$(value "$2_TRY")" != "$2:1:0" ]; then
                    change "$2_OK=1" "$2_TRY=0" "confirmed=$2"
                fi
                ;;
            bad)
                # What is about to be overwritten has proved nothing.
                confirmed=$(value confirmed)
                [ "$confirmed" != "$2" ] || confirmed=""
                change "$2_OK=0" "confirmed=$confirmed"
                ;;
            *) usage ;;
        esac
        ;;
    *) usage ;;
esac
