"""What stands in a run folder reads back as it was written; what is older or foreign does no harm."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import pytest
from synthetic_run import EVIL

from orchestrator.actions import ACTIONS
from orchestrator.analysis.arms import steps_of
from orchestrator.errors import BadInputError
from orchestrator.plan import Plan, PlannedArm, PlannedTrial
from orchestrator.records.base import MOST_POINTS
from orchestrator.records.events import (
    NAMES,
    Event,
    KnownEvent,
    Mark,
    StepBegin,
    StepEnd,
    Unknown,
    read_event,
)
from orchestrator.records.plan import ArmRecord, PlanRecord, TrialRecord
from orchestrator.records.step import Direction, Effect, Mechanism, StepOutcome, StepResult, Target
from orchestrator.records.summary import BlameResult, SnapshotResult
from orchestrator.records.versions import COLUMNS_2_TO_3, SCHEMA_VERSION, migrated_line, migrated_tables
from orchestrator.store import TrialWriter, read_events

KINDS: tuple[type[Event], ...] = get_args(get_args(KnownEvent)[0])
TAKE = Effect(Mechanism.VIRTIO_MEM, Target.HOST, Direction.TAKE)


def end(**fields: Any) -> StepEnd:
    event = read_event({"t_ns": 9, "event": "step.end", "step": 1, **fields})
    assert isinstance(event, StepEnd)
    return event


@pytest.mark.parametrize("kind", KINDS)
def test_every_event_is_written_and_read_by_one_class(tmp_path: Path, kind: type[Event]) -> None:
    required = {"phase": "boot"} if "phase" in kind.model_fields else {}
    event = kind.model_validate({"t_ns": 5, **required})
    with TrialWriter(tmp_path / "t", "t") as trial:
        trial.record(event)
    (line,) = (tmp_path / "t" / "events.jsonl").read_text().splitlines()
    assert json.loads(line) == {"t_ns": 5, "event": event.name, **required}, "and nothing that was not given"
    (back,) = read_events(tmp_path / "t")
    assert (type(back), back) == (kind, event)


def test_names_are_told_apart() -> None:
    assert len(KINDS) == len(NAMES) >= 12


def test_a_line_of_another_version_is_kept_and_its_fields_are_no_fault(tmp_path: Path) -> None:
    lines = [
        {"t_ns": 1, "event": "of.the.future", "what": {"a": [1, None]}},
        {"t_ns": 2, "event": "mark", "label": "full", "colour": "red"},
    ]
    (tmp_path / "events.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    unknown, mark = read_events(tmp_path)
    assert isinstance(unknown, Unknown)
    assert unknown.fields() == lines[0]
    assert mark == Mark(t_ns=2, label="full")


@pytest.mark.parametrize(
    "line",
    [
        {"event": "mark"},
        {"t_ns": "soon", "event": "mark"},
        {"t_ns": 1},
        {"t_ns": 1, "event": "step.begin", "step": "one"},
        {"t_ns": 1, "event": "step.end", "step": 1, "direction": "sideways"},
        {"t_ns": 1, "event": "snapshot", "of": EVIL},
        [],
    ],
)
def test_a_line_that_is_no_event_is_named(tmp_path: Path, line: object) -> None:
    good = json.dumps({"t_ns": 1, "event": "mark"})
    (tmp_path / "events.jsonl").write_text(f"{good}\n{json.dumps(line)}\n{good}\n")
    with pytest.raises(BadInputError, match=r"events\.jsonl:2: not an event"):
        read_events(tmp_path)


def test_what_a_guest_makes_up_is_bounded() -> None:
    junk = [[0, 0], [EVIL, 1], [1, float("nan")], [1, 10**400], [True, 1], [-1, 1], [1], EVIL, [3, 5], [2, 4]]
    assert end(curve=junk).curve == ((0, 0), (2, 4), (3, 5)), "in the order of time"
    assert end(curve=EVIL).curve == ()
    assert len(end(curve=[[0, 0]] * (MOST_POINTS + 1)).curve) == MOST_POINTS
    values = end(values={"a": 1, "b": float("inf"), "c": EVIL, "d": True, "e": 0.5}).values
    assert values == {"a": 1, "b": None, "c": None, "d": None, "e": 0.5}
    assert end(expects=[EVIL, {EVIL: 1}]).expects == (EVIL, str({EVIL: 1}))
    assert len(end(message="x" * 10**6).message) < 10**5


def test_what_a_step_does_to_memory_is_a_fact_of_its_end() -> None:
    begin = StepBegin(t_ns=1, step=1, action="host_unplug", describe="unplug the host to 1 GiB")
    result = StepResult(
        StepOutcome.DONE, requested_ns=2, values={"requested_bytes": 8}, curve=[(0.0, 0), (1.0, 8)]
    )
    event = StepEnd.of(begin, 9, TAKE, result, {})
    assert (event.takes, event.takes_memory, event.resizes_guest) == (True, True, False)
    (step,) = steps_of([begin, event])
    assert (step.takes, step.curve) == (True, ((0.0, 0), (1.0, 8))), "so the host's memory has its curve"
    assert not StepEnd.of(begin, 9, Effect(), result, {}).takes


def test_of_version_1_the_name_of_the_action_says_it() -> None:
    for name, action in ACTIONS:
        line = {"t_ns": 1, "event": "step.end", "step": 1, "action": name}
        read = read_event(migrated_line(line, 1))
        assert isinstance(read, StepEnd)
        found = read.mechanism, read.target, read.direction
        assert found == (action.effect.mechanism, action.effect.target, action.effect.direction)
    line = {"t_ns": 1, "event": "step.end", "step": 1, "action": "unplug", "direction": "none"}
    assert migrated_line(line, 1)["direction"] == "none", "what is said already, by a trial that was resumed"
    assert migrated_line(line, SCHEMA_VERSION) == line


def test_tables_of_version_1_are_read_as_those_of_today() -> None:
    rows = [
        {"trial": "a", "outcome": "completed", "unplug_outcome": "timeout", "accel": "tcg"},
        {"trial": "b", "outcome": "lost", "accel": "kvm"},
        {"trial": "c", "outcome": "lost", "left_out": "said", "start": "warm"},
    ]
    moments = [{"trial": trial, "second_level_bytes": "4096"} for trial in "ab"]
    tables = migrated_tables({"summary.csv": rows, "moments.csv": moments}, 1)
    assert [row["left_out"] for row in tables["summary.csv"]] == [
        "had not settled: unplug",
        "did not complete: lost",
        "said",
    ]
    assert [row["start"] for row in tables["summary.csv"]] == ["", "", "warm"]
    assert [row["second_level_bytes"] for row in tables["moments.csv"]] == ["", "4096"]


def test_of_version_2_names_are_read_as_those_of_the_glossary() -> None:
    line = {"t_ns": 1, "event": "step.end", "step": 1, "said": "EBUSY 3"}
    assert migrated_line(line, 2)["message"] == migrated_line(line, 1)["message"] == "EBUSY 3"
    assert "message" not in migrated_line({**line, "event": "mark"}, 2), "of that event it is another field"
    resumed = {**line, "message": "EINTR 1"}
    assert (migrated_line(resumed, 2)["message"], "said" in migrated_line(resumed, 2)) == ("EINTR 1", False)
    tables = {"blame.csv": [{"trial": "a", "alone": "2", "frees": "3", "named": "4"}]}
    assert migrated_tables(tables, 2)["blame.csv"] == [
        {"trial": "a", "sole_blocker": "2", "freeable": "3", "attributed": "4"}
    ]


@pytest.mark.parametrize("name", COLUMNS_2_TO_3)
def test_every_column_that_was_renamed_is_one(name: str) -> None:
    """Else a row of version 2 would lack it, and be read as not measured."""
    kind = {"snapshots.csv": SnapshotResult, "blame.csv": BlameResult}[name]
    columns = {field.name for field in fields(kind)}
    assert set(COLUMNS_2_TO_3[name].values()) <= columns
    assert not set(COLUMNS_2_TO_3[name]) & columns


def test_the_plan_is_written_and_read_by_one_class() -> None:
    """Else a key that the plan has would be lost on the way to the disk."""
    assert list(PlanRecord.model_fields) == list(Plan.model_fields)
    assert list(TrialRecord.model_fields) == list(PlannedTrial.model_fields)
    assert list(ArmRecord.model_fields) == list(PlannedArm.model_fields)
