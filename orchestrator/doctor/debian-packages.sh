#!/bin/sh
# The Debian packages that this project runs, builds and is checked with, and how they are installed.
#
# ./bootstrap sources it; `orchestrator doctor` calls it, also where the program was installed from a wheel:
#   debian-packages.sh missing              the packages that runs need and that are not there, one a line
#   debian-packages.sh install [--dry-run]  install them as root, or print the commands
#
# shellcheck shell=sh
# shellcheck disable=SC2016  # $(...) in single quotes is a format of apt-get and dpkg-query
# shellcheck disable=SC2086  # lists of package names are meant to be split

# QEMU 7.2 (bookworm) emulates nested SVM wrongly and lacks the virtio-mem fixes; 8.2 is the floor.
qemu_minimum=8.2

# What runs need. Those in $newer must come from one suite, together.
packages='gcc libc6-dev mmdebstrap e2fsprogs zstd openssh-client ca-certificates debian-archive-keyring'
# (libvirt-daemon-common has no daemon, but the program by which libvirt writes a guest's memory to a file.
# libvirt-dev is what libvirt's Python module is built with.)
newer='qemu-system-x86 qemu-utils libvirt-daemon-driver-qemu libvirt-daemon-common libvirt-clients libvirt-dev
    passt'

# What a clone needs beyond that, for its Python environment.
# shellcheck disable=SC2034  # ./bootstrap takes it
for_clone='python3 python3-venv python3-dev pkg-config git'

# What the checks need beyond that: a browser that opens the reports, what tells which calls a program makes, and
# the plugins and libraries of Slurm, whose programs ./bootstrap unpacks.
# shellcheck disable=SC2034  # ./bootstrap takes it
for_checks='chromium-headless-shell strace slurm-wlm-basic-plugins'

dry_run=

find_missing() { # sets missing, missing_packages and missing_newer
    have=" $(installed $packages $newer | tr '\n' ' ') "
    missing_packages=$(lacking $packages)
    missing_newer=$(lacking $newer)
    [ -n "$missing_newer" ] || ! qemu_too_old || missing_newer=" $newer"
    missing=$missing_packages$missing_newer
}

installed() { # installed PACKAGE... : the names among them that dpkg has configured
    dpkg-query -W -f '${db:Status-Status} ${Package}\n' "$@" 2>/dev/null | sed -n 's/^installed //p'
}

lacking() { # lacking PACKAGE... : the names among them that $have has not
    for package; do
        case $have in *" $package "*) ;; *) printf ' %s' "$package" ;; esac
    done
}

new_enough() { # new_enough VERSION : of qemu-system-x86
    dpkg --compare-versions "${1#*:}" ge "$qemu_minimum"
}

qemu_too_old() {
    version=$(dpkg-query -W -f '${Version}' qemu-system-x86 2>/dev/null) && ! new_enough "$version"
}

apt_get() {
    if [ -n "$dry_run" ]; then
        echo "apt-get $*"
        return
    fi
    DEBIAN_FRONTEND=noninteractive apt-get -q "$@" >&2 ||
        die "apt-get failed, see above; run this again when it is mended"
}

# Recommends would pull in and start a libvirt daemon; the embedded driver needs none.
apt_install() { apt_get -y install --no-install-recommends "$@"; }

# What apt takes of its own accord on a machine that has none. The installed one would hide that.
release_qemu() {
    apt-cache -o Dir::State::status=/dev/null policy qemu-system-x86 2>/dev/null | sed -n 's/^  Candidate: //p'
}

# The suite's backports, from whatever mirror this machine already takes Debian from: the main
# archive, as neither security nor another vendor's repository has them.
enable_backports() {
    mirror=$(apt-get indextargets --format '$(REPO_URI)|$(LABEL)|$(CODENAME)' \
        'Identifier: Packages' 'Origin: Debian' | sed -n "s/|Debian|$codename\$//p" | head -n 1)
    [ -n "$mirror" ] || die "apt knows no mirror for $codename: add one to /etc/apt/sources.list.d and run this again"
    source=/etc/apt/sources.list.d/orchestrator-backports.sources
    if [ -n "$dry_run" ]; then
        echo "# $source would be written: $codename-backports from $mirror"
        return
    fi
    say "adding the apt source $codename-backports (QEMU $qemu_minimum or later is there)"
    printf '%s\n' 'Types: deb' "URIs: $mirror" "Suites: $codename-backports" 'Components: main' \
        'Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg' >"$source"
}

install_packages() {
    [ -n "$dry_run" ] || say "installing Debian packages:$missing"
    apt_get update
    [ -z "$missing_packages" ] || apt_install $missing_packages
    [ -n "$missing_newer" ] || return 0
    suite=
    candidate=$(release_qemu)
    if [ -n "$dry_run" ] && [ -z "$candidate" ]; then
        echo "# apt has no package lists yet; after the update, from backports if the release's QEMU is too old:"
    elif ! new_enough "$candidate"; then
        codename=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
        # A suite that is named already in the machine's configuration is not added twice.
        apt-get indextargets --format '$(CODENAME)' 'Identifier: Packages' |
            grep -qx "$codename-backports" || { enable_backports; apt_get update; }
        suite=$codename-backports
    fi
    # All of them, so that none stays behind in another suite; and nothing else comes from there.
    apt_install ${suite:+-t "$suite"} $newer
    [ -n "$dry_run" ] || ! qemu_too_old || die "no QEMU $qemu_minimum or later for this Debian release"
}

called() { # called WORD... : what this file does as a program
    say() { printf 'orchestrator: %s\n' "$*" >&2; }
    die() { say "$*"; exit 3; }
    find_missing
    case "$*" in
    missing) for package in $missing; do echo "$package"; done ;;
    install | 'install --dry-run')
        dry_run=${2-}
        [ -z "$missing" ] || install_packages
        ;;
    *) die "usage: ${0##*/} missing | install [--dry-run]" ;;
    esac
}

case ${0##*/} in debian-packages.sh) set -eu; called "$@" ;; esac
