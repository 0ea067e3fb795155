"""The shape of a policy: one class under one name, which says by its base classes what it answers.

Three questions can be asked. Over a *snapshot*: which tables go (`OverSnapshot`)? Over a *trace* of touches,
with a budget: which is evicted when one more is needed (`OverTrace`; a replay and overcommit ask it)? Over
a *tree* of second-level tables: which of them would be zapped (`OverTree`)?
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from inspect import getdoc
from typing import Any, ClassVar, Final, Protocol, Self

import numpy as np

from orchestrator.errors import BadInputError
from orchestrator.model.blocks import BlockMap, map_blocks
from orchestrator.model.frame_class import UNMOVABLE
from orchestrator.model.frames import classify_frames
from orchestrator.model.second_level_tree import SecondLevelTree
from orchestrator.model.snapshot import I64, U8, Bool, Snapshot
from orchestrator.model.tables import LAST_LEVEL, Tables, TableState, decode_tables
from orchestrator.model.trace import Trace
from orchestrator.registry import Registry
from orchestrator.suggestion import suggest
from orchestrator.units import ENTRIES_PER_TABLE, PAGE_BYTES


class Policy(ABC):
    """One way of reclaiming page tables; the docstring says it in a line.

    A subclass that declares a name registers itself under it: `class Empty(OverSnapshot, name="empty")`. The
    bases without a name are the questions; `OverTrace.named("lru")` is the policy `lru`, asked over a trace.
    """

    name: ClassVar[str]
    question: ClassVar[str]  # of a base that is one, in a word

    def __init_subclass__(cls, *, name: str = "") -> None:
        super().__init_subclass__()
        if name:
            cls.name = name
            POLICIES.register(name)(cls())

    @classmethod
    def named(cls, name: str) -> Self:
        """The policy of that name. Raises BadInputError where there is none, or it does not answer this."""
        if name not in POLICIES:
            raise BadInputError(f"no policy is called {name!r}", hint=suggest(name, cls.names()))
        policy = POLICIES[name]
        if not isinstance(policy, cls):
            raise BadInputError(
                f"policy {name!r} answers no question over a {cls.question}",
                hint=f"there are: {', '.join(cls.names())}",
            )
        return policy

    @classmethod
    def every(cls) -> list[Self]:
        """All policies that answer this, by name."""
        return [policy for _, policy in POLICIES if isinstance(policy, cls)]

    @classmethod
    def names(cls) -> list[str]:
        """Their names, sorted."""
        return [policy.name for policy in cls.every()]

    @property
    def what(self) -> str:
        """What it does, in a line."""
        return (getdoc(self) or "").split("\n", 1)[0]

    @property
    def questions(self) -> tuple[str, ...]:
        """What it answers."""
        return tuple(one.question for one in QUESTIONS if isinstance(self, one))


POLICIES: Registry[Policy] = Registry("policy", "orchestrator.model.policies")


class WithTables(Protocol):
    """What a policy looks at: page tables, be they of a snapshot or of a made-up guest."""

    @property
    def tables(self) -> Tables:
        """Every table."""

    @property
    def unmovable(self) -> I64:
        """Frames that cannot be moved, sorted: page tables, and whatever else is known to be such."""


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

    @cached_property
    def unmovable(self) -> I64:
        """Frames that cannot be moved, sorted."""
        return np.flatnonzero(np.isin(self.frames, UNMOVABLE))


@dataclass(frozen=True)
class Choice:
    """What a policy picks: two masks over tables, shape (tables,), that do not overlap."""

    freed: Bool
    to_move: Bool


@dataclass(frozen=True)
class PolicyEffect:
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

    def blocks_freed(self, block_map: BlockMap) -> Bool:
        """Blocks that were pinned and hold nothing unmovable once the freed tables are gone."""
        return block_map.pinned & ~block_map.after_freeing(self.tables.pfn[self.freed]).pinned

    def blocks_freed_if_moved(self, block_map: BlockMap) -> Bool:
        """The same if all `to_move` were moved as well, to where they pin nothing: an upper bound."""
        gone = self.tables.pfn[self.freed | self.to_move]
        return block_map.pinned & ~block_map.after_freeing(gone).pinned


class OverSnapshot(Policy):
    """Says which tables of a snapshot go. Tables of the kernel are not any policy's business."""

    question = "snapshot"

    def apply(self, state: WithTables, *, seed: int = 0, budget_tables: int | None = None) -> PolicyEffect:
        """Run the policy. `budget_tables` bounds how many tables it picks (None: no bound).

        The same state, seed and budget give the same effect.
        """
        if budget_tables is not None and budget_tables < 0:
            raise ValueError(f"a budget of {budget_tables} tables is less than none")
        choice = self.choose(state, np.random.default_rng(seed), budget_tables)
        return PolicyEffect(self.name, state.tables, choice.freed, choice.to_move)

    @abstractmethod
    def choose(self, state: WithTables, rng: np.random.Generator, budget_tables: int | None) -> Choice:
        """Which tables to free and which to move."""


class Frees(IntEnum):
    """Which tables go by reference count, without pressure: the talk's counter of entries at zero."""

    NOTHING = 0
    EMPTY = 1  # a last-level table in which nothing is left
    ALL_LEVELS = 2  # and the PMD table above, once nothing is below it


@dataclass(frozen=True)
class Functions:
    """What the engine calls, compiled; `now` is the index of the event.

    `victim` takes the table that it names out of the state, or says NO_VICTIM.
    """

    touched: Callable[[Any, int, int], None]
    admitted: Callable[[Any, int, int], None]
    victim: Callable[[Any, int], int]
    forgotten: Callable[[Any, int], None]


class OverTrace(Policy):
    """Keeps page tables within a budget: four compiled functions over arrays that it owns.

    The engine (orchestrator.model.replay, orchestrator.model.pressure) calls `touched` for a table that is
    there, `admitted` for one that came, `victim` when one has to go, and `forgotten` for one that went by
    itself. numba compiles the engine once for each policy, with these four inlined;
    orchestrator.model.compiled has what they are made of.
    """

    question = "trace"
    frees: ClassVar[Frees] = Frees.EMPTY
    # Whether its victims may be in use: if none is, it does not matter what would be done with one that is.
    evicts_in_use: ClassVar[bool] = True
    functions: ClassVar[Functions]

    @abstractmethod
    def state(self, trace: Trace, budget_tables: int, seed: int) -> Any:
        """Fresh arrays for one replay; the four functions get them as their first argument."""

    def functions_over(self, trace: Trace) -> Functions:  # for those that it makes a difference to
        """The functions that go with `state` of this trace."""
        return self.functions


@dataclass(frozen=True)
class TreeEffect:
    """What a policy would do to second-level tables. Modelled; masks are of shape (tables,).

    `freed` go. Of them `rebuilt` map something: faults make no others anew for memory that is mapped now, and
    at the least none, since entries do not say what will be touched. `collapsed` are last-level tables whose
    range is a huge page then, which takes `bytes_taken` that KVM had not mapped: at the most, as QEMU may
    have some of it.
    """

    policy: str
    freed: Bool
    rebuilt: Bool
    collapsed: Bool
    bytes_taken: int


class OverTree(Policy):
    """Says which second-level tables go: KVM's, of a host that was read from outside."""

    question = "tree"
    # Whether KVM frees what `zaps` names only when the guest touches its range the next time.
    when_touched: ClassVar[bool] = False

    @abstractmethod
    def zaps(self, tree: SecondLevelTree) -> Bool:
        """Mask over the tables of `tree`, shape (tables,): those that would be zapped. Nothing was done."""

    def collapses(self, tree: SecondLevelTree) -> Bool:
        """Mask of the same shape: last-level tables whose range becomes a huge page, which needs none."""
        return np.zeros(len(tree.pfn), dtype=np.bool_)

    def effect(self, tree: SecondLevelTree) -> TreeEffect:
        """All that it would do."""
        freed, collapsed = self.zaps(tree), self.collapses(tree)
        own = tree.mapped[collapsed].astype(np.int64) - tree.zero_page[collapsed]
        missing = int((ENTRIES_PER_TABLE - own).sum())
        return TreeEffect(self.name, freed, freed & tree.in_use & ~collapsed, collapsed, missing * PAGE_BYTES)


QUESTIONS: Final[tuple[type[Policy], ...]] = (OverSnapshot, OverTrace, OverTree)


def freeable(tables: Tables, worst_state: TableState) -> Bool:
    """User space's last-level tables whose state is `worst_state` or emptier.

    Last-level only, as upstream: try_to_free_pte() of PT_RECLAIM (6375e95f381e, 6.14) unhooks a PTE table
    under the locks of it and the PMD table above. A table of unknown level is never counted (it may be new,
    on its way out or, in a snapshot without `deposits_read`, deposited), nor is one that is deposited for a
    huge page: the kernel counts on it when it splits that page.
    """
    found: Bool = (tables.level == LAST_LEVEL) & ~tables.kernel & (tables.state <= worst_state)
    return found


def movable(tables: Tables) -> Bool:
    """User tables that could be moved: something points at them, and could point elsewhere.

    That leaves out PGDs, which stand in CR3 besides, and PUD tables where the kernel does not mark the level
    above.
    """
    found: Bool = ~tables.kernel & (tables.parent >= 0)
    return found


def first(candidates: Bool, budget_tables: int | None) -> Bool:
    """The first `budget_tables` of `candidates` in the order of their frames."""
    chosen = np.zeros_like(candidates)
    chosen[np.flatnonzero(candidates)[:budget_tables]] = True
    return chosen
