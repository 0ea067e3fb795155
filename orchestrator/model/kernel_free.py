"""Free memory as the kernel counts it: to check what flags say, and how much of it can be had."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from typing import Final, Self

from orchestrator.procfs import kib_lines
from orchestrator.units import PAGE_BYTES

_NOTE: Final = "kernel_free"
_ZONE: Final = re.compile(r"Node \d{1,4}, zone +\w{1,16}$")
_PAGES: Final = re.compile(r"  pages free +(\d{1,12})$")
_MIN: Final = re.compile(r" +min +(\d{1,12})$")
_PROTECTION: Final = re.compile(r" +protection: \((\d{1,12}(?:, \d{1,12}){0,15})\)$")
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
        free = kept = zone_free = zone_min = 0
        zones = 0
        for line in text.splitlines():
            if _ZONE.match(line):
                zones += 1
                zone_free = zone_min = 0
            elif found := _PAGES.match(line):
                zone_free = int(found[1])
                free += zone_free
            elif found := _MIN.match(line):
                zone_min = int(found[1])
            elif found := _PROTECTION.match(line):
                reserves = [int(word) for word in found[1].split(", ")]
                kept += min(zone_free, zone_min + reserves[min(_NORMAL, len(reserves) - 1)])
        return cls(free, kept) if zones else None

    @classmethod
    def of_meminfo(cls, text: str) -> Self | None:
        """From /proc/meminfo; None if it has no MemFree."""
        free = kib_lines(text).get("MemFree")
        return None if free is None else cls(free // PAGE_BYTES)

    @classmethod
    def of_notes(cls, notes: dict[str, str]) -> Self | None:
        """What a snapshot says of it; None for those that are too old to say."""
        try:
            words = json.loads(notes.get(_NOTE, ""))
            free, kept = words["free"], words["kept"]
        except (ValueError, TypeError, KeyError):
            return None
        fits = isinstance(free, int) and (kept is None or isinstance(kept, int))
        return cls(free, kept) if fits else None

    def note(self) -> dict[str, str]:
        """As notes of a snapshot."""
        return {_NOTE: json.dumps(asdict(self))}
