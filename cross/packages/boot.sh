#!/bin/sh
# Boots systemd in a throw-away copy of a root, in namespaces of its own: processes, mounts, network (loopback only).
# Runs until it is ended, and everything in it ends with it; the root and this machine are as before. Needs root.
# usage: boot.sh ROOT SHARED
#   SHARED is a folder that is /shared inside; its file init.pid tells whom to enter with nsenter --all.
set -eu
root=$(readlink -f "$1") shared=$(readlink -f "$2")
export root shared

# Inside: puts the system together and becomes its first process.
# shellcheck disable=SC2016  # expanded there
inside='
    # Of the process as the caller sees it: this /proc is still theirs.
    cut -d " " -f 4 /proc/self/stat >"$shared/init.pid.new"
    # In memory: the upper folder of an overlay cannot be on an overlay, which many build machines are.
    mount -t tmpfs -o mode=755 tmpfs /mnt
    mkdir /mnt/upper /mnt/work /mnt/system
    mount -t overlay -o "lowerdir=$root,upperdir=/mnt/upper,workdir=/mnt/work" overlay /mnt/system
    cd /mnt/system
    mkdir -p shared
    mount --bind "$shared" shared
    mount -t proc proc proc
    mount -t sysfs -o ro sysfs sys
    mount -t cgroup2 cgroup2 sys/fs/cgroup
    mount -t tmpfs -o mode=755 tmpfs dev
    for name in null zero full random urandom tty; do
        touch "dev/$name"
        mount --bind "/dev/$name" "dev/$name"
    done
    mkdir dev/pts dev/shm
    mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts dev/pts
    ln -s pts/ptmx dev/ptmx
    ln -s /proc/self/fd dev/fd
    for part in 0:stdin 1:stdout 2:stderr; do ln -s "/proc/self/fd/${part%%:*}" "dev/${part#*:}"; done
    mount -t tmpfs -o mode=755 tmpfs run
    mount -t tmpfs -o mode=1777 tmpfs tmp
    mkdir -p run/old
    pivot_root . run/old
    umount -l /run/old
    rmdir /run/old
    mv /shared/init.pid.new /shared/init.pid
    exec env -i container=headwater PATH=/usr/sbin:/usr/bin:/sbin:/bin \
        /lib/systemd/systemd --system --log-target=console --show-status=no
'
export inside

# Outside: a control group of its own, so that nothing of it stays behind.
# shellcheck disable=SC2016
exec unshare --mount --propagation private sh -euc '
    mount -t cgroup2 cgroup2 /mnt
    group=/mnt/headwater-$$
    mkdir "$group"
    end() {
        trap "" TERM INT
        echo 1 >"$group/cgroup.kill"
        tries=100
        until find "$group" -depth -type d -exec rmdir {} + 2>/dev/null || [ $((tries -= 1)) = 0 ]; do sleep 0.05; done
    }
    trap end EXIT
    trap "exit 0" TERM INT
    # Ends with this shell, however this one ends.
    setpriv --pdeathsig KILL sh -euc "
        echo \$\$ >$group/cgroup.procs
        exec unshare --mount --pid --net --uts --ipc --cgroup --fork --kill-child --propagation private sh -euc \"\$inside\"
    " &
    wait $!
'
