"""How much of a guest's memory could be huge pages: as it was in a snapshot, and with what policies free."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from orchestrator.errors import BadInputError
from orchestrator.model.blame import huge_supply
from orchestrator.model.blocks import map_memory
from orchestrator.model.policies import StateView
from orchestrator.records.summary import PolicyResult, SnapshotResult
from orchestrator.store import find_run
from orchestrator.store.snapshot_file import read_snapshot
from orchestrator.suggestion import suggest
from orchestrator.summary import load
from orchestrator.summary.snapshots import counterfactuals

_NOTHING: Final = "none"  # the policy that changes nothing
FREE_OR_MOVABLE: Final = "free or movable"
"""What compaction could make whole as the guest was: with no policy."""


@dataclass(frozen=True)
class Supply:
    """A share of memory that the guest could map by 2 MiB. `policy` is empty where none is asked."""

    what: str
    policy: str
    ranges: int | None
    share: float


@dataclass(frozen=True)
class Supplies:
    """Of one snapshot: all of its ranges of 2 MiB, and how many could be huge pages.

    `run` and `trial` are empty for a file, and all three for shares that were typed.
    """

    supplies: tuple[Supply, ...]
    huge_ranges: int | None = None
    run: str = ""
    trial: str = ""
    snapshot: str = ""


def supplies_of(target: str, results: Path, trial: str | None = None, label: str | None = None) -> Supplies:
    """What a run, a run folder or a snapshot file could supply. Raises BadInputError."""
    path = Path(target)
    if path.is_file() or path.suffix == ".npz":
        if trial or label:
            raise BadInputError("--trial and --snapshot select from a run", hint=f"{path} is one snapshot")
        return _of_file(path)
    return _of_run(target, results, trial, label)


def _of_file(path: Path) -> Supplies:
    state = StateView.of(read_snapshot(path))
    memory = map_memory(state.snapshot, classes=state.frames)
    supply = huge_supply(memory)
    policies = counterfactuals(state, memory, seed=0) if len(state.tables) else ()
    rows = _rows(supply.ranges, supply.free, supply.freeable, policies)
    return Supplies(rows, supply.ranges, snapshot=path.name)


def _of_run(target: str, results: Path, trial: str | None, label: str | None) -> Supplies:
    run = find_run(target, results)
    summaries = load(run)
    wanted = [one for one in summaries if trial in {None, one.trial}]
    if not wanted:
        hint = suggest(trial or "", [one.trial for one in summaries])
        raise BadInputError(f"{run.id} has no trial {trial or ''}".rstrip(), hint=hint)
    for summary in wanted:
        guest = [one for one in summary.snapshots if one.of == "guest" and label in {None, one.snapshot}]
        if guest:
            return _of_result(guest[-1], summary.policies, run.id, summary.trial)
    taken = dict.fromkeys(one.snapshot for summary in wanted for one in summary.snapshots)
    raise BadInputError(
        f"{run.id} has no snapshot {label or ''}".rstrip() + " of a guest",
        hint=f"it has: {', '.join(taken)}" if taken else "add a `snapshot` step to its scenario",
    )


def _of_result(result: SnapshotResult, policies: tuple[PolicyResult, ...], run: str, trial: str) -> Supplies:
    under = tuple(one for one in policies if one.snapshot == result.snapshot)
    rows = _rows(result.huge_ranges, result.huge_free, result.huge_freeable, under)
    return Supplies(rows, result.huge_ranges, run, trial, result.snapshot)


def _rows(ranges: int, free: int, freeable: int, policies: tuple[PolicyResult, ...]) -> tuple[Supply, ...]:
    """What is free, what compaction could free, and what it could after each policy."""
    if not ranges:
        raise BadInputError("no range of 2 MiB is whole in this snapshot", hint="name another snapshot")
    found = [
        Supply("free", "", free, free / ranges),
        Supply(FREE_OR_MOVABLE, "", freeable, freeable / ranges),
    ]
    found += [
        Supply(one.policy, one.policy, one.huge_freeable, one.huge_freeable / ranges)
        for one in policies
        if one.policy != _NOTHING and one.huge_freeable is not None
    ]
    return tuple(found)
