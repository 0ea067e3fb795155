"""The model against real guests: small snapshots of them are in tests/unit/live, with their conditions.

quickstart-*.npz: scenarios/quickstart.yaml, snapshot `loaded`, of one run. sizes.csv: tables of user space in
one run of scenarios/sizes.yaml (Redis with 60,000 keys and sparse-map over 8 GiB, and two and four times as
much), counted from its snapshots.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from modelled import extrapolate

from orchestrator.errors import BadInputError
from orchestrator.model.policies import OverSnapshot, StateView
from orchestrator.model.replay import replay
from orchestrator.model.snapshot_trace import TouchBound, read_series
from orchestrator.model.tables import LAST_LEVEL, Tables, TableState
from orchestrator.store.snapshot_file import read_snapshot
from orchestrator.units import GIB

LIVE = Path(__file__).parent / "live"


def state(kernel: str) -> StateView:
    return StateView.of(read_snapshot(LIVE / f"quickstart-{kernel}-loaded.npz"))


def user_leaves(tables: Tables) -> int:
    return int(((tables.level == LAST_LEVEL) & ~tables.kernel).sum())


def test_empty_predicts_what_the_7x_kernel_frees() -> None:
    """Same workload: what `empty` would free on 6.12 against what 7.3 had less, within 5 %."""
    before, freed_it = state("6.12"), state("7.x")
    assert (before.snapshot.kernel[:4], freed_it.snapshot.kernel[:4]) == ("6.12", "7.3.")
    predicted = OverSnapshot.named("empty").apply(before).tables_freed
    really = user_leaves(before.tables) - user_leaves(freed_it.tables)
    assert really > 20_000
    assert predicted == pytest.approx(really, rel=0.05)
    assert OverSnapshot.named("empty").apply(freed_it).tables_freed < 10


@pytest.mark.parametrize("kernel", ["6.12", "7.x"])
def test_a_run_as_a_trace(kernel: str) -> None:
    """Replayed, `empty` frees what it frees in the snapshot, and `empty_all_levels` as many PMD tables."""
    one = state(kernel)
    trace = read_series("quickstart", [one.tables]).trace
    assert trace.faults() == []
    counts = replay(trace, "empty", GIB)
    assert counts.freed == OverSnapshot.named("empty").apply(one).tables_freed
    assert counts.cold_misses == trace.tables_used == user_leaves(one.tables)
    parents = np.unique(one.tables.parent[(one.tables.level == LAST_LEVEL) & ~one.tables.kernel])
    freed = OverSnapshot.named("empty_all_levels").apply(one).freed
    upper = replay(trace, "empty_all_levels", GIB)
    assert upper.upper_freed == freed[parents].sum()
    assert upper.upper_tables + upper.upper_freed == len(parents)


def test_the_same_seen_twice_has_no_certain_touch() -> None:
    """Nothing clears accessed bits in these guests: 224 tables may have been touched again, or none."""
    one = state("6.12")
    in_use = (one.tables.level == LAST_LEVEL) & ~one.tables.kernel & (one.tables.state != TableState.EMPTY)
    accessed = int((in_use & (one.tables.accessed > 0)).sum())
    for reading, touched in ((TouchBound.CERTAIN, 0), (TouchBound.POSSIBLE, accessed)):
        series = read_series("twice", [one.tables, one.tables], reading)
        assert (series.pairs[1].touched_at_least, series.pairs[1].touched_at_most) == (0, accessed)
        assert (series.pairs[1].allocated, series.pairs[1].unmapped) == (0, 0)
        assert series.trace.touches == user_leaves(one.tables) + touched
        assert series.idle.tolist() == [1] * int(in_use.sum())
        counts = replay(series.trace, "empty", GIB)
        assert counts.freed == OverSnapshot.named("empty").apply(one).tables_freed
        assert counts.rebuilt == 0
    with pytest.raises(BadInputError, match="no snapshot has"):
        read_series("nothing", [])


def sizes(snapshot: str, column: str = "user_leaves") -> dict[int, int]:
    with (LIVE / "sizes.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["snapshot"] == snapshot]
    return {int(row["size"]): int(row[column]) for row in rows}


def test_extrapolation_holds_for_a_mapping() -> None:
    """Of the smallest guest, times 2 and 4, against guests that were measured: within 1 %."""
    redis, loaded = sizes("redis"), sizes("loaded")
    assert sorted(loaded) == [1, 2, 4]
    for size, measured in loaded.items():
        # What Redis has stays as it was measured: only the mapping grows.
        predicted = extrapolate(redis[size], redis[size] + loaded[1] - redis[1], size)
        assert predicted == pytest.approx(measured, rel=0.01)


def test_extrapolation_is_an_upper_bound_for_a_small_redis() -> None:
    """A process has tables before it has data: four times the keys, less than four times the tables."""
    before, redis = sizes("before"), sizes("redis")
    predicted = {size: extrapolate(before[1], redis[1], size) for size in redis}
    errors = np.array([predicted[size] / redis[size] - 1 for size in (2, 4)])
    assert (errors > 0).all()
    assert (errors < 0.5).all()
