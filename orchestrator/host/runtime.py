"""What a run needs on the host while it runs, in one folder that tells whose it is.

    /var/tmp/orchestrator-<uid>/<token>/
        owner.json      who made it: pid, start, boot, run
        v/              root of the embedded libvirt driver: its sockets and pid files
        ...             overlays and whatever else the run keeps while it runs

The folder is short and fixed because of the 107 characters that a unix socket's path may have, and
outside the cache and the results because nothing in it is worth keeping. After a kill -9 it is all
that `clean` needs: every process of a run has this path on its command line.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import signal
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from orchestrator.deadline import Deadline, wait_for
from orchestrator.errors import InfrastructureError
from orchestrator.host.trusted import must_be_trusted
from orchestrator.interrupts import deferred
from orchestrator.processes import boot_id, is_alive, send_signal, started_ticks

# What a run starts. Nothing else is ever ended, even if our path stands on its command line.
_QEMU = "qemu-system-"
OUR_PROGRAMS = (_QEMU, "passt", "ansible", "ssh")

END_SECONDS = 10.0

OWNER = "owner.json"
_OUR_NAME = re.compile("[0-9a-f]{8}")

# The runtime folders of this process.
_mine: set[Path] = set()


@dataclass(frozen=True)
class RunProcess:
    """The process that made a runtime folder, named as in `orchestrator.processes`."""

    pid: int
    started_ticks: int
    boot_id: str
    run_dir: str

    @property
    def alive(self) -> bool:
        """Whether that very process still runs."""
        return is_alive(self.pid, self.started_ticks, self.boot_id)


@dataclass(frozen=True)
class Process:
    """A process that a run started."""

    pid: int
    started_ticks: int
    name: str


@dataclass(frozen=True)
class Leftover:
    """A runtime folder whose owner is gone, and the processes that still run from it."""

    folder: Path
    owner: RunProcess | None
    processes: tuple[Process, ...]


def runtime_base() -> Path:
    """Where the runtime folders of this user are: in /var/tmp, or in `$ORCHESTRATOR_RUNTIME`.

    Keep that short, and let others pass through it: passt, started as root, drops to `nobody`.
    """
    # A folder of our own in it, always: it is not for us to change, nor is what else is in it.
    parent = os.environ.get("ORCHESTRATOR_RUNTIME") or "/var/tmp"  # noqa: S108  # `must_be_ours` is asked first
    return Path(parent).absolute() / f"orchestrator-{os.getuid()}"


@contextmanager
def runtime_folder(run_dir: Path) -> Iterator[Path]:
    """A new runtime folder; at the end its processes are ended and it is removed."""
    base = runtime_base()
    folder = base / secrets.token_hex(4)
    owner = RunProcess(os.getpid(), started_ticks(os.getpid()) or 0, boot_id(), str(run_dir))
    _make_base(base)
    try:
        folder.mkdir(mode=0o700)  # if it is there, it is another run's and stays
    except FileNotFoundError:  # the last other run has just ended and taken the base along
        _make_base(base)
        folder.mkdir(mode=0o700)
    try:
        folder.chmod(0o711)  # whatever the umask is
        (folder / OWNER).write_text(json.dumps(asdict(owner)))
        _mine.add(folder)
        yield folder
    finally:
        with deferred():  # half a clean-up would leave QEMU running
            remove(folder)
            _mine.discard(folder)


def _make_base(base: Path) -> None:
    base.mkdir(mode=0o700, parents=True, exist_ok=True)
    must_be_ours(base)
    must_be_trusted(base)
    # Others may pass through to a name they know (passt drops to `nobody`, QEMU of libvirt's daemon to its
    # own user), but not list or write.
    base.chmod(0o711)


def leftovers() -> list[Leftover]:
    """What runs that are no more have left behind, for this user. Changes nothing."""
    base = runtime_base()
    if not base.is_dir():
        return []
    must_be_ours(base)
    found = []
    for folder in sorted(base.iterdir()):
        if not _OUR_NAME.fullmatch(folder.name) or folder.is_symlink() or not folder.is_dir():
            continue  # not of our making
        owner = _read_owner(folder)
        try:
            left = _was_left_in_the_making(folder) if owner is None else not owner.alive
        except FileNotFoundError:
            continue  # its run ended while we looked
        if left:
            found.append(Leftover(folder, owner, tuple(processes_of(folder))))
    return found


def remove(folder: Path) -> None:
    """End the processes of a runtime folder and delete it."""
    # QEMU first. A libvirt of ours starts passt anew when it ends under a QEMU that still runs
    # (processNetdevStreamDisconnectedEvent(), src/qemu/qemu_driver.c), in this folder.
    end(process for process in processes_of(folder) if process.name.startswith(_QEMU))
    end(processes_of(folder))
    # owner.json is the last to go: should we be killed meanwhile, `clean` still knows whose it was.
    with suppress(OSError):  # the look below tells whether it went
        for path in folder.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            elif path.name != OWNER:
                path.unlink(missing_ok=True)
        if all(path.name == OWNER for path in folder.iterdir()):
            shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():
        raise InfrastructureError(
            f"{folder} could not be removed", hint=f"ls -lR {folder}   and then: orchestrator clean"
        )
    with suppress(OSError):  # a folder of another run is in it
        folder.parent.rmdir()


def remove_of(pid: int) -> bool:
    """End what a process of ours that is gone has left on this machine. Whether that is all: what it noted of
    other hosts and of settings is for `clean`."""
    whole = True
    for left in leftovers():
        if left.owner is not None and left.owner.pid == pid:
            if any(path.name != OWNER for path in left.folder.glob("*.json")):
                whole = False
                continue
            try:
                remove(left.folder)
            except InfrastructureError:
                whole = False
    return whole


def kill_guests() -> None:
    """Kill every QEMU of this process at once, so that a call to one that hangs returns."""
    for folder in tuple(_mine):
        for process in processes_of(folder):
            if process.name.startswith(_QEMU):
                send_signal(process.pid, process.started_ticks, signal.SIGKILL)


def processes_of(folder: Path) -> Iterator[Process]:
    """Programs of ours with a path below `folder` on their command line."""
    prefix = f"{folder}/"
    for process in psutil.process_iter():
        try:
            if process.name().startswith(OUR_PROGRAMS) and any(prefix in word for word in process.cmdline()):
                began = started_ticks(process.pid)
                if began is not None:
                    yield Process(process.pid, began, process.name())
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue  # gone, or another user's


def end(processes: Iterator[Process] | tuple[Process, ...]) -> None:
    """Terminate, then kill what has not ended in time. A pid that was given to another is left alone."""
    # What is gone, or another user's, is left out; the others are ended all the same.
    ending = [one for one in processes if send_signal(one.pid, one.started_ticks, signal.SIGTERM)]
    _wait(ending, END_SECONDS / 2)
    for one in ending:
        send_signal(one.pid, one.started_ticks, signal.SIGKILL)
    _wait(ending, END_SECONDS)


def _wait(processes: Sequence[Process], seconds: float) -> None:
    wait_for(
        lambda: None if any(started_ticks(one.pid) == one.started_ticks for one in processes) else True,
        Deadline(seconds),
        every=0.02,
    )


def _read_owner(folder: Path) -> RunProcess | None:
    try:
        return RunProcess(**json.loads((folder / OWNER).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _was_left_in_the_making(folder: Path) -> bool:
    # A folder that says nothing of its owner is either being made this instant or was left in that
    # instant. With anything in it but what is made first, it belongs to another program to judge.
    strange = {path.name for path in folder.iterdir()} - {OWNER, "v"}
    return not strange and time.time() - folder.stat().st_mtime >= END_SECONDS


def must_be_ours(base: Path) -> None:
    """Raise InfrastructureError unless a folder is this user's own."""
    status = base.lstat()
    if status.st_uid != os.getuid() or not stat.S_ISDIR(status.st_mode):
        raise InfrastructureError(
            f"{base} belongs to somebody else",
            hint="have an administrator look at it; it should be owned by you only",
        )
