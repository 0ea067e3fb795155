"""What a run needs on the host while it runs, in one folder that tells whose it is.

    /var/tmp/orchestrator-<uid>/<token>/
        owner.json      who made it: pid, start time, boot, run
        v/              root of the embedded libvirt driver: its sockets and pid files
        ...             overlays and whatever else the run keeps while it runs

The folder is short and fixed because of the 107 characters that a unix socket's path may have, and
outside the cache and the results because nothing in it is worth keeping. After a kill -9 it is all
that `clean` needs: every process of a run has this path on its command line.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from orchestrator.deadline import Deadline, wait_for
from orchestrator.errors import InfrastructureError

# What a run starts. Nothing else is ever ended, even if our path stands on its command line.
OUR_PROGRAMS = ("qemu-system-", "passt", "ansible", "ssh")

END_SECONDS = 10.0


@dataclass(frozen=True)
class Owner:
    """The process that made a runtime folder."""

    pid: int
    started: float  # seconds since the epoch, as psutil tells it; with the pid it names one process
    boot_id: str
    run_dir: str

    @property
    def alive(self) -> bool:
        """Whether that very process still runs."""
        if self.boot_id != boot_id():
            return False
        try:
            return abs(psutil.Process(self.pid).create_time() - self.started) < 1.0
        except psutil.NoSuchProcess:
            return False


@dataclass(frozen=True)
class Process:
    """A process that a run started."""

    pid: int
    started: float
    name: str


@dataclass(frozen=True)
class Leftover:
    """A runtime folder whose owner is gone, and the processes that still run from it."""

    folder: Path
    owner: Owner | None
    processes: tuple[Process, ...]


def boot_id() -> str:
    """Identity of this boot of the machine."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def runtime_base() -> Path:
    """The folder of all runtime folders of this user, made if it is missing.

    `$ORCHESTRATOR_RUNTIME`, if set, is that folder instead; keep it short.
    """
    chosen = os.environ.get("ORCHESTRATOR_RUNTIME")
    base = Path(chosen or f"/var/tmp/orchestrator-{os.getuid()}")  # noqa: S108  # owner and mode are checked below
    base.mkdir(mode=0o711, exist_ok=True)
    status = base.lstat()
    if status.st_uid != os.getuid() or not base.is_dir() or base.is_symlink():
        raise InfrastructureError(
            f"{base} belongs to somebody else",
            hint="have an administrator look at it; it should be yours alone",
        )
    # Others may pass through to a name they know (passt drops to `nobody`), but not list or write.
    base.chmod(0o711)
    return base


@contextmanager
def runtime_folder(run_dir: Path) -> Iterator[Path]:
    """A new runtime folder; at the end its processes are ended and it is removed."""
    folder = runtime_base() / secrets.token_hex(4)
    folder.mkdir(mode=0o711)
    owner = Owner(os.getpid(), psutil.Process().create_time(), boot_id(), str(run_dir))
    (folder / "owner.json").write_text(json.dumps(asdict(owner)))
    try:
        yield folder
    finally:
        remove(folder)


def leftovers() -> list[Leftover]:
    """What runs that are no more have left behind, for this user."""
    found = []
    for folder in sorted(runtime_base().iterdir()):
        owner = _read_owner(folder)
        try:
            age_seconds = time.time() - folder.stat().st_mtime
        except FileNotFoundError:
            continue  # its run ended while we looked
        # A folder without an owner is either being made this instant or was left in that instant.
        fresh = owner is None and age_seconds < END_SECONDS
        if not fresh and (owner is None or not owner.alive):
            found.append(Leftover(folder, owner, tuple(processes_of(folder))))
    return found


def remove(folder: Path) -> None:
    """End the processes of a runtime folder and delete it."""
    end(processes_of(folder))
    shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():
        raise InfrastructureError(f"{folder} could not be removed", hint="orchestrator clean")


def processes_of(folder: Path) -> Iterator[Process]:
    """Programs of ours with a path below `folder` on their command line."""
    prefix = f"{folder}/"
    for process in psutil.process_iter():
        try:
            if process.name().startswith(OUR_PROGRAMS) and any(prefix in word for word in process.cmdline()):
                yield Process(process.pid, process.create_time(), process.name())
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue  # gone, or another user's


def end(processes: Iterator[Process] | tuple[Process, ...]) -> None:
    """Terminate, then kill what has not ended in time. A pid that was given to another is left alone."""
    handles = []
    for process in processes:
        try:
            handle = psutil.Process(process.pid)
            if handle.create_time() == process.started:
                handle.terminate()
                handles.append(handle)
        except psutil.NoSuchProcess:
            continue
    _, alive = psutil.wait_procs(handles, timeout=END_SECONDS / 2)
    for handle in alive:
        with suppress(psutil.NoSuchProcess):
            handle.kill()  # psutil checks that the pid is still the same process
    wait_for(
        lambda: None if any(_runs(handle) for handle in alive) else True, Deadline(END_SECONDS), every=0.05
    )


def _runs(handle: psutil.Process) -> bool:
    try:
        # A zombie holds nothing; reaping it is its parent's business.
        return bool(handle.is_running() and handle.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _read_owner(folder: Path) -> Owner | None:
    try:
        return Owner(**json.loads((folder / "owner.json").read_text()))
    except (OSError, ValueError, TypeError):
        return None
