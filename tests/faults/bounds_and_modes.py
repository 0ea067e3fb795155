"""A machine that gives less than usual: files, processes, a temporary folder, modes of files."""

from __future__ import annotations

import stat
import subprocess
from contextlib import suppress

import psutil
from campaign.cgroup import Cgroup
from campaign.fault import STEP, Expected, Fault
from campaign.scene import Scene


def _few_files(scene: Scene) -> None:
    scene.orchestrator.before = ("prlimit", "--nofile=64:64", "--")


def _no_more_processes(scene: Scene) -> None:
    """What it has now, and no thread or process more."""
    assert scene.process is not None
    group = Cgroup("pids", "orchestrator-faults")
    group.add(scene.process.pid)
    group.bound_pids(psutil.Process(scene.process.pid).num_threads())
    scene.facts["cgroup"] = group


def _remove_cgroup(scene: Scene) -> None:
    with suppress(KeyError):
        scene.facts["cgroup"].remove()


def _temporary_is_read_only(scene: Scene) -> None:
    place = scene.folder / "tmp"
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro,size=1m", "faults", place], check=True)


def _unmount_temporary(scene: Scene) -> None:
    subprocess.run(["umount", "-l", scene.folder / "tmp"], check=False)


def _nobody_else_writes(scene: Scene) -> None:
    found = []
    for folder in (scene.results, scene.cache / "ssh", scene.cache / "states"):
        for path in folder.rglob("*"):
            mode = path.lstat().st_mode
            if not path.is_symlink() and mode & (stat.S_IWGRP | stat.S_IWOTH):
                found.append(f"{path} {stat.filemode(mode)}")
    assert not found, f"others may write: {found[:3]}"
    key = scene.cache / "ssh" / "client"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600, "others may read the key"


def _umask(umask: int) -> Fault:
    return Fault(
        f"umask-{umask:03o}",
        "machine",
        f"umask {umask:03o}",
        "whole run",
        Expected(0, "completed", (), 90),
        steps=("wait: {time: 2s}", "snapshot: {label: only}"),
        umask=umask,
        check=_nobody_else_writes,
    )


FAULTS = [
    Fault(
        "64-files",
        "machine",
        "64 open files at most",
        "whole run",
        Expected(3, None, ("ulimit -n",), 120, samples=False),
        steps=("wait: {time: 2s}",),
        prepare=_few_files,
        moment="",  # from its start
    ),
    Fault(
        "no-more-processes",
        "machine",
        "no more threads or processes (pids.max)",
        "step",
        Expected(3, None, (), 90),
        steps=("wait: {time: 6s}", "snapshot: {label: cut}"),
        moment=STEP,
        strike=_no_more_processes,
        put_right=_remove_cgroup,
    ),
    Fault(
        "temporary-read-only",
        "machine",
        "the folder for temporary files is read-only",
        "whole run",
        Expected(0, "completed", (), 90),
        steps=("wait: {time: 2s}",),
        prepare=_temporary_is_read_only,
        put_right=_unmount_temporary,
    ),
    _umask(0o077),
    _umask(0o000),
]
