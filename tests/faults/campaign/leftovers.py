"""What is on this machine of a run: looked at before and after a fault, it tells what was left.

Kinds: `process`, `socket`, `mount`, `namespace`, `folder` (temporary and runtime ones), `half file` (of the
cache and of results), `setting` (of the host).

A daemon that a run starts is an orphan once the run is gone, and whoever plays a fault is the parent of its
orphans (`adopt`): so a process that was left is found whatever it is called, and whatever session it has.
"""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from orchestrator.guest.image import unfinished_builds
from orchestrator.guest.states import unfinished_states

_PR_SET_CHILD_SUBREAPER = 36  # include/uapi/linux/prctl.h
_REAP_SECONDS = 0.1
# What runs of ours change, or could: pages and tables of the host, and what passt and libvirt may touch.
SETTINGS = (
    "/sys/kernel/mm/transparent_hugepage/enabled",
    "/sys/kernel/mm/transparent_hugepage/defrag",
    "/sys/kernel/mm/transparent_hugepage/khugepaged/defrag",
    "/sys/kernel/mm/ksm/run",
    "/sys/module/kvm/parameters/nx_huge_pages",
    "/sys/module/kvm/parameters/ignore_msrs",
    "/sys/devices/system/memory/auto_online_blocks",
    "/proc/sys/vm/overcommit_memory",
    "/proc/sys/vm/overcommit_ratio",
    "/proc/sys/vm/nr_hugepages",
    "/proc/sys/vm/swappiness",
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/net/ipv4/ip_forward",
    "/proc/net/route",
)
# How files and folders are called until they are whole, beside images and states that are being made.
_HALF = (".*.new", ".*.unit", ".seal.json.*")


@dataclass(frozen=True, order=True)
class Trace:
    """One thing that is there."""

    kind: str
    what: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.what}"


@dataclass(frozen=True)
class Places:
    """Where runs put what they need while they run; `empty` are folders that nothing may stay in."""

    empty: tuple[Path, ...]
    cache: Path
    results: Path
    mountinfo: Path = Path("/proc/self/mountinfo")
    unix: Path = Path("/proc/net/unix")
    settings: tuple[str, ...] = SETTINGS

    @property
    def ours(self) -> tuple[Path, ...]:
        """All folders in which a mount or a socket is of a run."""
        return (*self.empty, self.cache, self.results)


def adopt(spared: Collection[int]) -> None:
    """Become the parent of whatever a run leaves behind, and reap what of it ends but for `spared`."""
    if ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError("prctl(PR_SET_CHILD_SUBREAPER)")
    threading.Thread(target=_reap_for_ever, args=(spared,), daemon=True).start()


def _reap_for_ever(spared: Collection[int]) -> None:
    """A zombie is a process for who looks by its pid alone, as `clean` does.

    What subprocess started here and waits for has the session of this process, or is spared.
    """
    while True:
        time.sleep(_REAP_SECONDS)
        with suppress(ChildProcessError):
            if not os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                continue
            for child in psutil.Process().children():
                with suppress(ChildProcessError, ProcessLookupError, psutil.NoSuchProcess):
                    orphan = child.pid not in spared and os.getsid(child.pid) != os.getsid(0)
                    if orphan and child.status() == psutil.STATUS_ZOMBIE:
                        os.waitpid(child.pid, os.WNOHANG)


def look(places: Places) -> set[Trace]:
    """All that is there now."""
    return {
        *_processes(),
        *_sockets(places),
        *_mounts(places),
        *_folders(places),
        *_half_files(places),
        *_settings(places),
    }


def left(before: set[Trace], after: set[Trace]) -> list[Trace]:
    """What is there that was not; a setting that changed is there with its new value."""
    return sorted(after - before)


def descendants() -> list[psutil.Process]:
    """All that was started here, and is no zombie."""
    return [one for one in psutil.Process().children(recursive=True) if _runs(one)]


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _processes() -> Iterator[Trace]:
    own = _namespaces(os.getpid())
    for process in descendants():
        with suppress(psutil.NoSuchProcess):
            yield Trace("process", f"{process.pid} {' '.join(process.cmdline())[:120] or process.name()}")
            for connection in process.net_connections(kind="inet"):
                if connection.status == psutil.CONN_LISTEN:
                    yield Trace("socket", f"{connection.laddr.ip}:{connection.laddr.port} of {process.pid}")
            for kind in _namespaces(process.pid) - own:
                yield Trace("namespace", f"{kind} of {process.pid}")


def _namespaces(pid: int) -> set[str]:
    found = set()
    for kind in ("mnt", "net", "pid", "user", "ipc", "uts", "cgroup", "time"):
        with suppress(OSError):
            found.add(str(Path(f"/proc/{pid}/ns/{kind}").readlink()))
    return found


def _sockets(places: Places) -> Iterator[Trace]:
    for line in places.unix.read_text().splitlines()[1:]:
        name = line.split(maxsplit=7)[7:]
        if name and _is_in(name[0], places.ours):
            yield Trace("socket", name[0])


def _mounts(places: Places) -> Iterator[Trace]:
    for line in places.mountinfo.read_text().splitlines():
        # Documentation/filesystems/proc.rst, 3.5: the fifth field is the place, the one after " - " the type.
        fields, _, rest = line.partition(" - ")
        place = fields.split()[4].encode().decode("unicode_escape")
        if _is_in(place, places.ours):  # what others mount meanwhile is theirs
            yield Trace("namespace" if rest.startswith("nsfs") else "mount", place)


def _folders(places: Places) -> Iterator[Trace]:
    for folder in places.empty:
        for path in folder.iterdir() if folder.is_dir() else ():
            yield Trace("folder", str(path))


def _half_files(places: Places) -> Iterator[Trace]:
    # Another run may use the same cache. While it makes an image or saves a state it holds a lock, which dies
    # with the last process that has it: what was left is not locked.
    for path in (*unfinished_builds(places.cache), *unfinished_states(places.cache)):
        yield Trace("half file", str(path))
    for pattern in _HALF:
        for depth in ("", "*/", "*/*/"):
            for path in (*places.cache.glob(depth + pattern), *places.results.glob(depth + pattern)):
                yield Trace("half file", str(path))


def _settings(places: Places) -> Iterator[Trace]:
    for name in places.settings:
        with suppress(OSError):
            yield Trace("setting", f"{name}: {Path(name).read_text().strip()}")


def _is_in(path: str, folders: Collection[Path]) -> bool:
    return any(path == str(folder) or path.startswith(f"{folder}/") for folder in folders)
