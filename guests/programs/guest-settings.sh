#!/bin/sh
# guest-settings NAME=VALUE...: what is set in a guest that stands already, by the names that a scenario
# has for it under `setup` (a key of a mapping after a dot); `clock`, in seconds since 1970; and
# `connection=spared`, by the OOM killer.
# Takes one ssh command, where a task of ansible takes 5 to 7 s under software emulation.
set -eu
auto_online=/sys/devices/system/memory/auto_online_blocks
hotplug=/sys/module/memory_hotplug/parameters
thp=/sys/kernel/mm/transparent_hugepage/enabled
redis=/etc/redis/workload.conf

put() { # VALUE FILE
    printf '%s\n' "$1" >"$2"
}

# The OOM killer is to take what a scenario runs, not the connection that watches it. What is started over it
# inherits that: workloads are given a value of their own (WorkloadDriver.oom_score_adj).
spare_connection() {
    pid=$PPID
    while [ "$pid" -gt 1 ]; do
        put -1000 "/proc/$pid/oom_score_adj"
        pid=$(sed -n 's/^PPid:[[:space:]]*//p' "/proc/$pid/status")
    done
}

# A guest definition need not have Redis.
if [ -d "${redis%/*}" ]; then
    printf '%s\n' 'bind 127.0.0.1' 'port 6379' 'daemonize yes' 'dir /var/lib/redis' 'save ""' 'appendonly no' >"$redis"
fi

policy='' ratio='' swap='' swap_size=''
for word in "$@"; do
    value=${word#*=}
    case $word in
    connection=spared) spare_connection ;;
    clock=*) date -u -s "@$value" >/dev/null ;;
    online_policy=*) policy=$value ;;
    auto_movable_ratio=*) ratio=$value ;;
    thp=image) ;;
    thp=*) put "$value" "$thp" ;;
    swap=*) swap=$value ;;
    swap_size=*) swap_size=$value ;;
    sysctl.*=*) sysctl -q -w -- "${word#sysctl.}" ;;
    redis_config.*=*)
        if [ ! -e "$redis" ]; then
            echo "guest-settings: redis_config is set, and this guest has no Redis" >&2
            exit 2
        fi
        name=${word%%=*}
        printf '%s %s\n' "${name#redis_config.}" "$value" >>"$redis"
        ;;
    *)
        echo "guest-settings: what is $word?" >&2
        exit 2
        ;;
    esac
done

case $swap in
'' | none) ;;
disk)
    device=/var/swap
    fallocate -l "$swap_size" "$device"
    chmod 600 "$device"
    ;;
zram)
    # zramctl(8) would reset the device first, which udev has open at that moment: EBUSY.
    modprobe zram
    put "$swap_size" /sys/block/zram0/disksize
    device=/dev/zram0
    ;;
*)
    echo "guest-settings: what is swap=$swap?" >&2
    exit 2
    ;;
esac
if [ "${device-}" ]; then
    mkswap "$device" >/dev/null
    swapon "$device"
fi

if [ "$policy" = auto-movable ]; then
    for name in auto_movable_ratio online_policy; do
        test -e "$hotplug/$name" || {
            echo "the guest's kernel has no memory_hotplug.$name: online_policy auto-movable needs it" >&2
            exit 1
        }
    done
    put "$ratio" "$hotplug/auto_movable_ratio"
    put auto-movable "$hotplug/online_policy"
    put online "$auto_online"
elif [ "$policy" ]; then
    # the kernel's command line may have set another
    if grep -qsvx contig-zones "$hotplug/online_policy"; then
        put contig-zones "$hotplug/online_policy"
    fi
    put "$policy" "$auto_online"
fi
