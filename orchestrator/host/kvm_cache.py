"""KVM checks, kept: to make one again takes seconds at each run, 20 of them where KVM hangs.

    <cache>/kvm/<key>.json

The key is a hash of all that a check holds for: the host's boot, its /dev/kvm and modules, the file of
QEMU, the kernel that was tried. Where a guest fails under KVM, a check that says it works is dropped.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from orchestrator.errors import InfrastructureError
from orchestrator.host.kvm import KvmState, boot_id
from orchestrator.host.shell import HostShell

_FOLDER = "kvm"


class CachedKvmCheck(BaseModel):
    """A check as it is kept. `probed_at` is UTC, for people."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str
    boot_id: str
    outcome: KvmState
    trouble: str
    seconds: float
    probed_at: str
    qemu_version: str


def cache_key(identity: Mapping[str, str], kernel: Path) -> str:
    """Of a host, as `kvm.identity` has it, and a kernel of this machine."""
    parts = {**identity, "kernel": hashlib.sha256(kernel.read_bytes()).hexdigest()}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def read(cache: Path, key: str) -> CachedKvmCheck | None:
    """The check that is kept, if there is one."""
    try:
        return CachedKvmCheck.model_validate_json((cache / _FOLDER / f"{key}.json").read_bytes())
    except (OSError, ValueError):
        return None


def save(cache: Path, key: str, check: CachedKvmCheck) -> None:
    """Keep it, and drop those of other boots of the host. A cache that cannot be written to keeps nothing."""
    folder = cache / _FOLDER
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        for path, old in _all(cache):
            if old.host == check.host and old.boot_id != check.boot_id:
                path.unlink(missing_ok=True)
        # In one go: others read at the same time.
        descriptor, part = tempfile.mkstemp(dir=folder, prefix=".")
        with open(descriptor, "w") as stream:  # noqa: PTH123  # a descriptor is no path
            stream.write(check.model_dump_json(indent=2))
        os.replace(part, folder / f"{key}.json")  # noqa: PTH105  # a name of tempfile's


def forget_working(cache: Path, shell: HostShell) -> bool:
    """Drop what is kept of a host whose KVM was found to work in this boot. Whether there was anything."""
    dropped = False
    with suppress(OSError, InfrastructureError):  # a host that is lost cannot say
        boot = boot_id(shell)
        for path, check in _all(cache):
            if check.boot_id == boot and check.outcome is KvmState.WORKS:
                path.unlink(missing_ok=True)
                dropped = True
    return dropped


def _all(cache: Path) -> list[tuple[Path, CachedKvmCheck]]:
    found = [(path, read(cache, path.stem)) for path in sorted((cache / _FOLDER).glob("*.json"))]
    return [(path, check) for path, check in found if check]
