"""As root: what nothing here needs is given up before anything is read (docs/security.md)."""

from __future__ import annotations

import ctypes
import os
import sys
from typing import Final

_PR_CAPBSET_READ: Final = 23  # include/uapi/linux/prctl.h
_PR_CAPBSET_DROP: Final = 24

NOT_NEEDED: Final = {  # include/uapi/linux/capability.h
    "linux_immutable": 9,
    "net_broadcast": 11,
    "net_raw": 13,
    "ipc_owner": 15,
    "sys_module": 16,
    "sys_rawio": 17,
    "sys_pacct": 20,
    "sys_boot": 22,
    "sys_time": 25,
    "sys_tty_config": 26,
    "lease": 28,
    "mac_override": 32,
    "mac_admin": 33,
    "wake_alarm": 35,
    "block_suspend": 36,
    "audit_read": 37,
    "bpf": 39,
    "checkpoint_restore": 40,
}
# It installs packages, whose scripts may load a module.
_KEEPS_ALL: Final = "doctor"


def give_up_privileges() -> None:
    """Start this program anew without the capabilities of NOT_NEEDED, if it has any of them.

    execve(2) takes from root what is not in the bounding set (capabilities(7)), in all threads, and what is
    started later goes without, too. Where the bounding set must not be changed, everything stays as it is.
    """
    if os.geteuid() != 0 or sys.argv[1:2] == [_KEEPS_ALL]:
        return
    prctl = ctypes.CDLL(None).prctl
    # Those that a kernel does not know are in no set.
    held = [number for number in NOT_NEEDED.values() if prctl(_PR_CAPBSET_READ, number, 0, 0, 0) == 1]
    if held and all(prctl(_PR_CAPBSET_DROP, number, 0, 0, 0) == 0 for number in held):
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606  # this program itself
