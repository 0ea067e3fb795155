"""`guest-probe snapshot` in the guest: what it is asked, and its answers, which may be anything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.errors import GuestError
from orchestrator.guest.page_owner import PageOwners, read_owners
from orchestrator.guest.stream import Stream, StreamError, number
from orchestrator.model.snapshot import I64, U64

RELEASE = "/proc/sys/kernel/osrelease"
BLOCK_BYTES = "/sys/devices/system/memory/block_size_bytes"
ZONEINFO = "/proc/zoneinfo"
VMCOREINFO = "/sys/kernel/vmcoreinfo"
FILES = (RELEASE, BLOCK_BYTES, ZONEINFO, VMCOREINFO)
_MOST_ONLINE_BYTES = 1 << 22
_RUN_BYTES = 16


class SnapshotError(GuestError):
    """The guest's readings contradict themselves or its machine."""

    outcome = "snapshot-failed"


@dataclass(frozen=True)
class CpuUsed:
    """CPU time that has been used in the guest so far."""

    probe_seconds: float
    flags_seconds: float  # of it, for reading and writing out /proc/kpageflags
    sshd_seconds: float  # by the sshd that carries what it writes


class SnapshotProbe:
    """A running `guest-probe snapshot`."""

    def __init__(self, channel: Any) -> None:  # paramiko.Channel
        self._channel = channel
        self._stream = Stream(channel.recv)

    def ask(self, what: str) -> None:
        """Ask for `all` or for `flags`."""
        self._channel.sendall(f"{what}\n".encode())

    def files(self) -> dict[str, str]:
        """The files of FILES by path; one that the guest does not have is empty."""
        found = {}
        for path in FILES:
            (size,) = self._words(f"#file {path}", 1)
            found[path] = self._stream.file(path, None if size == "-1" else number(size)) or ""
        return found

    def online_blocks(self) -> I64:
        """Numbers of the Linux memory blocks that are online, sorted."""
        (size,) = map(number, self._words("#online", 1))
        if size > _MOST_ONLINE_BYTES:
            raise StreamError(f"the list of memory blocks has {size} bytes")
        words = self._stream.exactly(size).decode(errors="replace").split()
        self._stream.exactly(1)
        return np.array(sorted(map(number, words)), dtype=np.int64)

    def flags(self, most_frames: int) -> tuple[U64, CpuUsed]:
        """The next reading of /proc/kpageflags, and what has been used by then."""
        (size,) = map(number, self._words("#flags", 1))
        if size % _RUN_BYTES or not 0 < size <= most_frames * _RUN_BYTES:
            raise SnapshotError("the guest's page flags make no sense", details=f"{size} bytes")
        runs = np.frombuffer(self._stream.exactly(size), dtype="<u8").reshape(-1, 2)
        self._stream.exactly(1)
        cpu = self.cpu()
        # A sum of u64 could wrap, so each run is bounded, too.
        if runs[:, 1].max() > most_frames or not 0 < int(runs[:, 1].sum()) <= most_frames:
            raise SnapshotError(
                "the guest's page flags make no sense", details=f"{int(runs[:, 1].sum())} frames"
            )
        return np.repeat(runs[:, 0], runs[:, 1].astype(np.int64)), cpu

    def start(self) -> tuple[CpuUsed, bool]:
        """What it says first: what it has used, and whether the kernel has a page_owner."""
        cpu = self.cpu()
        (has_owner,) = map(number, self._words("#page_owner", 1))
        return cpu, bool(has_owner)

    def owners(self, pfns: NDArray[np.uint64]) -> PageOwners:
        """Who allocated these frames (sorted)."""
        self._channel.sendall(f"owners {len(pfns)}\n".encode() + pfns.tobytes())
        owners = read_owners(self._stream)
        self.cpu()
        return owners

    def cpu(self) -> CpuUsed:
        """What has been used so far; comes at the start and after each answer."""
        probe, flags, sshd = map(number, self._words("#cpu", 3))
        return CpuUsed(probe / 1e9, flags / 1e9, sshd / 1e9)

    def _words(self, head: str, count: int) -> list[str]:
        line = self._stream.line()
        words = line.removeprefix(f"{head} ").split(" ") if line and line.startswith(f"{head} ") else []
        if len(words) != count:
            raise StreamError(f"{head} was expected, not {(line or 'the end')[:80]!r}")
        return words
