"""The kernel's memory blocks, as sysfs has them (Documentation/admin-guide/mm/memory-hotplug.rst)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Self

from orchestrator.procfs import Zone
from orchestrator.units import GIB, MIB, PAGE_BYTES

FOLDER: Final = "/sys/devices/system/memory"
PATTERNS: Final = (
    f"{FOLDER}/block_size_bytes",
    f"{FOLDER}/auto_online_blocks",
    *(f"{FOLDER}/memory[0-9]*/{name}" for name in ("phys_index", "state", "valid_zones")),
    # A folder for each block of a node: its number is all that is wanted of it.
    "/sys/devices/system/node/node[0-9]*/memory[0-9]*/phys_index",
    "/sys/module/memory_hotplug/parameters/*",
)
# A section where the kernel has no memory blocks; memory_block_size_bytes(), arch/x86/mm/init_64.c.
SECTION_BYTES: Final = 128 * MIB
_MOST_BLOCK_BYTES: Final = 64 * GIB
_MOST_PFN: Final = 1 << 40

_OF_BLOCK: Final = re.compile(rf"{FOLDER}/memory(\d{{1,9}})/phys_index")
_OF_NODE: Final = re.compile(r"/sys/devices/system/node/node(\d{1,4})/memory(\d{1,9})/phys_index")
_HEX: Final = re.compile(r"[0-9a-f]{1,16}")


@dataclass(frozen=True)
class MemoryBlock:
    """One memory block; `first` is its first frame, `frames` how many it has.

    `zones` are those that it may be in: of one that is online the zone that it is in, and none where it spans
    several, so that it cannot be taken offline. `hole`: not all of it is RAM, with the same consequence
    (offline_pages(), mm/memory_hotplug.c); None where that could not be read. `node` is -1 where unknown.
    """

    number: int
    first: int
    frames: int
    state: str
    zones: tuple[str, ...]
    node: int
    hole: bool | None

    @property
    def online(self) -> bool:
        """Whether its frames are in use by the allocator."""
        return self.state != "offline"

    @property
    def refused(self) -> bool:
        """Whether the kernel refuses to take it offline whatever is in it."""
        return not self.zones or self.hole is True


@dataclass(frozen=True)
class MemoryBlocks:
    """All of them, lowest address first, and how memory that is added is brought online.

    `real` is false where the kernel has none (CONFIG_MEMORY_HOTPLUG): these are sections then, and none of
    them can be taken offline. `policy` has settings by name, as the kernel writes them.
    """

    block_bytes: int
    blocks: tuple[MemoryBlock, ...]
    policy: Mapping[str, str]
    real: bool = True

    @classmethod
    def of(cls, texts: Mapping[str, str], ram: Sequence[tuple[int, int]], zones: Sequence[Zone]) -> Self:
        """From files of sysfs (PATTERNS), ranges of RAM in frames (none: unknown), and /proc/zoneinfo."""
        size_text = texts.get(f"{FOLDER}/block_size_bytes", "").strip()
        size = int(size_text, 16) if _HEX.fullmatch(size_text) else 0
        policy = dict(_settings(texts))
        numbers = sorted(int(found[1]) for path in texts if (found := _OF_BLOCK.fullmatch(path)))
        if not SECTION_BYTES <= size <= _MOST_BLOCK_BYTES or size.bit_count() != 1 or not numbers:
            return cls(SECTION_BYTES, tuple(_sections(ram, zones)), policy, real=False)
        nodes = {int(found[2]): int(found[1]) for path in texts if (found := _OF_NODE.fullmatch(path))}
        blocks = []
        for number in numbers:
            folder = f"{FOLDER}/memory{number}"
            index = texts[f"{folder}/phys_index"].strip()
            frames = size // PAGE_BYTES
            first = int(index, 16) * frames if _HEX.fullmatch(index) else _MOST_PFN
            if first >= _MOST_PFN:
                continue
            names = texts.get(f"{folder}/valid_zones", "none").split()
            blocks.append(
                MemoryBlock(
                    number,
                    first,
                    frames,
                    texts.get(f"{folder}/state", "offline").strip(),
                    () if names[:1] == ["none"] else tuple(name[:16] for name in names),
                    nodes.get(number, -1),
                    _has_hole(first, frames, ram),
                )
            )
        return cls(size, tuple(_apart(blocks)), policy)


def _apart(blocks: Sequence[MemoryBlock]) -> Iterator[MemoryBlock]:
    """By address, without those that overlap one before: no kernel has any, another machine may say so."""
    end = 0
    for block in sorted(blocks, key=lambda one: one.first):
        if block.first >= end:
            yield block
            end = block.first + block.frames


def _settings(texts: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for path, text in texts.items():
        name = path.rpartition("/")[2]
        if name == "auto_online_blocks" or path.startswith("/sys/module/memory_hotplug/"):
            yield name, text.strip()[:80]


def _has_hole(first: int, frames: int, ram: Sequence[tuple[int, int]]) -> bool | None:
    """None where no range of RAM is known: /proc/iomem has no addresses for an ordinary user."""
    if not ram:
        return None
    return sum(max(0, min(end, first + frames) - max(begin, first)) for begin, end in ram) < frames


def _sections(ram: Sequence[tuple[int, int]], zones: Sequence[Zone]) -> Iterator[MemoryBlock]:
    """Sections that have memory, where the kernel has no memory blocks."""
    spans = ram or [(zone.start_pfn, zone.start_pfn + zone.spanned) for zone in zones if zone.spanned]
    frames = SECTION_BYTES // PAGE_BYTES
    numbers = {n for begin, end in spans for n in range(begin // frames, min(-(-end // frames), 1 << 24))}
    for n in sorted(numbers):
        yield MemoryBlock(n, n * frames, frames, "online", (), -1, None)
