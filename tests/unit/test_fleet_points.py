"""Points of a sweep on a host of a fleet: what travels, what is refused, and what a host may say."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from reference import ROOT as REFERENCE

from orchestrator.errors import BadInputError, InfrastructureError
from orchestrator.fleet import sweep_unit
from orchestrator.fleet.card import Program
from orchestrator.fleet.sweep_unit import (
    PointOrder,
    SweepHost,
    keep_trace,
    rows_of,
    run_point,
    serve_sweeps_here,
    with_trace_by_hash,
)
from orchestrator.model.cost import CostTable
from orchestrator.model.replay import EvictionAction
from orchestrator.model.trace import Trace
from orchestrator.scenario.sweep import load_sweep
from orchestrator.store.trace_file import write_trace
from orchestrator.sweep import SweepTask, tasks_of
from orchestrator.sweep.tasks import CompareTask, task_from_json, task_to_json

PROGRAM = Program(commit="c0ffee", lock="10c", sources="50")
SHIPPED = {"shipped": CostTable.shipped()}
SWEEP = REFERENCE.parents[1] / "scenarios" / "sweeps" / "hosts.yaml"


@pytest.fixture
def compared(tmp_path: Path) -> CompareTask:
    """A point of `compare`, of a trace that is there."""
    table = np.arange(64, dtype=np.uint32) % 4
    made = Trace("some", 4, table, np.full(len(table), 2, dtype=np.uint8), "made up")
    write_trace(tmp_path / "some.npz", made)
    path, actions = tmp_path / "some.npz", (EvictionAction.SWAP,)
    return CompareTask(0, {"seed": 0}, path, 8192, None, 0, ("lru",), actions, tuple(SHIPPED.items()))


@pytest.fixture
def host(tmp_path: Path) -> Iterator[SweepHost]:
    made = SweepHost("h1", PROGRAM, tmp_path / "traces", tmp_path / "compiled", 1)
    serve_sweeps_here(made)
    yield made
    made.close()
    sweep_unit._host = None


def ordered(task: SweepTask, program: Program = PROGRAM) -> str:
    return PointOrder(program=program, task=task_to_json(task)).to_json()


def test_a_task_is_the_same_behind_its_way_as_text(compared: CompareTask) -> None:
    tasks = [*tasks_of(load_sweep(SWEEP), SHIPPED), compared]
    assert len(tasks) == 31
    for task in tasks:
        assert task_from_json(task_to_json(task)) == task


@pytest.mark.parametrize(
    "text", ["", "compare", "compare {}", "overcommit []", "os.system {}", "\0", 'compare {"point": 1}']
)
def test_what_is_no_task_is_refused(text: str) -> None:
    with pytest.raises(BadInputError, match="no task of a sweep"):
        task_from_json(text)


@pytest.mark.slow  # a policy is compiled
def test_a_trace_travels_by_its_hash(compared: CompareTask, host: SweepHost) -> None:
    data = compared.trace.read_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    task, path = with_trace_by_hash(compared)
    assert isinstance(task, CompareTask)
    assert (str(task.trace), path) == (sha256, compared.trace)
    assert "not there" in run_point(ordered(task))["error"]
    assert "not what its SHA-256 says" in keep_trace(sha256, data + b"x")
    assert keep_trace(sha256, data) == ""
    assert rows_of(run_point(ordered(task))) == compared.rows()


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "0" * 63, "0" * 64])
def test_no_other_file_is_read(name: str, compared: CompareTask, host: SweepHost) -> None:
    task = CompareTask(**{**vars(compared), "trace": Path(name)})
    assert run_point(ordered(task)) == {"made": False, "error": "the trace of the point is not there"}


def test_another_program_is_told_what_differs(compared: CompareTask, host: SweepHost) -> None:
    other = PROGRAM.model_copy(update={"commit": "bad"})
    assert "h1 has another program: commit: " in run_point(ordered(compared, other))["error"]


def test_an_order_that_cannot_be_read_and_a_process_without_a_worker_are_told(host: SweepHost) -> None:
    assert run_point("{}") == {"made": False, "error": "an order came that cannot be read"}
    sweep_unit._host = None
    assert run_point("{}")["error"] == keep_trace("", b"") == "no worker of a fleet runs here"


@pytest.mark.parametrize(
    "said",
    [
        None,
        [],
        {},
        {"made": True},
        {"made": True, "rows": "["},
        {"made": True, "rows": '[{"a": []}]'},
        {"made": 1},
    ],
)
def test_a_host_may_say_anything(said: object) -> None:
    with pytest.raises(InfrastructureError):
        rows_of(said)


def test_figures_come_back_as_they_are() -> None:
    rows = [{"policy": "lru", "fit": 0.1 + 0.2, "killed": 3, "action": None, "most": float("inf")}]
    assert rows_of({"made": True, "rows": json.dumps(rows)}) == rows
