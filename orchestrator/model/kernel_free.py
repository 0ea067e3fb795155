"""Free memory as the kernel counts it: to check what flags say, and how much of it can be had."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Final, Self

from orchestrator.jsontext import parse_json
from orchestrator.procfs import Zone, kib_lines, zones
from orchestrator.units import PAGE_BYTES

_NOTE: Final = "kernel_free"
_NORMAL: Final = 2  # ZONE_NORMAL on x86-64, include/linux/mmzone.h


@dataclass(frozen=True)
class KernelFree:
    """`free`: pages of 4 KiB in the buddy allocator. `kept`: of these, what no ordinary allocation gets.

    A zone is left alone below its min watermark and lowmem reserve (__zone_watermark_ok(), mm/page_alloc.c);
    `kept` is None where these are not known.
    """

    free: int
    kept: int | None = None

    @classmethod
    def of_zoneinfo(cls, text: str) -> Self | None:
        """From /proc/zoneinfo; None if there is no zone in it."""
        found = zones(text)
        kept = sum(min(zone.free, _kept(zone)) for zone in found)
        return cls(sum(zone.free for zone in found), kept) if found else None

    @classmethod
    def of_meminfo(cls, text: str) -> Self | None:
        """From /proc/meminfo; None if it has no MemFree."""
        free = kib_lines(text).get("MemFree")
        return None if free is None else cls(free // PAGE_BYTES)

    @classmethod
    def of_notes(cls, notes: dict[str, str]) -> Self | None:
        """What a snapshot says of it; None for those that are too old to say."""
        try:
            words = parse_json(notes.get(_NOTE, ""))
            free, kept = words["free"], words["kept"]
        except (ValueError, TypeError, KeyError):
            return None
        fits = isinstance(free, int) and (kept is None or isinstance(kept, int))
        return cls(free, kept) if fits else None

    def note(self) -> dict[str, str]:
        """As notes of a snapshot."""
        return {_NOTE: json.dumps(asdict(self))}


def unreserved(found: Iterable[Zone]) -> int:
    """Pages that an ordinary allocation gets: free above what zones keep, and those on PCP lists."""
    return sum(max(0, zone.free - _kept(zone)) + zone.on_lists for zone in found)


def _kept(zone: Zone) -> int:
    """Pages below the min watermark and lowmem reserve of a zone; 0 where it says nothing of them."""
    reserves = zone.protection
    return zone.min + reserves[min(_NORMAL, len(reserves) - 1)] if reserves else 0
