"""Reading the page frames of a machine as it runs: the files of /proc that say what each is, by root only."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from orchestrator.deadline import Deadline
from orchestrator.errors import InfrastructureError
from orchestrator.host.shell import HostShell
from orchestrator.model.frames import KPF_NOPAGE
from orchestrator.model.live_memory import LiveMemory, LiveTally, Piece, pieces
from orchestrator.model.memory_blocks import PATTERNS, MemoryBlocks
from orchestrator.model.snapshot import U64
from orchestrator.procfs import Zone, kib_lines, system_ram, zones

# Reading takes about 0.1 s of CPU time for each GiB; under software emulation on a busy machine, far more.
_SECONDS: Final = 3600.0
_MOST_TEXT_BYTES: Final = 16 << 20  # /proc/zoneinfo has seven lines for each CPU and zone
_MOST_FRAMES: Final = 1 << 32
_MOST_CGROUPS: Final = 1 << 16
_NOPAGE: Final = 1 << KPF_NOPAGE
_MOUNT: Final = re.compile(r"\S+ \S+ \S+ \S+ (\S+) .*? - (cgroup2?) \S+ (\S+)")


@dataclass(frozen=True)
class KernelCounts:
    """What the kernel says of its memory at one time: /proc/zoneinfo, and /proc/meminfo in bytes."""

    zones: tuple[Zone, ...]
    meminfo: dict[str, int]


@dataclass(frozen=True)
class LiveReading:
    """A machine's frames, with what its kernel said before and after they were read.

    `cgroups` are paths by inode; `no_cgroups` is why there are none, and empty where there are.
    """

    memory: LiveMemory
    before: KernelCounts
    after: KernelCounts
    cgroups: dict[int, str]
    no_cgroups: str
    kernel: str
    dma_pins: int | None


def read_live(
    shell: HostShell, progress: Callable[[int, int], None] = lambda _done, _frames: None
) -> LiveReading:
    """Read all of it; `progress` gets the frames that were read, and of how many.

    Raises InfrastructureError: where the host's user may not, or its kernel does not tell.
    """
    deadline = Deadline(_SECONDS)
    _may_read(shell)
    before = _counts(shell)
    ram = tuple(system_ram(_long_text(shell, "/proc/iomem")))
    blocks = MemoryBlocks.of(shell.texts(*PATTERNS), ram, before.zones)
    if sum(one.frames for one in blocks.blocks) > _MOST_FRAMES:
        raise InfrastructureError(
            f"{shell.name} says it has memory of more than 16 TiB, which is not counted"
        )
    tally, no_cgroups = LiveTally(blocks, ram), ""
    wanted = list(pieces(blocks.blocks))
    frames, done = sum(count for _, count in wanted), 0
    for first, count in wanted:
        if deadline.expired:
            raise InfrastructureError(f"reading page flags of {shell.name} did not end in {_SECONDS:.0f} s")
        flags = _words(shell, "kpageflags", first, count, _NOPAGE)
        mapped = _words(shell, "kpagecount", first, count)
        cgroups: U64 | None = None
        if not no_cgroups:
            try:
                cgroups = _words(shell, "kpagecgroup", first, count)
            except FileNotFoundError:
                no_cgroups = "the kernel has no /proc/kpagecgroup (CONFIG_MEMCG)"
        again = _words(shell, "kpageflags", first, count, _NOPAGE)
        tally.add(Piece(first, flags, mapped, cgroups, again))
        done += count
        progress(done, frames)
    found = _cgroups(shell) if not no_cgroups else {}
    return LiveReading(
        tally.done(),
        before,
        _counts(shell),
        found,
        no_cgroups or ("" if found else "no memory cgroups are mounted"),
        shell.texts("/proc/sys/kernel/osrelease").get("/proc/sys/kernel/osrelease", "").strip(),
        _dma_pins(shell),
    )


def _may_read(shell: HostShell) -> None:
    try:
        shell.page_words("kpageflags", 0, 1)
    except FileNotFoundError:
        raise InfrastructureError(
            f"{shell.name} has no /proc/kpageflags",
            hint="it takes a kernel with CONFIG_PROC_PAGE_MONITOR, and in a container the host's /proc",
        ) from None
    except PermissionError:
        to_type = (
            "sudo orchestrator blame live"
            if shell.is_here
            else "name root: orchestrator blame live --connect qemu+ssh://root@HOST/system"
        )
        raise InfrastructureError(
            f"only root may read /proc/kpageflags of {shell.name}", hint=to_type
        ) from None
    except OSError as error:
        raise InfrastructureError(
            f"/proc/kpageflags of {shell.name} cannot be read: {error.strerror}"
        ) from error


def _words(shell: HostShell, name: str, first: int, frames: int, beyond: int = 0) -> U64:
    """One u64 for each frame; `beyond` for those behind the end of memory."""
    try:
        data = shell.page_words(name, first, frames)
    except OSError as error:
        if name == "kpagecgroup" and error.errno == errno.ENOENT:
            raise
        raise InfrastructureError(f"/proc/{name} of {shell.name} cannot be read: {error.strerror}") from error
    words = np.frombuffer(data[: len(data) // 8 * 8], dtype="<u8")
    if len(words) == frames:
        return words
    return np.pad(words, (0, frames - len(words)), constant_values=np.uint64(beyond))


def _long_text(shell: HostShell, path: str) -> str:
    try:
        return shell.tail(path, 0, _MOST_TEXT_BYTES).decode(errors="replace")
    except OSError:
        return ""


def _counts(shell: HostShell) -> KernelCounts:
    return KernelCounts(
        zones(_long_text(shell, "/proc/zoneinfo")), kib_lines(_long_text(shell, "/proc/meminfo"))
    )


def _cgroups(shell: HostShell) -> dict[int, str]:
    """Paths of memory cgroups by inode, in the hierarchy that has the memory controller."""
    mounts = [
        (found[1], found[2], found[3])
        for line in _long_text(shell, "/proc/self/mountinfo").splitlines()
        if (found := _MOUNT.match(line))
    ]
    roots = [path for path, kind, options in mounts if kind == "cgroup" and "memory" in options.split(",")]
    roots += [path for path, kind, _ in mounts if kind == "cgroup2"]
    return shell.folders(roots[0], _MOST_CGROUPS) if roots else {}


def _dma_pins(shell: HostShell) -> int | None:
    """Pages that are pinned now (FOLL_PIN) by the kernel's counters; no flag tells which."""
    found = dict(
        line.split(" ", 1)
        for line in _long_text(shell, "/proc/vmstat").splitlines()
        if line.startswith("nr_foll_pin_")
    )
    try:
        return int(found["nr_foll_pin_acquired"]) - int(found["nr_foll_pin_released"])
    except (KeyError, ValueError):
        return None
