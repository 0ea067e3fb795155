"""The TLBs and page-walk caches of a CPU: how many entries they have, and whose word that is.

Vendors publish TLBs, and of page-walk caches that there are some: their sizes are assumptions of simulators.
Several are shipped, so that one sees how much of an answer hangs on them.
"""

from __future__ import annotations

from typing import Annotated, Final, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from orchestrator.model.snapshot import I64
from orchestrator.model.tlb_walk import CACHES, GUEST_WALK, HOST_WALK, L1, L2, MOST_LEVELS, NESTED_TLB

_MOST_ENTRIES: Final = 1 << 20
_Text = Annotated[str, Field(min_length=1, max_length=1000)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class CacheShape(_Part):
    """A cache with LRU in each set."""

    entries: Annotated[int, Field(ge=1, le=_MOST_ENTRIES)]
    ways: Annotated[int, Field(ge=1, le=1024)]
    """As many as entries: fully associative."""

    @model_validator(mode="after")
    def _whole_sets(self) -> Self:
        if self.entries % self.ways or (self.entries // self.ways).bit_count() != 1:
            raise ValueError(
                f"{self.entries} entries in {self.ways} ways: the number of sets must be a power of two"
            )
        return self


class WalkCaches(_Part):
    """Caches of upper entries, a key for each level; or `all_levels`, one cache for all of them."""

    pmd: CacheShape | None = None
    pud: CacheShape | None = None
    p4d: CacheShape | None = None
    """Entries of level 4, which Intel calls PML4 entries."""
    pgd: CacheShape | None = None
    """Entries of level 5, where there are five levels."""
    all_levels: CacheShape | None = None

    @model_validator(mode="after")
    def _one_or_the_other(self) -> Self:
        if self.all_levels and any((self.pmd, self.pud, self.p4d, self.pgd)):
            raise ValueError("all_levels is one cache for all levels: no other beside it")
        return self


class Tlb(_Part):
    """One level of TLBs: for each size of page one, or `both_sizes`, one for both."""

    base: CacheShape | None = None
    """Pages of 4 KiB."""
    huge: CacheShape | None = None
    """Pages of 2 MiB."""
    both_sizes: CacheShape | None = None

    @model_validator(mode="after")
    def _one_or_the_other(self) -> Self:
        if self.both_sizes and (self.base or self.huge):
            raise ValueError("both_sizes is one TLB for both sizes: no other beside it")
        return self


class TlbCpu(_Part):
    """What an access finds cached. A part that is left out is not there: such accesses always miss it."""

    name: Annotated[str, Field(min_length=1, max_length=60)]
    l1: Tlb = Tlb()
    """Data TLB of the first level."""
    l2: Tlb = Tlb()
    walk: WalkCaches = WalkCaches()
    """Of the guest's tables, by guest-virtual address."""
    nested_tlb: Tlb = Tlb()
    """Guest-physical pages, of data and of the guest's tables."""
    nested_walk: WalkCaches = WalkCaches()
    """Of second-level tables, by guest-physical address."""
    sources: Annotated[dict[_Text, _Text], Field(max_length=20)]
    """Whose word each of these is."""

    def layout(self) -> tuple[I64, int]:
        """`shapes` of tlb_walk.translate (CACHES, 3): first key, sets less one, ways; and how many keys."""
        shapes = np.zeros((CACHES, 3), dtype=np.int64)
        used = 0

        def place(shape: CacheShape | None, *rows: int) -> None:
            nonlocal used
            if shape:
                shapes[list(rows)] = used, shape.entries // shape.ways - 1, shape.ways
                used += shape.entries

        for first, tlb in ((L1, self.l1), (L2, self.l2), (NESTED_TLB, self.nested_tlb)):
            place(tlb.both_sizes, first, first + 1)
            place(tlb.base, first)
            place(tlb.huge, first + 1)
        for first, walk in ((GUEST_WALK, self.walk), (HOST_WALK, self.nested_walk)):
            place(walk.all_levels, *range(first, first + MOST_LEVELS + 1))
            for level, shape in enumerate((walk.pmd, walk.pud, walk.p4d, walk.pgd), start=2):
                place(shape, first + level)
        return shapes, used


def _shape(entries: int, ways: int) -> CacheShape:
    return CacheShape(entries=entries, ways=ways)


_INTEL_TLB: Final = (
    "Intel 64 and IA-32 Architectures Optimization Reference Manual (248966-045), TLB parameters of the "
    "Skylake client microarchitecture, which Skylake server shares"
)
_SKYLAKE_L1: Final = Tlb(base=_shape(64, 4), huge=_shape(32, 4))
_SKYLAKE_L2: Final = Tlb(both_sizes=_shape(1536, 12))
_VICTIMA: Final = WalkCaches(pmd=_shape(32, 4), pud=_shape(16, 4), p4d=_shape(16, 4))
_CHAMPSIM: Final = WalkCaches(pmd=_shape(32, 8), pud=_shape(8, 4), p4d=_shape(4, 4), pgd=_shape(2, 2))

SHIPPED_CPUS: Final = (
    TlbCpu(
        name="skylake",
        l1=_SKYLAKE_L1,
        l2=_SKYLAKE_L2,
        walk=_VICTIMA,
        nested_tlb=Tlb(both_sizes=_shape(64, 4)),
        nested_walk=_VICTIMA,
        sources={
            "l1, l2": _INTEL_TLB,
            "walk, nested_tlb": "assumption of a simulator: Kanellopoulos et al., Victima, MICRO 2023, "
            "sniper/config/virtual_memory_configs/virtualized.cfg (CMU-SAFARI/Victima, 7d841a34fc21)",
            "nested_walk": "assumption: as many as for the guest's tables. That there are such caches: Intel "
            "SDM vol. 3C, 28.3.1, guest-physical paging-structure-cache entries",
        },
    ),
    TlbCpu(
        name="skylake-small-caches",
        l1=_SKYLAKE_L1,
        l2=_SKYLAKE_L2,
        walk=_CHAMPSIM,
        nested_walk=_CHAMPSIM,
        sources={
            "l1, l2": _INTEL_TLB,
            "walk": "assumption of a simulator: inc/defaults.hpp of ChampSim (0ad0b415eb95)",
            "nested_tlb, nested_walk": "assumption: no nested TLB, and as many as for the guest's tables",
        },
    ),
    TlbCpu(
        name="amd-16h",
        l1=Tlb(base=_shape(40, 40), huge=_shape(8, 8)),
        l2=Tlb(base=_shape(512, 4), huge=_shape(256, 2)),
        walk=WalkCaches(all_levels=_shape(16, 16)),
        nested_walk=WalkCaches(all_levels=_shape(16, 16)),
        sources={
            "l1, l2": "AMD, Software Optimization Guide for AMD Family 16h Processors (52128), 2.6.1, 2.6.2",
            "walk": "the same, 2.6.3: a page directory cache of 16 entries; assumption: of all levels, and "
            "fully associative",
            "nested_tlb, nested_walk": "assumption: no nested TLB, and one more such cache",
        },
    ),
    TlbCpu(
        name="none",
        sources={
            "all": "no TLB and no cache: every access is a walk of 4 or 24 references, the most there can be "
            "(Bhargava et al., Accelerating Two-Dimensional Page Walks for Virtualized Systems, ASPLOS 2008)"
        },
    ),
)


def shipped_cpu(name: str) -> TlbCpu | None:
    """One of SHIPPED_CPUS; None where it has no such name."""
    return next((one for one in SHIPPED_CPUS if one.name == name), None)
