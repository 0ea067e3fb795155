"""What a host of a fleet is and can: what its worker tells the head."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Final

import psutil
from pydantic import Field

from orchestrator.commit import program_commit
from orchestrator.doctor.check import kernel_to_try
from orchestrator.host.accel import choose
from orchestrator.host.cpu import cpu_model
from orchestrator.host.kvm import second_level, unusable
from orchestrator.host.shell import HostShell
from orchestrator.records.accel import KVM
from orchestrator.records.base import Record, Text
from orchestrator.shipped import installed

_PACKAGE: Final = Path(__file__).resolve().parents[1]
_NO_LOCK: Final = "versions"


class Program(Record):
    """Which program this is: two that differ in any of these may not do trials of one run."""

    commit: Text
    lock: Text
    """SHA-256 of requirements.lock; of an installed wheel, which has none, of the versions that it found."""
    sources: Text
    """SHA-256 of the package's own modules: a checkout may be changed, and still be of its commit."""

    def differences(self, other: Program) -> list[str]:
        """What `other` has otherwise: `commit: A, not B`, of which A is other's."""
        mine, theirs = self.model_dump(), other.model_dump()
        return [
            f"{name}: {theirs[name] or 'unknown'}, not {mine[name] or 'unknown'}"
            for name in mine
            if mine[name] != theirs[name]
        ]


class HostCard(Record):
    """Sizes are bytes. `token` names one life of the host's worker."""

    name: Text
    token: Text
    program: Program
    memory: int = Field(ge=0)
    cores: int = Field(ge=0)
    disk: int = Field(ge=0)
    kvm: Text
    """Empty where a kernel was seen to print under it; else why it is not to be had."""
    second_level: Text
    nested: bool
    architecture: Text
    kernel: Text
    cpu: Text


@cache
def this_program() -> Program:
    """The calling one."""
    return Program(commit=program_commit(), lock=_lock(), sources=_sources())


def _lock() -> str:
    lock = _PACKAGE.parent / "requirements.lock"
    if not installed() and lock.is_file():
        return hashlib.sha256(lock.read_bytes()).hexdigest()
    names = sorted(
        line.partition(">")[0] for line in metadata.requires("orchestrator") or () if ";" not in line
    )
    versions = "\n".join(f"{name}=={metadata.version(name)}" for name in names)
    return f"{_NO_LOCK} {hashlib.sha256(versions.encode()).hexdigest()}"


def _sources() -> str:
    digest = hashlib.sha256()
    for path in sorted(_PACKAGE.rglob("*.py")):
        digest.update(f"{path.relative_to(_PACKAGE)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


def this_host(name: str, token: str, cache_folder: Path) -> HostCard:
    """What this machine has at this moment. Probes KVM, unless a check of this boot is kept."""
    shell = HostShell()
    return HostCard(
        name=name,
        token=token,
        program=this_program(),
        memory=psutil.virtual_memory().available,
        cores=len(os.sched_getaffinity(0)),
        disk=shutil.disk_usage(cache_folder).free,
        kvm=_no_kvm(shell, cache_folder),
        second_level=second_level(shell),
        nested=_nested(),
        architecture=platform.machine(),
        kernel=platform.release(),
        cpu=cpu_model(),
    )


def _no_kvm(shell: HostShell, cache_folder: Path) -> str:
    if trouble := unusable(shell):
        return trouble
    kernel = kernel_to_try(cache_folder)
    if kernel is None:
        return "not checked: that takes the kernel of a guest image, and none is built there yet"
    chosen = choose("auto", kernel, cache_folder)
    return "" if chosen.name == KVM else chosen.reason


def _nested() -> bool:
    for module in ("kvm_intel", "kvm_amd"):
        try:
            text = Path(f"/sys/module/{module}/parameters/nested").read_text(encoding="ascii")
        except OSError:
            continue
        return text.strip() in {"1", "Y"}
    return False
