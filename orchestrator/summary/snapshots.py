"""What a trial's snapshots say: tables, blocks and what pins them, what each policy would have done."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from orchestrator.errors import BadInputError
from orchestrator.model.blame import HugeSupply, RegionBlame, blame, huge_supply
from orchestrator.model.blocks import BlockMap, BlockTotals, map_memory
from orchestrator.model.frame_class import FrameClass
from orchestrator.model.policies import OverSnapshot, StateView
from orchestrator.model.second_level_counts import SecondLevelCounts
from orchestrator.model.snapshot import Snapshot
from orchestrator.model.tables import TableState
from orchestrator.observation import Origin
from orchestrator.records.events import SnapshotTaken, StepEnd
from orchestrator.records.step import Target
from orchestrator.records.summary import BlameResult, PolicyResult, SecondLevelResult, SnapshotResult
from orchestrator.store import TrialFolder
from orchestrator.store.snapshot_file import read_snapshot
from orchestrator.summary.second_level import second_level_rows
from orchestrator.units import PAGE_BYTES

# The snapshot a scenario takes when its workload has built up what it builds up.
LOADED = "loaded"
OF_GUEST, OF_HOST = Target.GUEST.value, Target.HOST.value


@dataclass(frozen=True)
class SnapshotFacts:
    """Figures of one snapshot; small, where the snapshot itself may be gigabytes.

    `problem` says why there are none. `block_bytes` is None where regions have blocks of several sizes,
    or there is no region.
    """

    t_ns: int
    label: str
    problem: str = ""
    of: str = OF_GUEST
    kernel: str = ""
    tables: int = 0
    tables_empty: int = 0
    blocks: BlockTotals | None = None
    block_bytes: int | None = None
    policies: tuple[PolicyResult, ...] = ()
    result: SnapshotResult | None = None
    blame: tuple[BlameResult, ...] = ()
    second_level: tuple[SecondLevelResult, ...] = ()


@dataclass(frozen=True)
class Injected:
    """Workloads that ran when a snapshot was taken, and the frame classes as which they are to be found."""

    workloads: tuple[str, ...] = ()
    expected: tuple[str, ...] = ()
    after: str = ""  # the last action that took memory since


def look_at_snapshots(trial: TrialFolder) -> list[SnapshotFacts]:
    """Facts of every snapshot of a trial, in the order of taking. Holds one snapshot at a time."""
    facts = []
    running: dict[str, tuple[str, ...]] = {}
    unplugged_by = {OF_GUEST: "", OF_HOST: ""}
    for event in trial.events:
        if isinstance(event, StepEnd) and event.workload:
            _follow_workloads(running, event)
            unplugged_by[OF_GUEST] = ""
        elif isinstance(event, StepEnd) and event.takes:
            unplugged_by[event.target] = event.action
        if isinstance(event, SnapshotTaken):
            of = event.of
            path = trial.snapshot_path(event)
            if path is None:
                facts.append(SnapshotFacts(event.t_ns, event.label, "its file is missing", of))
                continue
            try:
                state = StateView.of(read_snapshot(path))
            except BadInputError as error:
                facts.append(SnapshotFacts(event.t_ns, event.label, error.brief, of))
                continue
            expected = dict.fromkeys(name for names in running.values() for name in names)
            injected = Injected(tuple(running), tuple(expected), unplugged_by[OF_GUEST])
            if of == OF_HOST:  # workloads run in its guest
                injected = Injected(after=unplugged_by[OF_HOST])
            seed = trial.planned.seed
            facts.append(_facts(event.t_ns, event.label, state, of=of, seed=seed, injected=injected))
    return facts


def _follow_workloads(running: dict[str, tuple[str, ...]], end: StepEnd) -> None:
    """Keep the workloads that run, with what they are to be found as."""
    if end.action == "start":
        known = FrameClass.__members__
        running[end.workload] = tuple(name for name in end.expects if name.upper() in known)
    elif end.action == "stop":
        running.pop(end.workload, None)


def of_tables(facts: Sequence[SnapshotFacts]) -> SnapshotFacts | None:
    """The snapshot in which page tables are counted: `loaded`, else the first that has any."""
    with_tables = [fact for fact in facts if fact.tables and fact.of == OF_GUEST]
    loaded = (fact for fact in with_tables if fact.label == LOADED)
    return next(loaded, with_tables[0] if with_tables else None)


def after(facts: Sequence[SnapshotFacts], t_ns: int) -> SnapshotFacts | None:
    """The last snapshot with blocks that was taken at `t_ns` or later."""
    found = (fact for fact in reversed(facts) if fact.of == OF_GUEST)
    return next((fact for fact in found if fact.t_ns >= t_ns and fact.blocks), None)


def _facts(
    t_ns: int, label: str, state: StateView, *, of: str, seed: int, injected: Injected
) -> SnapshotFacts:
    sizes = {region.block_pages * PAGE_BYTES for region in state.snapshot.regions}
    block_bytes = sizes.pop() if len(sizes) == 1 else None
    memory = map_memory(state.snapshot, classes=state.frames)
    regions = blame_regions(state)
    second_level = SecondLevelCounts.from_json(state.snapshot.notes.get("second_level", ""))
    return SnapshotFacts(
        t_ns=t_ns,
        label=label,
        of=of,
        kernel=state.snapshot.kernel,
        tables=len(state.tables),
        tables_empty=int((state.tables.state == TableState.EMPTY).sum()),
        blocks=BlockTotals.of(state.blocks) if state.blocks else None,
        block_bytes=block_bytes,
        policies=counterfactuals(state, memory, seed) if len(state.tables) else (),
        result=_result(
            state.snapshot,
            regions,
            label=label,
            of=of,
            block_bytes=block_bytes,
            injected=injected,
            supply=huge_supply(memory),
            deposited=int((state.tables.state == TableState.DEPOSITED).sum()),
            second_level=second_level,
        ),
        second_level=tuple(second_level_rows(label, second_level.effects)) if second_level else (),
        blame=tuple(row for region in regions for row in blame_rows(label, region)),
    )


def blame_regions(state: StateView) -> tuple[RegionBlame, ...]:
    """Blame for each resizable region."""
    return tuple(blame(state.snapshot, blocks, state.frames, state.tables) for blocks in state.blocks)


def blame_rows(label: str, region: RegionBlame) -> Iterator[BlameResult]:
    """One row for each class of frames and each kind of page table in plugged blocks."""
    name = region.block_map.region.name
    for share in region.classes:
        yield BlameResult(
            label,
            name,
            frame_class=share.frame_class.name.lower(),
            table="",
            frames=share.frames,
            blocks=share.blocks,
            sole_blocker=share.sole_blocker,
            freeable=share.freeable,
            attributed=share.attributed,
        )
    for kind in region.tables:
        yield BlameResult(
            label,
            name,
            frame_class=FrameClass.PAGE_TABLE.name.lower(),
            table=kind.kind,
            frames=kind.tables,
            blocks=kind.blocks,
            sole_blocker=kind.sole_blocker,
            freeable=None,
            attributed=None,
        )


def _result(
    snapshot: Snapshot,
    regions: Sequence[RegionBlame],
    *,
    label: str,
    of: str,
    block_bytes: int | None,
    injected: Injected,
    supply: HugeSupply,
    deposited: int,
    second_level: SecondLevelCounts | None,
) -> SnapshotResult:
    stopped = snapshot.notes.get("stopped_seconds", "")
    return SnapshotResult(
        snapshot=label,
        frames_changed=snapshot.frames_changed,
        stopped_seconds=float(stopped) if stopped.replace(".", "", 1).isdecimal() else None,
        injected=" ".join(injected.workloads),
        expected=" ".join(injected.expected),
        after=injected.after,
        block_bytes=block_bytes,
        blocks_plugged=_summed(int(region.block_map.plugged.sum()) for region in regions),
        blocks_pinned=_summed(region.pinned for region in regions),
        blocks_pinned_by_several=_summed(region.pinned_by_several for region in regions),
        blocks_pinned_by_memmap_only=_summed(region.pinned_by_memmap for region in regions),
        blocks_no_migration_target=_summed(region.no_migration_target for region in regions),
        blocks_unexplained=_summed(region.unexplained for region in regions),
        blocks_expected=_expected(regions, injected.expected) if injected.expected else None,
        huge_ranges=supply.ranges,
        huge_free=supply.free,
        huge_freeable=supply.freeable,
        of=of,
        second_level_tables=second_level.tables if second_level else None,
        page_tables_deposited=deposited if snapshot.deposits_read else None,
    )


def _summed(counts: Iterable[int]) -> int | None:
    """Over all regions; None where there is none, which is not a count of 0."""
    found = list(counts)
    return sum(found) if found else None


def _expected(regions: Sequence[RegionBlame], names: Sequence[str]) -> int | None:
    """Plugged blocks with one of these classes, or with memmap of memory that has one."""
    classes = [FrameClass[name.upper()] for name in names]
    return _summed(region.having(classes) for region in regions)


def counterfactuals(
    state: StateView, memory: BlockMap, seed: int, budget_tables: int | None = None
) -> tuple[PolicyResult, ...]:
    """What each policy would have done; the one that does nothing first, for the others to compare with.

    `memory` is the map of all memory in ranges of 2 MiB. `budget_tables` bounds how many tables each picks.
    """
    policies = sorted(OverSnapshot.every(), key=lambda policy: (policy.name != "none", policy.name))
    return tuple(_replay(policy, state, memory, seed, budget_tables) for policy in policies)


def _replay(
    policy: OverSnapshot, state: StateView, memory: BlockMap, seed: int, budget_tables: int | None
) -> PolicyResult:
    effect = policy.apply(state, seed=seed, budget_tables=budget_tables)
    freed = sum(int(effect.blocks_freed(blocks).sum()) for blocks in state.blocks)
    if_moved = sum(int(effect.blocks_freed_if_moved(blocks).sum()) for blocks in state.blocks)
    sizes = {region.block_pages * PAGE_BYTES for region in state.snapshot.regions}
    gone = state.tables.pfn[np.flatnonzero(effect.freed | effect.to_move)]
    return PolicyResult(
        snapshot=state.snapshot.label,
        policy=policy.name,
        tables_freed=effect.tables_freed,
        bytes_freed=effect.bytes_freed,
        tables_to_move=effect.tables_to_move,
        blocks_freed=freed if state.blocks else None,
        blocks_freed_if_moved=if_moved if state.blocks else None,
        block_bytes=sizes.pop() if len(sizes) == 1 else None,
        origin=Origin.MODELLED.value,
        huge_freeable=huge_supply(memory.after_freeing(gone)).freeable,
    )
