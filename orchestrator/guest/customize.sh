#!/bin/sh
# Runs as mmdebstrap's hooks, inside its namespaces:   customize.sh WHAT TREE [ARG...]
set -eu
what=$1 tree=$2
shift 2

case $what in
prepare) # SETTINGS: files that the tool wrote for this image
    settings=$1
    printf 'MODULES=list\nCOMPRESS=zstd\nCOMPRESSLEVEL=1\n' >"$tree/etc/initramfs-tools/conf.d/orchestrator"
    cp "$settings/modules" "$tree/etc/initramfs-tools/modules"
    install -d -m 700 "$tree/root/.ssh"
    install -m 600 "$settings/authorized_keys" "$tree/root/.ssh/authorized_keys"
    rm -f "$tree"/etc/ssh/ssh_host_*
    install -m 600 "$settings/ssh_host_ed25519_key" "$tree/etc/ssh/"
    install -m 644 "$settings/ssh_host_ed25519_key.pub" "$tree/etc/ssh/"
    install -m 644 "$settings/network" "$tree/etc/systemd/network/10-guest.network"
    # Reverse look-ups would wait for a name server that is not there.
    printf 'UseDNS no\nPasswordAuthentication no\n' >"$tree/etc/ssh/sshd_config.d/guest.conf"
    echo guest >"$tree/etc/hostname"
    printf '127.0.0.1 localhost guest\n' >"$tree/etc/hosts"
    printf '/dev/vda / ext4 rw,relatime 0 0\n' >"$tree/etc/fstab"
    : >"$tree/etc/machine-id"
    # Nothing may wake up beside what a scenario starts: it would move the very memory we watch.
    for unit in redis-server.service apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer \
        e2scrub_all.timer e2scrub_reap.service fstrim.timer systemd-tmpfiles-clean.timer \
        systemd-networkd-wait-online.service systemd-networkd-persistent-storage.service; do
        ln -sf /dev/null "$tree/etc/systemd/system/$unit"
    done
    mkdir -p "$tree/etc/systemd/system/multi-user.target.wants"
    ln -sf /usr/lib/systemd/system/systemd-networkd.service "$tree/etc/systemd/system/multi-user.target.wants/"
    ;;
kernel) # NAME SUITE PACKAGE: install it and note which release the name stands for
    name=$1 suite=$2 package=$3
    before=" $(cd "$tree/boot" && echo vmlinuz-*) "
    DEBIAN_FRONTEND=noninteractive chroot "$tree" apt-get -q -y --no-install-recommends install -t "$suite" "$package"
    for file in "$tree"/boot/vmlinuz-*; do
        case "$before" in
        *" ${file##*/} "*) ;;
        *) echo "$name ${file##*/vmlinuz-}" >>"$tree/boot/kernels" ;;
        esac
    done
    ;;
finish)
    # ${...} is dpkg-query's, not the shell's
    # shellcheck disable=SC2016
    chroot "$tree" dpkg-query -W -f '${Package} ${Version}\n' >"$tree/boot/packages"
    rm -rf "$tree"/var/lib/apt/lists/* "$tree"/var/cache/apt/* "$tree"/var/log/*.log
    ;;
disk) # FILE BYTES: the tree as an ext4 file system
    # /proc and /sys are mounted on the tree while hooks run; a plain bind mount does not show them.
    # shellcheck disable=SC2016  # the inner shell expands it
    exec unshare --mount sh -euc 'mount --bind "$1" /mnt && exec mke2fs -q -t ext4 -d /mnt "$2" "$(($3 / 1024))k"' sh "$tree" "$1" "$2"
    ;;
*)
    echo "customize.sh: no hook is called $what" >&2
    exit 2
    ;;
esac
