"""How much of the guest's free memory lies in huge-page ranges, and what its page blocks are kept for."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from orchestrator.observation import Reading
from orchestrator.probes.base import PROBES, Probe
from orchestrator.series import Series
from orchestrator.units import PAGE_BYTES

if TYPE_CHECKING:
    from orchestrator.guest.sampler import Tick

_PATH = "/proc/pagetypeinfo"
_HUGE_ORDER = 9  # 2 MiB; the pageblock order of x86-64 as well
# mm/vmstat.c, pagetypeinfo_showfree_print(): a list that is longer than 100,000 is printed as `>100000`.
_FREE = re.compile(r"Node +\d{1,4}, zone +\w{1,16}, type +(\w{1,16})((?: +>?\d{1,12}){1,16}) *")
_TYPES = re.compile(r"Number of blocks type((?: +\w{1,16}){1,16}) *")
_BLOCKS = re.compile(r"Node +\d{1,4}, zone +\w{1,16}((?: +\d{1,12}){1,16}) *")


@PROBES.register("guest_pagetypeinfo")
class GuestPagetypeinfo(Probe):
    """`free_huge_ranges`: aligned free ranges of 2 MiB, all zones and types; `blocks_TYPE`: page blocks.

    An unmovable allocation in a block of another type is what spreads kernel memory (fallback).
    """

    guest_files: ClassVar = (_PATH,)
    series: ClassVar = (
        Series(
            "free_huge_ranges",
            "count",
            "aligned free ranges of 2 MiB, over all zones and migrate types",
            memory_bytes=PAGE_BYTES << _HUGE_ORDER,
        ),
        Series("blocks_*", "count", "pageblocks of a migrate type, over all zones"),
    )

    def from_guest(self, tick: Tick) -> Iterator[Reading]:
        lines = (tick.files.get(_PATH) or "").splitlines()
        free = [found for line in lines if (found := _FREE.fullmatch(line))]
        if not free:
            yield Reading("free_huge_ranges", None, gap=f"the guest has no {_PATH}")
            return
        ranges = 0
        for found in free:
            # A chunk of a higher order is several ranges.
            for order, chunks in enumerate(found[2].split()[_HUGE_ORDER:]):
                ranges += int(chunks.removeprefix(">")) << order
        yield Reading("free_huge_ranges", ranges)
        types = next((found[1].split() for line in lines if (found := _TYPES.fullmatch(line))), [])
        blocks = [found[1].split() for line in lines if (found := _BLOCKS.fullmatch(line))]
        for number, name in enumerate(types):
            count = sum(int(zone[number]) for zone in blocks if len(zone) == len(types))
            yield Reading(f"blocks_{name}", count)
