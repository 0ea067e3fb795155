"""Second-level tables that faults make again once policies have freed them: what a trace of touches says.

One state, which the trace has led to, and every policy over a tree asked about it; then the touches that
follow. KVM frees no table by itself, so each that was ever touched is there. A touch needs its last-level
table and those above, and makes what is missing (kvm_tdp_mmu_map(), arch/x86/kvm/mmu/tdp_mmu.c).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Self

import numpy as np

from orchestrator.model.policies import OverTree
from orchestrator.model.second_level_tree import SecondLevelTree
from orchestrator.model.snapshot import I64
from orchestrator.model.tables import LAST_LEVEL, TOP_LEVEL
from orchestrator.model.trace import TouchKind, Trace
from orchestrator.units import ENTRIES_PER_TABLE

_NEVER: Final = np.iinfo(np.int64).max
_AT_ONCE: Final = -1
_FOUR_LEVELS: Final = ENTRIES_PER_TABLE**3  # last-level tables below a root of level 4


@dataclass(frozen=True)
class PolicyRebuild:
    """What becomes of the tables that were there, with one policy; numbers of tables, modelled.

    `freed_at_once` go; by each end, `freed` have gone, `rebuilt` were made again, and `left` are there.
    """

    policy: str
    freed_at_once: int
    freed: tuple[int, ...]
    rebuilt: tuple[int, ...]
    left: tuple[int, ...]
    huge_pages: int
    bytes_taken: int


@dataclass(frozen=True)
class Rebuild:
    """`tables` there are at the instant, of all levels. By each end `first_touched` have come, with any
    policy: of memory that had not been touched; they are in no other number."""

    tables: int
    first_touched: tuple[int, ...]
    policies: tuple[PolicyRebuild, ...]


def rebuild(trace: Trace, at: int, ends: Sequence[int], present: int) -> Rebuild:
    """Ask every policy right before event `at`, and count until before each of `ends`, none of them below it.

    `present` is how many of the 512 pages of each range in use are there, which a trace does not say.
    """
    if not (0 <= at <= len(trace) and all(at <= end <= len(trace) for end in ends)):
        raise ValueError(f"events {at} and {list(ends)} of {len(trace)}")
    tree = tree_of(trace, at, present)
    by_level = _needed(trace, at)
    touches = _Touches.of(trace, at, tree, by_level)
    return Rebuild(
        tables=len(tree.pfn),
        first_touched=tuple(
            sum(int((one < end).sum()) for one in by_level.values()) - int((touches.needed < end).sum())
            for end in ends
        ),
        policies=tuple(_with(policy, tree, touches, ends) for policy in OverTree.every()),
    )


@dataclass(frozen=True)
class _Touches:
    """Index of the event at which each table of a tree is first needed; and, of the last level, at which its
    range is first unmapped, and first needed after that. Shape (tables,), _NEVER where it is not."""

    needed: I64
    unmapped: I64
    anew: I64

    @classmethod
    def of(cls, trace: Trace, at: int, tree: SecondLevelTree, by_level: Mapping[int, I64]) -> Self:
        needed, unmapped, anew = (np.full(len(tree.pfn), _NEVER, dtype=np.int64) for _ in range(3))
        for level, first in by_level.items():
            mask = tree.level == level
            needed[mask] = first[tree.number[mask]]
        leaves = tree.last_level
        all_unmapped = _first_events(trace, at + np.flatnonzero(trace.kind[at:] == TouchKind.UNMAPPED))
        events = at + np.flatnonzero(trace.kind[at:])
        later = events[events > all_unmapped[trace.table[events]]]
        unmapped[leaves] = all_unmapped[tree.number[leaves]]
        anew[leaves] = _first_events(trace, later)[tree.number[leaves]]
        return cls(needed, unmapped, anew)


def _with(policy: OverTree, tree: SecondLevelTree, touches: _Touches, ends: Sequence[int]) -> PolicyRebuild:
    effect = policy.effect(tree)
    # A huge page goes when its range is unmapped: a touch then finds pages of 4 KiB, and needs a table.
    again = np.where(effect.freed, np.where(effect.collapsed, touches.anew, touches.needed), _NEVER)
    goes = np.where(effect.freed, _AT_ONCE, _NEVER)
    if policy.when_touched:
        goes = np.where(effect.freed & (touches.needed < touches.unmapped), touches.needed, _NEVER)
        again[goes == _NEVER] = _NEVER
    freed = [int((goes < end).sum()) for end in ends]
    rebuilt = [int((again < end).sum()) for end in ends]
    return PolicyRebuild(
        policy.name,
        int((goes == _AT_ONCE).sum()),
        tuple(freed),
        tuple(rebuilt),
        tuple(len(tree.pfn) - gone + came for gone, came in zip(freed, rebuilt, strict=True)),
        int(effect.collapsed.sum()),
        effect.bytes_taken,
    )


def tree_of(trace: Trace, at: int, present: int) -> SecondLevelTree:
    """KVM's tables after the first `at` events, none of them freed, below one root.

    A table's id is its range's address / 2 MiB; `present` pages of each range in use are there, and one of a
    range that was only read. Accessed bits are never cleared.
    """
    last = {one: _last_events(trace, np.flatnonzero(trace.kind[:at] == one)) for one in TouchKind}
    seen = np.flatnonzero((last[TouchKind.TOUCH] >= 0) | (last[TouchKind.READ_ZERO] >= 0))
    in_use, zero, gone = (
        last[one][seen] for one in (TouchKind.TOUCH, TouchKind.READ_ZERO, TouchKind.UNMAPPED)
    )
    only_zero = (in_use <= gone) & (zero > gone)
    leaves = np.where(in_use > gone, present, only_zero).astype(np.int16)
    numbers: list[I64] = [seen]
    for _ in range(LAST_LEVEL, _top_level(trace)):
        numbers.append(np.unique(numbers[-1] // ENTRIES_PER_TABLE))
    begin = np.cumsum([0, *map(len, numbers)])
    source = [
        begin[at_level + 1] + np.searchsorted(above, below // ENTRIES_PER_TABLE)
        for at_level, (below, above) in enumerate(pairwise(numbers))
    ]
    tables, linked = int(begin[-1]), int(begin[-2])
    mapped = np.zeros(tables, dtype=np.int16)
    mapped[: len(seen)] = leaves
    zero_page = np.zeros(tables, dtype=np.int16)
    zero_page[: len(seen)] = only_zero
    link_source = np.concatenate(source)
    return SecondLevelTree(
        pfn=np.arange(tables, dtype=np.int64),
        level=np.repeat(np.arange(LAST_LEVEL, len(numbers) + 1), [len(one) for one in numbers]).astype(
            np.uint8
        ),
        mapped=mapped,
        zero_page=zero_page,
        accessed=mapped,
        links=np.bincount(link_source, minlength=tables).astype(np.int16),
        link_source=link_source,
        link_target=np.arange(linked, dtype=np.int64),
        link_slot=np.concatenate(numbers[:-1]) % ENTRIES_PER_TABLE,
    )


def _top_level(trace: Trace) -> int:
    return TOP_LEVEL - 1 if trace.tables <= _FOUR_LEVELS else TOP_LEVEL


def _last_events(trace: Trace, events: I64) -> I64:
    """The last of these events of each table; -1 where there is none."""
    found = np.full(trace.tables, -1, dtype=np.int64)
    found[trace.table[events]] = events  # of several assignments to one place the last one stays
    return found


def _first_events(trace: Trace, events: I64) -> I64:
    """The first of these events, which are in order, of each table; _NEVER where there is none."""
    found = np.full(trace.tables, _NEVER, dtype=np.int64)
    backwards = events[::-1]
    found[trace.table[backwards]] = backwards  # as above
    return found


def _needed(trace: Trace, at: int) -> dict[int, I64]:
    """By level: the first event from `at` that needs each table, by its number."""
    found = {LAST_LEVEL: _first_events(trace, at + np.flatnonzero(trace.kind[at:]))}
    for level in range(LAST_LEVEL + 1, _top_level(trace) + 1):
        below = found[level - 1]
        found[level] = np.minimum.reduceat(below, np.arange(0, len(below), ENTRIES_PER_TABLE))
    return found
