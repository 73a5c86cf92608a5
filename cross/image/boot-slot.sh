#!/bin/sh
# RAUC's custom boot loader backend: which slot GRUB starts. The variables are explained in boot/grub.cfg.
# usage: boot-slot get-primary | set-primary SLOT | get-state SLOT | set-state SLOT good|bad
#        HEADWATER_GRUBENV names another file, for tests.
set -eu
env=${HEADWATER_GRUBENV:-/boot/efi/headwater/grubenv}
tries=2

usage() { sed -n 's/^# usage: /usage: /p' "$0" >&2; exit 2; }
slot() { case "${1:-}" in A | B) ;; *) usage ;; esac }
# One look at the file: emulated or on a small board each program that is started counts.
ORDER="" A_OK=0 A_TRY=0 B_OK=0 B_TRY=0 confirmed=""
while IFS='=' read -r name value; do
    case "$name" in
        ORDER) ORDER=$value ;;
        A_OK) A_OK=$value ;;
        A_TRY) A_TRY=$value ;;
        B_OK) B_OK=$value ;;
        B_TRY) B_TRY=$value ;;
        confirmed) confirmed=$value ;;
    esac
done <<LIST
$(grub-editenv "$env" list)
LIST
ok() { if [ "$1" = A ]; then [ "$A_OK" = 1 ]; else [ "$B_OK" = 1 ]; fi; }
starts() { if [ "$1" = A ]; then echo "$A_TRY"; else echo "$B_TRY"; fi; }
# All of it or nothing, whenever the power fails: a new file takes the old one's name when it is on the disk.
change() {
    cp "$env" "$env.new"
    grub-editenv "$env.new" set "$@"
    sync "$env.new"
    mv "$env.new" "$env"
    sync -f "$env"
}
# As GRUB sees it.
startable() { ok "$1" && { [ "$confirmed" = "$1" ] || [ "$(starts "$1")" -lt "$tries" ]; }; }

case "${1:-}" in
    get-primary)
        for one in $ORDER; do
            if startable "$one"; then echo "$one"; exit 0; fi
        done
        echo "$confirmed"
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
                if [ "$confirmed" != "$2" ] || ! ok "$2" || [ "$(starts "$2")" != 0 ]; then
                    change "$2_OK=1" "$2_TRY=0" "confirmed=$2"
                fi
                ;;
            bad)
                # What is about to be overwritten has proved nothing.
                [ "$confirmed" != "$2" ] || confirmed=""
                change "$2_OK=0" "confirmed=$confirmed"
                ;;
            *) usage ;;
        esac
        ;;
    *) usage ;;
esac
