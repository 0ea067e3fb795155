"""Few privileges for what is started as root.

The capability bounding set and no_new_privs are a thread's, which its children inherit (capabilities(7),
prctl(2)): so a thread can give up what its children must not have, while this process keeps what reading
/proc/PID/pagemap needs.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Final

# include/uapi/linux/prctl.h, include/uapi/linux/capability.h
_PR_CAPBSET_DROP: Final = 24
_PR_SET_NO_NEW_PRIVS: Final = 38
DAC_OVERRIDE: Final = 1
DAC_READ_SEARCH: Final = 2
SETGID: Final = 6
SETUID: Final = 7


def confine_children(keep: Iterable[int] = (), *, no_new_privileges: bool = False) -> None:
    """What this thread starts from now on can have no capability but those to keep. For good.

    It keeps its own. An ordinary user's children have none, and the call leaves them so. The main thread,
    which starts what needs more, is left as it is. Raises OSError.
    """
    if threading.current_thread() is threading.main_thread():
        return
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    if no_new_privileges and prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "PR_SET_NO_NEW_PRIVS")
    if os.geteuid() != 0:
        return
    kept = frozenset(keep)
    for number in range(int(Path("/proc/sys/kernel/cap_last_cap").read_text()) + 1):
        if number not in kept and prctl(_PR_CAPBSET_DROP, number, 0, 0, 0):
            raise OSError(ctypes.get_errno(), f"PR_CAPBSET_DROP {number}")
