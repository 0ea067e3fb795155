"""What a trial's snapshots say: page tables, blocks, and what each policy would have done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.errors import BadInputError
from orchestrator.model.blocks import BlockTotals
from orchestrator.model.policies import POLICIES, Policy, StateView
from orchestrator.model.tables import TableState
from orchestrator.observation import Origin
from orchestrator.store import TrialFolder
from orchestrator.store.snapshot_file import read_snapshot
from orchestrator.summary.records import PolicyResult
from orchestrator.units import PAGE_BYTES

# The snapshot a scenario takes when its workload has built up what it builds up.
LOADED = "loaded"


@dataclass(frozen=True)
class SnapshotFacts:
    """Figures of one snapshot; small, where the snapshot itself may be gigabytes.

    `problem` says why there are none. `block_bytes` is None where regions have blocks of several sizes,
    or there is no region.
    """

    t_ns: int
    label: str
    problem: str = ""
    kernel: str = ""
    tables: int = 0
    tables_empty: int = 0
    blocks: BlockTotals | None = None
    block_bytes: int | None = None
    policies: tuple[PolicyResult, ...] = ()


def look_at_snapshots(trial: TrialFolder) -> list[SnapshotFacts]:
    """Facts of every snapshot of a trial, in the order of taking. Holds one snapshot at a time."""
    facts = []
    for event in trial.events:
        if event.name == "snapshot":
            path = trial.snapshot_path(event)
            if path is None:
                facts.append(SnapshotFacts(event.t_ns, event.text("label"), "its file is missing"))
                continue
            try:
                state = StateView.of(read_snapshot(path))
            except BadInputError as error:
                facts.append(SnapshotFacts(event.t_ns, event.text("label"), error.brief))
                continue
            facts.append(_facts(event.t_ns, event.text("label"), state, trial.planned.seed))
    return facts


def of_tables(facts: Sequence[SnapshotFacts]) -> SnapshotFacts | None:
    """The snapshot in which page tables are counted: `loaded`, else the first that has any."""
    with_tables = [fact for fact in facts if fact.tables]
    loaded = (fact for fact in with_tables if fact.label == LOADED)
    return next(loaded, with_tables[0] if with_tables else None)


def after(facts: Sequence[SnapshotFacts], t_ns: int) -> SnapshotFacts | None:
    """The last snapshot with blocks that was taken at `t_ns` or later."""
    return next((fact for fact in reversed(facts) if fact.t_ns >= t_ns and fact.blocks), None)


def _facts(t_ns: int, label: str, state: StateView, seed: int) -> SnapshotFacts:
    sizes = {region.block_pages * PAGE_BYTES for region in state.snapshot.regions}
    block_bytes = sizes.pop() if len(sizes) == 1 else None
    return SnapshotFacts(
        t_ns=t_ns,
        label=label,
        kernel=state.snapshot.kernel,
        tables=len(state.tables),
        tables_empty=int((state.tables.state == TableState.EMPTY).sum()),
        blocks=BlockTotals.of(state.blocks) if state.blocks else None,
        block_bytes=block_bytes,
        policies=tuple(_replay(label, policy, state, seed, block_bytes) for policy in _policies())
        if len(state.tables)
        else (),
    )


def _policies() -> list[Policy]:
    """All of them, the one that does nothing first, for the others to be compared with."""
    return [policy for _, policy in sorted(POLICIES, key=lambda item: (item[0] != "none", item[0]))]


def _replay(label: str, policy: Policy, state: StateView, seed: int, block_bytes: int | None) -> PolicyResult:
    verdict = policy.apply(state, seed=seed)
    freed = sum(int(verdict.blocks_freed(blocks).sum()) for blocks in state.blocks)
    if_moved = sum(int(verdict.blocks_freed_if_moved(blocks).sum()) for blocks in state.blocks)
    return PolicyResult(
        snapshot=label,
        policy=policy.name,
        tables_freed=verdict.tables_freed,
        bytes_freed=verdict.bytes_freed,
        tables_to_move=verdict.tables_to_move,
        blocks_freed=freed if state.blocks else None,
        blocks_freed_if_moved=if_moved if state.blocks else None,
        block_bytes=block_bytes,
        origin=Origin.MODELLED.value,
    )
