"""The shape of a policy: a decoded snapshot in, which page tables to free or to move out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Protocol, Self

import numpy as np

from orchestrator.model.blocks import BlockMap, map_blocks
from orchestrator.model.frames import classify_frames
from orchestrator.model.snapshot import U8, Bool, Snapshot
from orchestrator.model.tables import LAST_LEVEL, UNKNOWN_LEVEL, Tables, TableState, decode_tables
from orchestrator.registry import Registry
from orchestrator.units import PAGE_BYTES


class WithTables(Protocol):
    """What a policy looks at: page tables, be they of a snapshot or of a made-up guest."""

    @property
    def tables(self) -> Tables:
        """Every table."""


@dataclass(frozen=True)
class StateView:
    """A snapshot, decoded once for all policies."""

    snapshot: Snapshot
    frames: U8  # a FrameClass per frame
    tables: Tables
    blocks: tuple[BlockMap, ...]  # one per region of the snapshot, in its order

    @classmethod
    def of(cls, snapshot: Snapshot) -> Self:
        """Decode `snapshot`."""
        frames = classify_frames(snapshot)
        blocks = tuple(map_blocks(snapshot, region, frames) for region in snapshot.regions)
        return cls(snapshot, frames, decode_tables(snapshot, frames), blocks)


@dataclass(frozen=True)
class Choice:
    """What a policy picks: two masks over tables, shape (tables,), that do not overlap."""

    freed: Bool
    to_move: Bool


@dataclass(frozen=True)
class Verdict:
    """What a policy would have done to a snapshot. Every figure in it is modelled, none measured."""

    policy: str
    tables: Tables
    freed: Bool  # shape (tables,)
    to_move: Bool  # shape (tables,): picked, but in use: would have to be copied elsewhere

    @property
    def tables_freed(self) -> int:
        """Number of page tables freed."""
        return int(self.freed.sum())

    @property
    def bytes_freed(self) -> int:
        """Size of the page tables freed."""
        return self.tables_freed * PAGE_BYTES

    @property
    def tables_to_move(self) -> int:
        """Number of page tables picked that would have to be moved."""
        return int(self.to_move.sum())

    @property
    def empty_left(self) -> int:
        """Empty tables of user space, of a known level, that stay: upper ones, or past the budget."""
        known = (self.tables.level != UNKNOWN_LEVEL) & ~self.tables.kernel & ~self.freed
        return int((known & (self.tables.state == TableState.EMPTY)).sum())

    @property
    def empty_of_unknown_level(self) -> int:
        """Empty tables that nobody points at. No policy frees them: they may be new, on their way out, or, in
        a snapshot without `deposits_read`, deposited for huge pages."""
        return int(((self.tables.level == UNKNOWN_LEVEL) & (self.tables.state == TableState.EMPTY)).sum())

    def blocks_freed(self, block_map: BlockMap) -> Bool:
        """Blocks that were pinned and hold nothing unmovable once the freed tables are gone."""
        return block_map.pinned & ~block_map.after_freeing(self.tables.pfn[self.freed]).pinned

    def blocks_freed_if_moved(self, block_map: BlockMap) -> Bool:
        """The same if all `to_move` were moved as well, to where they pin nothing: an upper bound."""
        gone = self.tables.pfn[self.freed | self.to_move]
        return block_map.pinned & ~block_map.after_freeing(gone).pinned


class Policy(ABC):
    """One way of reclaiming page tables; the docstring says it in a line.

    A subclass declares its name and thereby registers itself: `class Empty(Policy, name="empty")`.
    Tables of the kernel are not any policy's business.
    """

    name: ClassVar[str]

    def __init_subclass__(cls, *, name: str) -> None:
        super().__init_subclass__()
        cls.name = name
        POLICIES.register(name)(cls())

    def apply(self, state: WithTables, *, seed: int = 0, budget_tables: int | None = None) -> Verdict:
        """Run the policy. `budget_tables` bounds how many tables it picks (None: no bound).

        The same state, seed and budget give the same verdict.
        """
        if budget_tables is not None and budget_tables < 0:
            raise ValueError(f"a budget of {budget_tables} tables is less than none")
        choice = self.choose(state, np.random.default_rng(seed), budget_tables)
        return Verdict(self.name, state.tables, choice.freed, choice.to_move)

    @abstractmethod
    def choose(self, state: WithTables, rng: np.random.Generator, budget_tables: int | None) -> Choice:
        """Which tables to free and which to move."""


POLICIES: Registry[Policy] = Registry("policy", "orchestrator.model.policies")


def freeable(tables: Tables, worst_state: TableState) -> Bool:
    """User space's last-level tables whose state is `worst_state` or emptier.

    Last-level only, as upstream: try_to_free_pte() of PT_RECLAIM (6375e95f381e, 6.14) unhooks a PTE table
    under the locks of it and the PMD table above. A table of unknown level is never counted, nor is one
    that is deposited for a huge page: the kernel counts on it when it splits that page.
    """
    found: Bool = (tables.level == LAST_LEVEL) & ~tables.kernel & (tables.state <= worst_state)
    return found


def first(candidates: Bool, budget_tables: int | None) -> Bool:
    """The first `budget_tables` of `candidates` in the order of their frames."""
    chosen = np.zeros_like(candidates)
    chosen[np.flatnonzero(candidates)[:budget_tables]] = True
    return chosen
